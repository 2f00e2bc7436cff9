"""Refiner `fold_out`: class probabilities of models that never saw the row that they judge, over embeddings.

Rows fall into folds by the hash of what they say, so that copies of one text lie together; for every fold a logistic
regression is trained on the others (Northcutt et al., arXiv 1911.00068, section 3.2), on a uniform sample of bounded
size. What `confident_learning` needs: a model that was trained on a wrong label believes it.

scikit-learn is imported where models are trained; to apply them needs none.
"""

import base64
import dataclasses
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32, Float64, Int64
from pydantic import Field, model_validator

from ..digests import Json
from ..errors import BadSample, UsageError
from ..labelers.class_reader import ClassIds, ClassReader, ClassSource
from ..labelers.labeler import Batch, Fields, Labels, Parameters, Prepared
from ..labelers.registry import register
from ..labels.class_map import ClassMap
from ..labels.contract import Classes, Column, LabelContract
from ..labels.probabilities import best_first, distribution, softmax
from ..reasons import Reason
from ..shards.shard import Value
from ..statistics.hashes import key_hashes
from ..statistics.sample import HASHES, HashSample
from ..statistics.statistic import Rows, State, Statistic

ABSENT = -30.0
"""The logit of a class that a fold's model never saw."""
MAX_CHARACTERS = 1_000_000
Coefficients = Float32[np.ndarray, "folds classes weights"]


class FoldOutParameters(Parameters):
    """What is learned from what, and by how much."""

    embedding: str = Field(default="embed_text", min_length=1)
    """The label with a vector per sample: of kind `embedding`."""
    given: ClassSource
    """Where the class is said that models learn; rows without one are judged, and not learned from."""
    classes: tuple[str, ...] | None = Field(default=None, min_length=2)
    """The names of all classes, in order; wanted where `given` is a field."""
    group: str | None = Field(default=None, min_length=1)
    """A field of the data set: rows that have the same there, but for case and spaces, lie in one fold. Default: rows
    with the same vector, as equal texts have."""
    folds: int = Field(default=5, ge=2, le=20)
    """How many models; each learns from all rows but those of its fold."""
    sample: int = Field(default=20_000, ge=10, le=1_000_000)
    """So many rows are learned from at most, chosen by the hash of the key."""
    strength: float = Field(default=1.0, gt=0)
    """scikit-learn's C: how closely models follow the labels that they learn; wrong ones, too, where it is large."""
    seed: int = 0
    """Which rows are learned from, and which fold a row lies in."""

    @model_validator(mode="after")
    def has_classes(self) -> "FoldOutParameters":
        if (self.given.field is None) != (self.classes is None):
            raise ValueError("give `classes`, the names of all, where `given` is a field, and only there")
        return self


@dataclasses.dataclass(frozen=True)
class Examples:
    """What each row brings: a vector, a fold, the class that was given."""

    vector: str
    """The column of the vectors."""
    dtype: str
    features: int
    given: ClassIds
    group: str | None
    """The field whose hash rows come with; None: it is that of the vector."""
    folds: int
    seed: int

    def to_json(self) -> dict[str, Json]:
        """What is learned from."""
        return {**dataclasses.asdict(self), "given": self.given.to_json()}

    def vectors(self, rows: Mapping[str, Any]) -> np.ndarray:
        """[rows, features], as they are stored."""
        return np.ascontiguousarray(np.asarray(rows[self.vector]).astype(self.dtype, copy=False))

    def fold_of(self, rows: Mapping[str, Any]) -> Int64[np.ndarray, " rows"]:
        if self.group is not None:
            hashes = np.asarray(rows["group"]).astype(np.uint64)
        else:
            hashes = key_hashes((vector.tobytes().hex() for vector in self.vectors(rows)), "fold_out group", self.seed)
        return np.asarray(hashes % np.uint64(self.folds)).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class FoldModels(Statistic):
    """A uniform sample of rows, and the models that are trained on it. A state holds `sample` vectors."""

    name, version = "fold_out.models", 1
    examples: Examples
    classes: int
    sample: int
    strength: float

    def identity(self) -> Json:
        chosen = {"classes": self.classes, "sample": self.sample, "strength": self.strength}
        return {**self.examples.to_json(), **chosen}

    def empty(self) -> State:
        bits = np.dtype(self.examples.dtype.replace("f", "u"))
        return {
            HASHES: np.zeros(0, np.uint64),
            "folds": np.zeros(0, np.int8),
            "given": np.zeros(0, np.int32),
            "vectors": np.zeros((0, self.examples.features), bits),
        }

    def update(self, state: State, rows: Rows) -> State:
        hashes = key_hashes(rows["key"], "fold_out sample", self.examples.seed)
        kept = self.kept(rows)
        known = kept["given"] >= 0
        return HashSample(self.sample).update(
            state, hashes[known], **{name: values[known].view(state[name].dtype) for name, values in kept.items()}
        )

    def kept(self, rows: Rows) -> dict[str, np.ndarray]:
        """What a state keeps of each row: [rows, ...] by name."""
        return {
            "folds": self.examples.fold_of(rows).astype(np.int8),
            "given": self.examples.given.of(rows).astype(np.int32),
            "vectors": self.examples.vectors(rows),
        }

    def merge(self, left: State, right: State) -> State:
        return HashSample(self.sample).merge(left, right)

    def finish(self, state: State) -> dict[str, Json]:
        """The models' weights and intercepts, as base64 of float32 [folds, classes, features + 1]; `accuracy`: how
        often they say what was given, each of the fold that it did not see.
        """
        given, folds = state["given"].astype(np.int64), state["folds"].astype(np.int64)
        vectors = state["vectors"].view(self.examples.dtype).astype(np.float64)
        models = [self._trained(vectors[folds != fold], given[folds != fold]) for fold in range(self.examples.folds)]
        coefficients = np.stack(models).astype("<f4")
        said = logits(coefficients, vectors, folds).argmax(axis=1)
        return {
            "rows": len(given),
            "accuracy": float((said == given).mean()),
            "shape": list(coefficients.shape),
            "coefficients": base64.b64encode(coefficients.tobytes()).decode(),
        }

    def _trained(
        self, vectors: Float64[np.ndarray, "rows features"], given: Int64[np.ndarray, " rows"]
    ) -> Float64[np.ndarray, "classes weights"]:
        """One model, in one thread: with more, the last bits would depend on the machine."""
        present = np.unique(given)
        if len(present) < 2:
            raise UsageError(
                f"fold_out must see at least two classes in the folds that it learns from, got {len(present)} in "
                f"{len(given)} rows. Give more rows with a class, or fewer folds."
            )
        try:
            from sklearn.exceptions import ConvergenceWarning
            from sklearn.linear_model import LogisticRegression
            from threadpoolctl import threadpool_limits
        except ImportError as error:
            raise UsageError("fold_out trains with scikit-learn. Run `pip install 'relabel-ray[audit]'`.") from error
        model = LogisticRegression(C=self.strength, solver="lbfgs", tol=1e-5, max_iter=1000)
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # after 1000 steps it is near enough
            model.fit(vectors, given)
        found = np.zeros((self.classes, vectors.shape[1] + 1))
        found[:, -1] = ABSENT
        learned = np.concatenate([model.coef_, model.intercept_[:, None]], axis=1)
        found[present] = learned if len(present) > 2 else np.concatenate([np.zeros_like(learned), learned])
        return found


