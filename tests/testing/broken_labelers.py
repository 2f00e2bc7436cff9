"""Broken labelers: one that keeps every rule, and for every rule one that breaks it and nothing else."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import ConfigDict

from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, classes, scores
from relabel.digests import Json
from relabel.errors import BadSample
from relabel.reasons import Reason

SIDE = 16


class GoodParameters(Parameters):
    scale: float = 2.0
    """Factor of the mean."""


class Good(Labeler[GoodParameters]):
    """Mean and largest of the first bytes of a text."""

    name = "good"
    version = 1
    needs = ("text",)

    def inspect(self) -> dict[str, Json]:
        return {"limits": [0, 255]}

    def writes(self) -> LabelContract:
        return scores(self.label, "mean", "highest")

    def prepare(self, sample: Fields) -> Prepared:
        text = sample["text"]
        if not isinstance(text, bytes) or len(text) < SIDE:
            raise BadSample(Reason.BAD_METADATA, f"expected at least {SIDE} bytes, got {text!r}")
        return {"values": np.frombuffer(text[:SIDE], np.uint8)}

    def __call__(self, batch: Batch) -> Labels:
        values = np.asarray(batch["values"], np.float64)
        return self.columns(mean=values.mean(axis=1) * self.parameters.scale, highest=values.max(axis=1))


class GoodVarying(Good):
    """The whole text, however long: batches are lists."""

    def prepare(self, sample: Fields) -> Prepared:
        super().prepare(sample)
        return {"values": np.frombuffer(bytes(sample["text"]), np.uint8)}  # type: ignore[arg-type]

    def __call__(self, batch: Batch) -> Labels:
        return self.columns(
            mean=[row.mean() for row in batch["values"]], highest=[row.max() for row in batch["values"]]
        )


class GoodClasses(Good):
    """Two classes, the more probable first."""

    def class_names(self) -> Sequence[str]:
        return ("low", "high")

    def writes(self) -> LabelContract:
        return classes(self.label, self.class_names(), top_k=2)

    def __call__(self, batch: Batch) -> Labels:
        high = np.asarray(batch["values"]).mean(axis=1) / 255
        pairs = np.stack([1 - high, high], axis=1)
        order = np.argsort(-pairs, axis=1, kind="stable")
        return self.columns(ids=order, scores=np.take_along_axis(pairs, order, axis=1))


class NoVersion(Good):
    version = 0


class ThawedParameters(GoodParameters):
    model_config = ConfigDict(frozen=False)


class Thawed(Good):
    Parameters = ThawedParameters


class ObjectParameters(GoodParameters):
    how: Any = complex(1, 2)


class NotJson(Good):
    Parameters = ObjectParameters


class TupleFacts(Good):
    def inspect(self) -> dict[str, Json]:
        return {"limits": (0, 255)}


class RandomFacts(Good):
    def inspect(self) -> dict[str, Json]:
        return {"seed": random.random()}


class NeedsWeightsToWrite(Good):
    def load(self, device: str) -> None:
        self.suffixes = ("mean", "highest")

    def writes(self) -> LabelContract:
        return scores(self.label, *self.suffixes)


class OwnName(Good):
    def writes(self) -> LabelContract:
        return scores(self.name, "mean", "highest")


class LabelInIdentity(Good):
    def identity(self) -> dict[str, Json]:
        return {"label": self.label}


class OtherClassNames(GoodClasses):
    def class_names(self) -> Sequence[str]:
        return ("low", "high") if not self.facts else ("high", "low")

    def writes(self) -> LabelContract:
        return classes(self.label, ("low", "high"), top_k=2)


class HoldsFunction(Good):
    def __init__(self, parameters: GoodParameters, label: str = "") -> None:
        super().__init__(parameters, label)
        self.function: Callable[[int], int] = lambda value: value


class SetOrder(Good):
    def identity(self) -> dict[str, Json]:
        return {"words": list({"one", "two", "three", "four", "five", "six"})}


class ReadsMore(Good):
    def prepare(self, sample: Fields) -> Prepared:
        return {**super().prepare(sample), "width": np.array(sample["width"])}


class RandomPrepare(Good):
    def prepare(self, sample: Fields) -> Prepared:
        return {"values": super().prepare(sample)["values"] ^ np.uint8(random.randrange(256))}


class PreparesLists(Good):
    def prepare(self, sample: Fields) -> Prepared:
        prepared: Any = {"values": list(super().prepare(sample)["values"])}
        return prepared


class OddNames(Good):
    def prepare(self, sample: Fields) -> Prepared:
        values = super().prepare(sample)["values"]
        return {"values" if values[0] % 2 else "numbers": values}


class WrongDtype(Good):
    def __call__(self, batch: Batch) -> Labels:
        return {name: np.asarray(values, np.float64) for name, values in super().__call__(batch).items()}


class LostRow(Good):
    def __call__(self, batch: Batch) -> Labels:
        return {name: values[1:] for name, values in super().__call__(batch).items()}


class LostColumn(Good):
    def __call__(self, batch: Batch) -> Labels:
        return self.columns(mean=np.asarray(batch["values"]).mean(axis=1))


class NotFinite(Good):
    def __call__(self, batch: Batch) -> Labels:
        return {name: np.full_like(np.asarray(values), np.nan) for name, values in super().__call__(batch).items()}


class WritesToBatch(Good):
    def __call__(self, batch: Batch) -> Labels:
        values: Any = batch["values"]
        values //= 2
        return super().__call__(batch)


class CallsGoodBad(Good):
    def __call__(self, batch: Batch) -> Labels:
        raise BadSample(Reason.OPERATOR_ERROR, "none is good enough")


class RandomLabels(Good):
    def __call__(self, batch: Batch) -> Labels:
        noise = random.random()
        return {name: np.asarray(values) + np.float32(noise) for name, values in super().__call__(batch).items()}


class CountsCalls(Good):
    calls = 0

    def __call__(self, batch: Batch) -> Labels:
        self.calls += 1
        return {name: np.asarray(values) + np.float32(self.calls) for name, values in super().__call__(batch).items()}


class NewContractOnLoad(Good):
    highest = "highest"

    def load(self, device: str) -> None:
        self.highest = "largest"

    def writes(self) -> LabelContract:
        return scores(self.label, "mean", self.highest)

    def __call__(self, batch: Batch) -> Labels:
        values = np.asarray(batch["values"], np.float64)
        return self.columns(mean=values.mean(axis=1), largest=values.max(axis=1))


class NoNumbers(Good):
    def numerics(self) -> dict[str, Json]:
        return {"dtype": np.float32}


class LooksAtNeighbours(Good):
    def __call__(self, batch: Batch) -> Labels:
        values = np.asarray(batch["values"], np.float64)
        return super().__call__({"values": values - values.mean()})


class Sorts(Good):
    def __call__(self, batch: Batch) -> Labels:
        order = np.argsort(np.asarray(batch["values"]).mean(axis=1))
        return {name: np.asarray(values)[order] for name, values in super().__call__(batch).items()}


class KnowsItsBatch(Good):
    def __call__(self, batch: Batch) -> Labels:
        factor = np.float32(self.compute_batch)
        return {name: np.asarray(values) * factor for name, values in super().__call__(batch).items()}


class RaisesAnything(Good):
    def prepare(self, sample: Fields) -> Prepared:
        text = sample["text"]
        assert isinstance(text, bytes)
        return {"values": np.frombuffer(text[:SIDE], np.uint8).reshape(SIDE)}


class PreparesOneArray(Good):
    def prepare(self, sample: Fields) -> Prepared:
        return super().prepare(sample)["values"]  # type: ignore[return-value]


class WritesNothing(Good):
    def writes(self) -> LabelContract:
        return None  # type: ignore[return-value]


class OwnReason(Good):
    def prepare(self, sample: Fields) -> Prepared:
        try:
            return super().prepare(sample)
        except BadSample as error:
            raise BadSample("too_short", error.detail) from error


BROKEN: dict[type[Good], str] = {
    NoVersion: "version must be a whole number from 1, got 0",
    Thawed: "parameters must be frozen, and 'scale' can be set",
    NotJson: "parameters must come back from JSON as they were",
    TupleFacts: "facts are kept as JSON",
    RandomFacts: "must find the same facts every time",
    NeedsWeightsToWrite: "from parameters and facts alone, before load",
    OwnName: "Use self.label and not self.name",
    LabelInIdentity: "identity() must not depend on the label's name",
    OtherClassNames: "class_names() must be the classes that the contract declares",
    HoldsFunction: "travels to actors by pickle before load()",
    SetOrder: "fingerprint differs from process to process",
    ReadsMore: "prepare() gets the fields in `needs` (text)",
    RandomPrepare: "prepare() must give the same arrays for the same sample",
    WritesNothing: "writes() must return a LabelContract",
    PreparesOneArray: "prepare() must give arrays by name such as {'image': pixels}, got ndarray",
    PreparesLists: "prepare() must give numpy arrays",
    OddNames: "arrays of the same names for every sample",
    WrongDtype: "must be <f4 [4] by its contract, got <f8 [4]",
    LostRow: "must be <f4 [4] by its contract, got <f4 [3]",
    LostColumn: "has the columns mean, highest; columns() got mean",
    NotFinite: "good_mean is not finite",
    WritesToBatch: "which it may not write to",
    CallsGoodBad: "these were taken for bad",
    RandomLabels: "the same labels on every call, bit for bit",
    CountsCalls: "the same labels on every call, bit for bit",
    NewContractOnLoad: "load() must not change the contract",
    NoNumbers: "numerics() must be JSON",
    LooksAtNeighbours: "must not depend on its neighbours",
    Sorts: "the right labels came in another order",
    KnowsItsBatch: "must not depend on compute_batch",
    RaisesAnything: "must raise BadSample(reason, detail)",
    OwnReason: "unknown reason 'too_short'",
}
"""Every broken labeler, and what its author is told."""
