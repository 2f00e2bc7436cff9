"""Probabilities: labels that say of every class how probable it is, read as one dense matrix.

Such a label is of kind `classes` with `top_k` = the number of classes: the columns `<label>_ids` [K], best first, and
`<label>_scores` [K], probabilities or log-probabilities (logits are taken, too). Other columns may stand beside them.
Whoever refines labels reads them by `Probabilities` and writes them by `distribution` and `best_first`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64, Integer

from ..digests import Json
from ..errors import BadSample, UsageError
from ..reasons import Reason
from .contract import Classes, Column, LabelContract
from .label_map import id_dtype

Dense = Float64[np.ndarray, "rows classes"]
FLOOR = 1e-12
"""Where the logarithm of a probability is taken, a smaller one counts as this."""
DOMAINS = ("probability", "log_probability", "logit")


@dataclasses.dataclass(frozen=True)
class Probabilities:
    """How the columns of a label become a matrix; raises UsageError where the label is no full distribution.

    `rest`: what becomes of the classes that a label with fewer scores than classes leaves out. `refuse`: such labels
    are refused; `even`: they share evenly what is left of 1 (not for logits, of which nothing is left).
    """

    contract: LabelContract
    rest: Literal["refuse", "even"] = "refuse"

    def __post_init__(self) -> None:
        contract, suffixes = self.contract, ("ids", "scores")
        names = [column.name for column in contract.columns]
        scored = contract.score_domain in DOMAINS and all(f"{contract.name}_{each}" in names for each in suffixes)
        if contract.kind != "classes" or contract.classes is None or contract.top_k is None or not scored:
            raise UsageError(
                f"the label {contract.name!r} was expected to give probabilities of classes (kind classes, columns "
                f"`ids` and `scores`), got kind {contract.kind}, scores in {contract.score_domain}, columns "
                f"{', '.join(names)}. Name the label of a step that writes such."
            )
        partial = contract.top_k < contract.classes.count
        if partial and (self.rest == "refuse" or contract.score_domain == "logit"):
            raise UsageError(
                f"the label {contract.name!r} has the {contract.top_k} best of {contract.classes.count} classes, and "
                f"all are needed. Set the `top_k` of the step that writes it to {contract.classes.count}."
            )

    def to_json(self) -> dict[str, Json]:
        """What is read, and how."""
        contract = self.contract
        return {
            "label": contract.name, "classes": self.classes.model_dump(), "domain": contract.score_domain,
            "top_k": contract.top_k,
        }  # fmt: skip

    @property
    def classes(self) -> Classes:
        assert self.contract.classes is not None
        return self.contract.classes

    def dense(self, rows: Mapping[str, Any]) -> Dense:
        """Probabilities by class id; as they are stored, log-probabilities and logits by their softmax.

        Raises BadSample(BAD_OUTPUT) where a row names a class twice or one that does not exist.
        """
        ids, scores = self._columns(rows)
        if self.contract.score_domain == "probability":
            return self._spread(ids, scores)
        if scores.shape[1] == self.classes.count:
            return softmax(self._spread(ids, scores))
        return self._spread(ids, np.exp(scores))

    def logs(self, rows: Mapping[str, Any]) -> Dense:
        """Their logarithms, by class id: exact where the label holds logarithms, of probabilities from FLOOR up."""
        ids, scores = self._columns(rows)
        if self.contract.score_domain == "probability" or scores.shape[1] < self.classes.count:
            return np.asarray(np.log(np.maximum(self.dense(rows), FLOOR)))
        return log_softmax(self._spread(ids, scores))

    def best(self, rows: Mapping[str, Any]) -> Int64[np.ndarray, " rows"]:
        """The most probable class, as the label says it."""
        return np.asarray(self._columns(rows)[0][:, 0])

    def _columns(self, rows: Mapping[str, Any]) -> tuple[Int64[np.ndarray, "rows k"], Float64[np.ndarray, "rows k"]]:
        name = self.contract.name
        ids = np.asarray(rows[f"{name}_ids"]).astype(np.int64)
        scores = np.asarray(rows[f"{name}_scores"]).astype(np.float64)
        ordered = np.sort(ids, axis=1)
        if ids.size and (
            ordered[:, 0].min() < 0 or ordered[:, -1].max() >= self.classes.count or (np.diff(ordered) == 0).any()
        ):
            raise BadSample(
                Reason.BAD_OUTPUT, f"{name}_ids must be different classes below {self.classes.count} in every row"
            )
        return ids, scores

    def _spread(self, ids: Int64[np.ndarray, "rows k"], scores: Float64[np.ndarray, "rows k"]) -> Dense:
        count = self.classes.count
        left = np.maximum(1 - scores.sum(axis=1), 0) / max(1, count - ids.shape[1])
        full = np.repeat(left[:, None], count, axis=1)
        np.put_along_axis(full, ids, scores, axis=1)
        return full


def distribution(label: str, classes: Classes, *more: Column) -> LabelContract:
    """The contract of a full distribution over `classes`, in probabilities, and of `more` columns beside it."""
    shape = {"shape": (classes.count,), "axes": ("k",)}
    return LabelContract(
        name=label,
        kind="classes",
        columns=(
            Column(name=f"{label}_ids", dtype=id_dtype(classes.count), **shape),
            Column(name=f"{label}_scores", dtype="<f4", **shape),
            *more,
        ),
        classes=classes,
        score_domain="probability",
        top_k=classes.count,
    )


def best_first(probabilities: Dense) -> dict[str, Integer[np.ndarray, "rows k"] | Float32[np.ndarray, "rows k"]]:
    """The values of the columns `ids` and `scores`: sorted, ties to the lower id."""
    scores = probabilities.astype(np.float32)
    ids = np.argsort(-scores, axis=1, kind="stable")
    return {"ids": ids.astype(id_dtype(scores.shape[1])), "scores": np.take_along_axis(scores, ids, axis=1)}


def softmax(logits: Dense) -> Dense:
    """Over classes."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True)) if logits.size else logits
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def log_softmax(logits: Dense) -> Dense:
    """Over classes."""
    shifted = logits - logits.max(axis=1, keepdims=True) if logits.size else logits
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def mean(parts: Sequence[Dense]) -> Dense:
    """Of several judges', each with one vote."""
    return np.asarray(sum(parts[1:], parts[0]) / len(parts))