P = TypeVar("P", bound=FoldOutParameters)


class FoldOutReader(ClassReader[P]):
    """What a row's fold's model says of it."""

    def __init__(self, parameters: P, label: str = "") -> None:
        super().__init__(parameters, label)
        self.wants = tuple(dict.fromkeys([*self.wants, *([parameters.group] if parameters.group else [])]))
        self._coefficients: Coefficients | None = None

    def read_labels(self) -> Sequence[str]:
        return (self.parameters.embedding,)

    def sources(self) -> dict[str, ClassSource]:
        return {"given": self.parameters.given}

    @property
    def class_label(self) -> LabelContract:
        return self.contract_of(str(self.parameters.given.label))

    @property
    def classes(self) -> Classes:
        names = self.parameters.classes
        return super().classes if names is None else ClassMap(names).declare()

    def class_names(self) -> Sequence[str]:
        return super().class_names() if self.parameters.classes is None else self.parameters.classes

    @property
    def examples(self) -> Examples:
        """Raises UsageError where the label that is read has no vectors."""
        contract, parameters = self.contract_of(self.parameters.embedding), self.parameters
        if contract.kind != "embedding":
            raise UsageError(
                f"{self.label} learns from vectors, and the label {contract.name!r} is of kind {contract.kind}. Name a "
                "label of kind embedding: the step embed_text writes one."
            )
        column = contract.column("vector")
        given, group = self.ids_from("given"), parameters.group
        return Examples(column.name, column.dtype, column.shape[0], given, group, parameters.folds, parameters.seed)

    def writes(self) -> LabelContract:
        assert self.examples
        return distribution(self.label, self.classes, Column(name=f"{self.label}_fold", dtype="|u1"))

    def prepare(self, sample: Fields) -> Prepared:
        """The key, the class where a field gives it, and the hash of the group where there is one."""
        found = dict(super().prepare(sample))
        if self.parameters.group is not None:
            group = normalised(sample.get(self.parameters.group), self.parameters.group) or str(found["key"])
            found["group"] = key_hashes([group], "fold_out group", self.parameters.seed).reshape(())
        return found

    def __call__(self, batch: Batch) -> Labels:
        if self._coefficients is None:
            result = self.finished[0]
            held = np.frombuffer(base64.b64decode(result["coefficients"]), "<f4")
            self._coefficients = held.reshape(result["shape"])
        examples = self.examples
        folds = examples.fold_of(batch)
        found = softmax(logits(self._coefficients, examples.vectors(batch).astype(np.float64), folds))
        return self.columns(**best_first(found), fold=folds)


@register
class FoldOut(FoldOutReader[FoldOutParameters]):
    """All classes' probabilities, `ids` and `scores`, best first, by the model that did not see the row's `fold`."""

    name, version = "fold_out", 1

    def statistic(self) -> Statistic | None:
        if self.finished:
            return None
        return FoldModels(self.examples, self.classes.count, self.parameters.sample, self.parameters.strength)


def logits(
    coefficients: Coefficients, vectors: Float64[np.ndarray, "rows features"], folds: Int64[np.ndarray, " rows"]
) -> Float64[np.ndarray, "rows classes"]:
    """Each row's by its fold's model. Row by row, without BLAS: the last bits depend on no other row."""
    found = np.zeros((len(vectors), coefficients.shape[1]))
    for row, (vector, fold) in enumerate(zip(vectors, folds, strict=True)):
        model = coefficients[fold]
        found[row] = (model[:, :-1] * vector).sum(axis=1) + model[:, -1]
    return found


def normalised(value: Value, field: str) -> str:
    """A text without differences of case, width and spaces; raises BadSample(BAD_METADATA)."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)
    if len(text) > MAX_CHARACTERS:
        raise BadSample(Reason.BAD_METADATA, f"{field} has {len(text)} characters, expected at most {MAX_CHARACTERS}")
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
