"""Selector `hash_sample`: a uniform sample of a given size, the same one however the data set is cut or ordered.

The samples whose keys have the smallest hashes are chosen (bottom-k sampling): two such samples of parts merge into
that of the whole. A key that occurs in several shards is chosen in all of them.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt64
from pydantic import Field

from ..digests import Json
from ..errors import UsageError
from ..labelers.labeler import KEY, Batch, Fields, Labeler, Labels, Parameters, Prepared
from ..labelers.registry import register
from ..labels.contract import Column, LabelContract
from ..statistics.hashes import key_hashes
from ..statistics.statistic import Rows, State, Statistic

PURPOSE = "hash_sample"


class HashSampleParameters(Parameters):
    """How many samples, and what of them is kept with the result."""

    samples: int = Field(ge=1, le=1_000_000)
    """So many are chosen, or all where there are fewer."""
    seed: int = Field(default=0, ge=0)
    """Another seed chooses others."""
    text: bool = False
    """Keep the field `text` of each with the result, for what looks at the sample alone (a taxonomy). What is withdrawn
    later stays in it until a refit."""
    max_chars: int = Field(default=2000, ge=1, le=20_000)
    """Of a text that is kept."""


@dataclasses.dataclass(frozen=True)
class SmallestHashes(Statistic):
    """The rows with the smallest hashes: `hash` ascending, and their texts one after the other up to `end`."""

    name, version = "smallest_hashes", 1
    samples: int
    seed: int
    text: bool
    max_chars: int

    def identity(self) -> Json:
        return dataclasses.asdict(self)

    def empty(self) -> State:
        return self.state(np.zeros(0, np.uint64), [], 0)

    def update(self, state: State, rows: Rows) -> State:
        hashes = key_hashes(rows["key"], PURPOSE, self.seed)
        texts = [str(text)[: self.max_chars].encode() for text in rows["text"]] if self.text else [b""] * len(hashes)
        return self.merge(state, self.state(hashes, texts, len(hashes)))

    def merge(self, left: State, right: State) -> State:
        hashes = np.concatenate([left["hash"], right["hash"]])
        texts = [*self.texts(left), *self.texts(right)]
        return self.state(hashes, texts, int(left["rows"]) + int(right["rows"]))

    def finish(self, state: State) -> dict[str, Json]:
        """`rows` in all, `largest`: the largest hash that is chosen (as text: JSON has no such numbers), `texts`."""
        if not len(state["hash"]):
            raise UsageError("there is no sample to choose from. Correct the source, or loosen `where`.")
        texts = [text.decode() for text in self.texts(state)] if self.text else []
        return {"rows": int(state["rows"]), "largest": str(int(state["hash"][-1])), "texts": texts}

    def state(self, hashes: UInt64[np.ndarray, " rows"], texts: Sequence[bytes], rows: int) -> State:
        """The smallest of them; equal hashes by their texts."""
        order = sorted(range(len(hashes)), key=lambda row: (hashes[row], texts[row]))[: self.samples]
        kept = [texts[row] for row in order]
        return {
            "hash": hashes[order],
            "end": np.cumsum([len(text) for text in kept], dtype=np.int64),
            "text": np.frombuffer(b"".join(kept), np.uint8),
            "rows": np.array(rows, np.int64),
        }

    def texts(self, state: State) -> list[bytes]:
        data, ends = state["text"].tobytes(), state["end"].tolist()
        return [data[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=False)]


@register
class HashSample(Labeler[HashSampleParameters]):
    """`selected`, and `inclusion_prob`: with which probability a sample of this data set is chosen."""

    name, version = "hash_sample", 1

    def __init__(self, parameters: HashSampleParameters, label: str = "") -> None:
        super().__init__(parameters, label)
        self.needs = (KEY, "text") if parameters.text else (KEY,)

    def statistic(self) -> Statistic | None:
        asked = self.parameters
        return None if self.finished else SmallestHashes(asked.samples, asked.seed, asked.text, asked.max_chars)

    def writes(self) -> LabelContract:
        selected = Column(name=f"{self.label}_selected", dtype="|b1")
        return LabelContract(
            name=self.label,
            kind="score",
            columns=(selected, Column(name=f"{self.label}_inclusion_prob", dtype="<f4")),
        )

    def prepare(self, sample: Fields) -> Prepared:
        key = {"key": np.array(str(sample[KEY]))}
        if not self.parameters.text:
            return key
        text = sample["text"]
        said = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        # Cut here: as an array all texts of a part take as much memory as the longest.
        return {**key, "text": np.array(said[: self.parameters.max_chars])}

    def __call__(self, batch: Batch) -> Labels:
        found = self.finished[0]
        hashes = key_hashes(batch["key"], PURPOSE, self.parameters.seed)
        share = min(1.0, self.parameters.samples / max(1, int(found["rows"])))
        return self.columns(
            selected=hashes <= np.uint64(int(found["largest"])), inclusion_prob=np.full(len(hashes), share, np.float32)
        )
