"""Readings: what a label says of its image, in few words and as one class per cell, whatever kind of label it is."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from relabel.labels.caption import Caption
from relabel.labels.contract import LabelContract
from relabel.labels.label_map import LabelMap
from relabel.labels.mask import Mask

from .wording import percent, short_name

NOTHING = -1
"""In `cells`: no class."""
NUM_NAMED = 3
"""Classes of a mask or of a sample that its text names."""
SHOWN_CHARACTERS = 60


@dataclasses.dataclass(frozen=True)
class Classified:
    """A label that gives every cell or pixel of its image a class."""

    masses: Float64[np.ndarray, " classes"]
    """How much of the image each class has: mean probability over the cells, or fraction of the pixels."""
    cells: Int64[np.ndarray, "y x"]
    """The most probable class, or NOTHING."""
    strength: Float64[np.ndarray, "y x"]
    """Its probability; of a mask the mean over all pixels of the class."""
    kind: str = ""
    """The contract's, where the cells are drawn in a way of their own."""

    @property
    def best(self) -> int:
        """The class of the whole image; NOTHING where none has any of it."""
        return int(self.masses.argmax()) if self.masses.max() > 0 else NOTHING

    @property
    def confidence(self) -> float:
        """The mean probability of the most probable class; 0 where no cell has one."""
        known = self.strength[self.cells != NOTHING]
        return float(known.mean()) if known.size else 0.0

    def confidence_in(self, index: int) -> float:
        """The mean probability of one class where it is the most probable; 0 where it nowhere is."""
        found = self.strength[self.cells == index]
        return float(found.mean()) if found.size else 0.0

    def top(self, count: int) -> list[int]:
        """The classes with the largest masses, largest first; none that has nothing."""
        order = np.argsort(-self.masses, kind="stable")[:count]
        return [int(index) for index in order if self.masses[index] > 0]


@dataclasses.dataclass(frozen=True)
class Reading:
    """One label of one image."""

    text: str
    """For a table."""
    classified: Classified | None = None
    """None where the label is of another kind."""
    whole: str = ""
    """What is compared, where `text` is only its beginning."""


def read(contract: LabelContract, class_names: Sequence[str], value: Any) -> Reading:
    """The reading of one decoded label."""
    reader = READERS.get(contract.kind)
    return reader(contract, class_names, value) if reader else read_columns(contract, value)


def read_label_map(contract: LabelContract, class_names: Sequence[str], label_map: LabelMap) -> Reading:
    """The class with the largest mean probability, and that."""
    found = Classified(
        masses=label_map.probabilities().mean(axis=(0, 1), dtype=np.float64),
        cells=label_map.ids[..., 0].astype(np.int64),
        strength=label_map.top_probabilities()[0][..., 0],
    )
    return Reading(f"{name_of(class_names, found.best)} {percent(found.masses[found.best])}", found)


def read_mask(contract: LabelContract, class_names: Sequence[str], mask: Mask) -> Reading:
    """The classes with the most pixels, and their shares."""
    masses, strength = np.zeros(mask.num_classes), np.zeros(mask.ignore_index + 1)
    masses[mask.classes], strength[mask.classes] = mask.shares(), mask.confidence
    cells = np.where(mask.map == mask.ignore_index, NOTHING, mask.map.astype(np.int64))
    found = Classified(masses, cells, strength[mask.map], contract.kind)
    shares = (f"{name_of(class_names, index)} {percent(masses[index])}" for index in found.top(NUM_NAMED))
    return Reading(", ".join(shares) or "all ignored", found)


def read_classes(contract: LabelContract, class_names: Sequence[str], columns: Mapping[str, Any]) -> Reading:
    """The best classes of a sample, and its flags; where their scores are probabilities, a map of one cell."""
    ids, scores = (columns.get(f"{contract.name}_{suffix}") for suffix in ("ids", "scores"))
    if ids is None or scores is None or contract.classes is None:
        return read_columns(contract, columns)
    pairs = [pair for pair in zip(ids.tolist(), scores.tolist(), strict=True) if pair[0] != contract.ignore_index]
    if contract.score_domain == "vote_share":
        pairs = [(index, share) for index, share in pairs if share]
    flags = columns.get(f"{contract.name}_flags")
    text = ", ".join(f"{name_of(class_names, index)} {score:.2f}" for index, score in pairs[:NUM_NAMED]) or "no class"
    text += f" [{', '.join(flags)}]" if flags else ""
    if contract.score_domain != "probability":
        return Reading(text)
    masses = np.zeros(contract.classes.count)
    masses[ids.astype(np.int64)] = scores
    return Reading(text, Classified(masses, ids[:1, None].astype(np.int64), scores[:1, None].astype(np.float64)))


def read_caption(contract: LabelContract, class_names: Sequence[str], caption: Caption | Mapping[str, Any]) -> Reading:
    """Each style's text, cut short, and its flags."""
    if not isinstance(caption, Caption):
        return read_columns(contract, caption)
    texts = []
    for style, text in caption.texts.items():
        name = f"{style}: " if len(caption.texts) > 1 else ""
        flags = f" [{', '.join(text.flags)}]" if text.flags else ""
        texts.append(f"{name}{show(text.text)}{flags}")
    return Reading("; ".join(texts), whole="\n".join(text.text for text in caption.texts.values()))


def read_columns(contract: LabelContract, columns: Mapping[str, Any]) -> Reading:
    """The columns as text."""
    shown = [f"{name.removeprefix(contract.name + '_')} {show(value)}" for name, value in columns.items()]
    return Reading(", ".join(shown))


READERS: Mapping[str, Callable[[LabelContract, Sequence[str], Any], Reading]] = {
    "caption": read_caption,
    "label_map": read_label_map,
    "mask": read_mask,
    "classes": read_classes,
}
"""By the contract's kind."""


def name_of(class_names: Sequence[str], index: int) -> str:
    return short_name(class_names[index]) if class_names else f"class {index}"


def show(value: Any) -> str:
    """A cell in few characters."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"[{' x '.join(map(str, value.shape))}] mean {value.astype(np.float64).mean():.3g}"
    if isinstance(value, np.ndarray):
        return " ".join(f"{number:.3g}" for number in value.ravel().tolist())
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
