"""Samples: the dict that a training loop gets, made of a source's sample and a row of labels, then transformed."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from ..errors import UsageError
from ..labels.contract import LabelContract
from ..shards.keys import BAD_KEY
from ..shards.shard import Sample
from .draws import picks
from .label_rows import JoinedRows
from .media import Media, Orientation, open_image, orientation_of
from .options import Options

Transform = Callable[[Any], Any]
Transforms = Transform | Sequence[Transform] | None
SEED, PICK = "__seed__", "__pick__"
Seeds = Callable[[str], tuple[int, int]]


class Maker:
    """Makes samples of one dataset. Nothing is decoded that no one asks for."""

    def __init__(
        self, contracts: Mapping[str, LabelContract], media: Media, transform: Transforms, options: Options,
        digest: str, fingerprints: Sequence[str],
    ) -> None:  # fmt: skip
        self._options, self._digest, self._fingerprints = options, digest, fingerprints
        self._image_fields = media.config.choice("image")
        self.transforms = transforms_of(transform)
        self._orientation: Orientation = orientation_of(contracts) if options.decode else "exif"
        self._wanted_fields = None if options.fields is None else (*options.fields, *contracts, "image")
        for each in self.transforms:
            check = getattr(each, "check", None)
            if callable(check):
                check(dict(contracts))

    def seeds(self, epoch: int, shard: str) -> Seeds:
        """Key -> `__seed__` and `__pick__`, each in [0, 2**63)."""
        pick = picks(self._options.seed, epoch, self._fingerprints)
        base = blake2b(repr((self._options.seed, epoch, self._digest, shard)).encode(), digest_size=8)

        def seed(key: str) -> tuple[int, int]:
            hashed = base.copy()
            hashed.update(key.encode("utf-8", "surrogatepass"))
            return int.from_bytes(hashed.digest(), "little") >> 1, pick(key)

        return seed

    def make(self, rows: JoinedRows, row: int, sample: Sample, seeds: Seeds) -> Any:
        """The sample, transformed; raises BadSample where its image does not open."""
        fields = sample.fields
        made: dict[str, Any] = {"__key__": sample.key, "__shard__": rows.shard, **fields}
        made.pop(BAD_KEY, None)
        encoded = next((name for name in self._image_fields if name in fields), None)
        if encoded is not None:
            data = made["image"] = fields[encoded]
            if self._options.decode:
                made["image"] = open_image(data, self._orientation, f"{rows.shard}: {sample.key}")
        labels = rows.labels(row)
        if not labels.keys().isdisjoint(made):
            self._refuse(labels, made)
        made.update(labels)
        result: Any = made
        if self.transforms:
            made[SEED], made[PICK] = seeds(sample.key)
            for transform in self.transforms:
                result = transform(result)
        if isinstance(result, dict):
            self._clear(result, encoded, fields)
        return result

    def _clear(self, made: dict[str, Any], encoded: str | None, fields: Mapping[str, Any]) -> None:
        """Takes out what a sample does not keep; its seed stays, for what mixes a batch."""
        made.pop(PICK, None)
        if self._wanted_fields is not None:
            for name in fields:
                if name not in self._wanted_fields:
                    made.pop(name, None)
        elif self._options.decode and encoded is not None and encoded != "image":
            made.pop(encoded, None)

    def _refuse(self, labels: Mapping[str, Any], made: Mapping[str, Any]) -> None:
        twice = sorted(labels.keys() & made.keys())
        raise UsageError(
            f"{twice[0]!r} names a label and a field of the source. Give the label another name: "
            f"columns={{'new_{twice[0]}': {twice[0]!r}}}."
        )


def transforms_of(transform: Transforms) -> tuple[Transform, ...]:
    """In the order in which they are applied; raises UsageError for what cannot be called."""
    found: tuple[Any, ...] = () if transform is None else (transform,)
    if isinstance(transform, list | tuple):
        found = tuple(transform)
    for each in found:
        if not callable(each):
            raise UsageError(f"a transform is called with a sample, a dict, and returns one; got {each!r}.")
    return found
