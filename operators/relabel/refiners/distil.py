"""Refiner `distil`: a light classifier learns what a language model said of a sample, to label the rest in its place.

TnT-LLM (arXiv 2403.12173), second half. What the classifier says of a row it says by a model that did not see the row,
so that the agreement curve (at which confidence how many rows, and how often they agree) holds for rows to come. A
student may be better than its teacher only where the teacher's errors are random; where some rows have a true class,
the result says whether they are.
"""

import base64
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import Field

from ..digests import Json
from ..labelers.class_reader import ClassIds, ClassSource
from ..labelers.registry import register
from ..labels.probabilities import softmax
from ..statistics.statistic import Rows, State, Statistic
from .fold_out import FoldModels, FoldOutParameters, FoldOutReader, logits

CURVE = tuple(step / 50 for step in range(50))
"""Confidences at which the agreement is told."""
SURPRISE = 1e-3
"""So improbable must the pattern of errors be, were they random, before it counts as systematic."""
MIN_ERRORS = 5.0
"""Of one cell that are expected, on the mean, before their pattern is judged."""


class DistilParameters(FoldOutParameters):
    """As `fold_out`, whose `given` is here what the language model said; and how sure the classifier must be."""

    given: ClassSource = ClassSource(label="pseudo_label")
    """What the language model said."""
    agreement: float = Field(default=0.95, gt=0, le=1)
    """The classifier answers alone where rows as sure as this agree so often with the model, on the mean."""
    gold: ClassSource | None = None
    """Where the true class of some rows is said, chosen at random: they tell what agreement is worth."""


@dataclasses.dataclass(frozen=True)
class Distilled(FoldModels):
    """As `FoldModels`, with a model of all rows, the curve of agreement and what gold says."""

    name, version = "distil.models", 1
    agreement: float = 0.95
    gold: ClassIds | None = None
    class_map: str = ""
    """Digest of the classes' names in order: who uses the model must mean the same ones."""
    embedding: str = ""
    """How the vectors were made (`labeler.origin_of`): who uses the model must give it such vectors."""

    def identity(self) -> Json:
        chosen = {"agreement": self.agreement, "gold": self.gold is not None}
        return {"folds": super().identity(), **chosen, "class_map": self.class_map, "embedding": self.embedding}

    def empty(self) -> State:
        return {**super().empty(), "gold": np.zeros(0, np.int32)}

    def kept(self, rows: Rows) -> dict[str, np.ndarray]:
        found = super().kept(rows)
        gold = np.full(len(found["given"]), -1) if self.gold is None else self.gold.of(rows)
        return {**found, "gold": gold.astype(np.int32)}

    def finish(self, state: State) -> dict[str, Json]:
        """`all`: the model of all rows, base64 of float32 [1, classes, features + 1]; `curve`: [confidence, share of
        rows at least as sure, how many of these agree]; `tau`: the least confidence that is enough, None where none is.
        """
        found = super().finish(state)
        given, folds, gold = (state[name].astype(np.int64) for name in ("given", "folds", "gold"))
        vectors = state["vectors"].view(self.examples.dtype).astype(np.float64)
        everything = self._trained(vectors, given)[None].astype("<f4")
        held = np.frombuffer(base64.b64decode(found["coefficients"]), "<f4").reshape(found["shape"])
        said = softmax(logits(held, vectors, folds))
        curve = agreement_curve(said, given)
        enough = [confidence for confidence, share, agreed in curve if share and agreed >= self.agreement]
        known = gold >= 0
        return {
            **found,
            "class_map": self.class_map,
            "embedding": self.embedding,
            "all": base64.b64encode(everything.tobytes()).decode(),
            "all_shape": list(everything.shape),
            "curve": [list(point) for point in curve],
            "tau": min(enough, default=None),
            "gold": against_gold(said.argmax(axis=1)[known], given[known], gold[known], self.classes),
        }


def agreement_curve(
    said: Float64[np.ndarray, "rows classes"], given: Int64[np.ndarray, " rows"]
) -> list[tuple[float, float, float]]:
    """(confidence, share of the rows that are at least as sure, share of these that agree), for every confidence."""
    sure, agree = said.max(axis=1), said.argmax(axis=1) == given
    points = []
    for confidence in CURVE:
        kept = sure >= confidence
        points.append((confidence, float(kept.mean()), float(agree[kept].mean()) if kept.any() else 0.0))
    return points


def against_gold(
    student: Int64[np.ndarray, " rows"],
    teacher: Int64[np.ndarray, " rows"],
    gold: Int64[np.ndarray, " rows"],
    classes: int,
) -> dict[str, Json] | None:
    """How often both are right, and whether the teacher's errors follow a pattern; None where no true class is known.

    Random errors are as frequent in every class and fall on every other class alike; `surprise` is the probability of
    a pattern at least as uneven, were they (a chi-square test). None: too few errors to tell.
    """
    if not len(gold):
        return None
    counts = np.zeros((classes, classes))
    np.add.at(counts, (gold, teacher), 1)
    surprise = unevenness(counts)
    return {
        "rows": len(gold),
        "teacher": float((teacher == gold).mean()),
        "student": float((student == gold).mean()),
        "surprise": surprise,
        "systematic": None if surprise is None else surprise < SURPRISE,
    }


def unevenness(counts: Float64[np.ndarray, "true said"]) -> float | None:
    """Probability of errors at least as uneven as these, were they random; None where there are too few."""
    from scipy.stats import chi2

    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    rows = counts.sum(axis=1)
    expected = np.repeat((rows * errors.sum() / max(1.0, rows.sum()) / max(1, len(rows) - 1))[:, None], len(rows), 1)
    np.fill_diagonal(expected, 0)
    cells = expected > 0
    if not cells.any() or errors.sum() / cells.sum() < MIN_ERRORS:
        return None
    value = float(((errors - expected)[cells] ** 2 / expected[cells]).sum())
    found = float(chi2.sf(value, int(cells.sum()) - 1))
    return found if math.isfinite(found) else None


@register
class Distil(FoldOutReader[DistilParameters]):
    """All classes' probabilities by the classifier, `ids` and `scores`, best first, and the row's `fold`.

    `routed_label` takes the result of its statistic as its classifier.
    """

    name, version = "distil", 1

    def sources(self) -> dict[str, ClassSource]:
        gold = self.parameters.gold
        return {"given": self.parameters.given, **({"gold": gold} if gold else {})}

    def statistic(self) -> Statistic | None:
        if self.finished:
            return None
        asked = self.parameters
        gold = self.ids_from("gold") if asked.gold else None
        classes = self.classes
        return Distilled(
            self.examples, classes.count, asked.sample, asked.strength, asked.agreement, gold, classes.digest,
            self.read_origins.get(asked.embedding, ""),
        )  # fmt: skip

    def warnings(self) -> Sequence[str]:
        """What a person should know of the result before the classifier is trusted."""
        found = self.finished[0] if self.finished else {}
        gold, lines = found.get("gold"), []
        if found and found["tau"] is None:
            lines.append(
                f"at no confidence does the classifier agree with {self.parameters.agreement:.0%} of the labels"
            )
        if gold and gold["systematic"]:
            lines.append(
                f"the labels disagree with the {gold['rows']} audited rows by a pattern (were it chance: probability "
                f"{gold['surprise']:.1e}): the classifier learns it, and its agreement with them is no accuracy"
            )
        if gold and gold["systematic"] is None:
            lines.append(f"{gold['rows']} audited rows hold too few errors to tell whether they are random")
        return lines
