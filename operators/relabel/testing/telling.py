"""Telling: a labeler that says what a text holds, one that reads what was said, and one that compares it with the rest.

In a recipe: `plugins: [relabel.testing.telling]`, `steps: [tell, retell, deviate]`; samples are members `KEY.txt`.
"""

import numpy as np

from ..digests import Json
from ..errors import BadSample
from ..labelers.labeler import KEY, Batch, Fields, Labeler, Labels, Parameters, Prepared
from ..labelers.registry import register
from ..labels.contract import Column, LabelContract
from ..reasons import Reason
from ..statistics.statistic import UNITS, Rows, State, Statistic, added, fixed_point

PARTS = {"word": "string", "words": "list:string", "bytes": "bytes", "even": "|b1", "length": "<i4"}


class TellParameters(Parameters):
    """What is no word."""

    stop: str = "stop"


@register
class Tell(Labeler[TellParameters]):
    """A column of every kind, from the text; the word `stop` cannot be told."""

    name, version, needs = "tell", 1, ("text",)

    def writes(self) -> LabelContract:
        kinds = (Column(name=f"{self.label}_{part}", dtype=dtype) for part, dtype in PARTS.items())
        vector = Column(name=f"{self.label}_vector", dtype="<f4", shape=(3,), axes=("letter",))
        return LabelContract(name=self.label, kind="score", columns=(*kinds, vector))

    def prepare(self, sample: Fields) -> Prepared:
        text = sample["text"]
        return {"text": np.array(text.decode() if isinstance(text, bytes) else str(text))}

    def __call__(self, batch: Batch) -> Labels:
        texts = [str(text) for text in batch["text"]]
        if self.parameters.stop in texts:
            raise BadSample(Reason.UNUSABLE_TEXT, "told to stop")
        return self.columns(
            word=texts,
            words=[[text, text[::-1]] for text in texts],
            bytes=[text.encode() for text in texts],
            even=[len(text) % 2 == 0 for text in texts],
            length=[len(text) for text in texts],
            vector=np.array([[len(text), 0.5, -1] for text in texts], np.float32),
        )


class ReadParameters(Parameters):
    """Which label is read."""

    label: str = "tell"


@register
class Retell(Labeler[ReadParameters]):
    """What it found in its batch, as it found it; without a field of its own."""

    name, version, needs = "retell", 1, (KEY,)

    def __init__(self, parameters: ReadParameters, label: str = "") -> None:
        super().__init__(parameters, label)
        self.reads = (parameters.label,)

    def writes(self) -> LabelContract:
        names = ("key", "word", "types", "rows")
        return LabelContract(
            name=self.label,
            kind="caption",
            columns=tuple(Column(name=f"{self.label}_{name}", dtype="string") for name in names),
        )

    def prepare(self, sample: Fields) -> Prepared:
        return {"key": np.array(str(sample[KEY]))}

    def __call__(self, batch: Batch) -> Labels:
        read = self.parameters.label
        names = [name for name in batch if name.startswith(f"{read}_")]
        rows = range(len(batch["key"]))
        return self.columns(
            key=[str(key) for key in batch["key"]],
            word=[str(batch[f"{read}_word"][row]) for row in rows],
            types=[" ".join(f"{name}:{kind_of(batch[name])}" for name in names) for _ in rows],
            rows=[repr([told(batch[name][row]) for name in names]) for row in rows],
        )


class Mean(Statistic):
    """The mean of a column, or of its distance from `centre`."""

    name, version = "mean", 1

    def __init__(self, column: str, centre: float | None) -> None:
        self.column, self.centre = column, centre

    def identity(self) -> Json:
        return [self.column, self.centre]

    def empty(self) -> State:
        return {"sum": np.zeros(1, np.int64), "count": np.zeros(1, np.int64)}

    def update(self, state: State, rows: Rows) -> State:
        values = np.asarray(rows[self.column], np.float64)
        values = values if self.centre is None else np.abs(values - self.centre)
        return added(state, {"sum": fixed_point(values).sum(keepdims=True), "count": np.array([len(values)])})

    def merge(self, left: State, right: State) -> State:
        return added(left, right)

    def finish(self, state: State) -> dict[str, Json]:
        count = int(state["count"][0])
        return {"mean": int(state["sum"][0]) / UNITS / max(1, count), "count": count}


@register
class Deviate(Labeler[ReadParameters]):
    """By how many mean deviations a length differs from the mean length: two passes over the data set before it."""

    name, version, needs = "deviate", 1, (KEY,)

    def __init__(self, parameters: ReadParameters, label: str = "") -> None:
        super().__init__(parameters, label)
        self.reads = (parameters.label,)
        self.column = f"{parameters.label}_length"

    def statistic(self) -> Statistic | None:
        if len(self.finished) == 2:
            return None
        return Mean(self.column, self.finished[0]["mean"] if self.finished else None)

    def writes(self) -> LabelContract:
        columns = (Column(name=f"{self.label}_by", dtype="<f4"),)
        return LabelContract(name=self.label, kind="score", columns=columns)

    def prepare(self, sample: Fields) -> Prepared:
        return {"key": np.array(str(sample[KEY]))}

    def __call__(self, batch: Batch) -> Labels:
        mean, spread = (float(result["mean"]) for result in self.finished)
        return self.columns(by=(np.asarray(batch[self.column], np.float64) - mean) / max(spread, 1e-9))


def kind_of(values: object) -> str:
    return f"{values.dtype.str}{list(values.shape[1:])}" if isinstance(values, np.ndarray) else type(values).__name__


def told(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
