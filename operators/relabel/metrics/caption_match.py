"""Metric `caption_match`: how far captions say what a person said, by their words and by the whole.

Words are compared as SQuAD does (Rajpurkar et al., arXiv 1606.05250): F1 of the two multisets of words, and whether all
is the same, both after normalisation.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from ..labelers.labeler import Batch, Fields, Labels, Prepared
from ..labelers.registry import register
from ..labels.contract import Column, LabelContract
from .caption_metric import OLD, CaptionMetric, CaptionMetricParameters, read_text

NO_GOLD = -1.0
APOSTROPHES = frozenset("'’ʼ`´")


class CaptionMatchParameters(CaptionMetricParameters):
    """What captions are compared with, and how."""

    gold: str = Field(default="gold", min_length=1)
    """The field of the data set with the true caption, as `source.fields` names it."""
    articles: tuple[str, ...] = ("a", "an", "the")
    """Words that do not count."""


@register
class CaptionMatch(CaptionMetric[CaptionMatchParameters]):
    """Per style, and of the old caption: `f1` of its words against the true caption's, in [0, 1], and `exact`, 1 or 0.

    Both are -1 in rows without a true caption. An old caption that is not there matches nothing: 0.
    """

    name, version = "caption_match", 1

    def __init__(self, parameters: CaptionMatchParameters, label: str = "") -> None:
        super().__init__(parameters, label)
        self.wants = (*self.wants, parameters.gold)

    def writes(self) -> LabelContract:
        measured = [*self.texts.styles, *([OLD] if self.measures_old else [])]
        columns = [Column(name=f"{self.label}_{each}_{what}", dtype="<f4") for each in measured for what in MEASURES]
        rivals = [(f"{style}_{what}", f"{OLD}_{what}") for style in self.texts.styles for what in MEASURES]
        return LabelContract(
            name=self.label,
            kind="score",
            columns=tuple(columns),
            no_score=NO_GOLD,
            rivals=tuple(rivals) if self.measures_old else None,
        )

    def prepare(self, sample: Fields) -> Prepared:
        gold = np.array(read_text(sample.get(self.parameters.gold), self.parameters.gold))
        if not self.old_field:
            return {"gold": gold}
        return {"gold": gold, OLD: np.array(read_text(sample.get(self.old_field), self.old_field))}

    def __call__(self, batch: Batch) -> Labels:
        golds = [words_of(str(gold), self.parameters.articles) for gold in batch["gold"]]
        columns: dict[str, np.ndarray] = {}
        for name, texts in self.spoken(batch).items():
            said = [words_of(text, self.parameters.articles) for text in texts]
            pairs = [(words, gold) for words, gold in zip(said, golds, strict=True)]
            columns[f"{name}_f1"] = measured([(word_f1(*pair), pair[1]) for pair in pairs])
            columns[f"{name}_exact"] = measured([(float(pair[0] == pair[1]), pair[1]) for pair in pairs])
        return self.columns(**columns)


MEASURES = ("f1", "exact")


def measured(values: Sequence[tuple[float, Sequence[str]]]) -> np.ndarray:
    """Per row a value, and the words of the true caption: where it has none, there is nothing to compare with."""
    return np.array([value if gold else NO_GOLD for value, gold in values], np.float32)


def words_of(text: str, articles: Sequence[str] = ("a", "an", "the")) -> list[str]:
    """A text's words, in order: case, width and accents' spelling folded (NFKC), apostrophes dropped (`don't` is
    `dont`), whatever else is no letter, digit or mark taken for a space (`ice-cream` is two words), articles left out.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = [
        character if unicodedata.category(character)[0] in "LNM" else "" if character in APOSTROPHES else " "
        for character in folded
    ]
    return [word for word in "".join(kept).split() if word not in articles]


def word_f1(said: Sequence[str], gold: Sequence[str]) -> float:
    """Twice the words that both have, each as often as the one has it that has it less often, over all words of both.

    The harmonic mean of precision and recall; 0 where either has none.
    """
    common = (Counter(said) & Counter(gold)).total()
    return 2 * common / (len(said) + len(gold)) if common else 0.0
