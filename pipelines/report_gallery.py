"""Report gallery: which samples a report shows: those that changed most, then those that the labels doubt most."""

import dataclasses
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from relabel.labels.caption import Caption
from relabel.labels.contract import LabelContract
from relabel.metrics.caption_match import word_f1, words_of
from relabel.releases.release import Release, decode

from .agreement import CellAgreement, Correspondence, by_common_ids, cell_agreement, correspond
from .readings import Classified, Reading, read
from .report_samples import Part, Rows, pairs
from .wording import percent

KINDS = ("label_map", "mask", "classes", "caption")
"""Of labels that have a gallery; numbers are told beside them."""
TIES = 0.01
"""What the shares of classes count beside the cells that changed."""
WEIGHED = 64
"""Rows of a shard that are candidates."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """One sample of a gallery."""

    shard: str
    key: str
    now: Reading
    before: Reading | None
    """None where the release before has no such label of it."""
    value: Any
    """The decoded label."""
    old_value: Any
    classes: Correspondence | None
    """By which the two readings' classes are compared."""
    cells: CellAgreement | None
    change: float
    """In [0, 1]: how far the two say something else."""
    doubt: float
    """Larger where the label is less sure; comparable within one label."""
    others: Sequence[tuple[str, str]]
    """What other labels say of the sample: name and text."""
    why: str = ""
    """It is shown: `most changed`, `most doubtful`."""

    @property
    def classified(self) -> tuple[Classified, Classified] | None:
        """Before and now by common ids; twice the same where there is nothing before. None without classes."""
        now, before = self.now.classified, self.before.classified if self.before else None
        if now is None or self.classes is None:
            return None if now is None else (now, now)
        count = len(self.classes.names)
        now = by_common_ids(now, self.classes.second, count)
        return now if before is None else by_common_ids(before, self.classes.first, count), now


def galleries(part: Part, count: int) -> dict[str, list[Shown]]:
    """Label -> its samples: about `count` in all, equally many of each label."""
    contracts = part.release.labels
    names = [name for name, contract in contracts.items() if contract.kind in KINDS]
    names = names or [name for name, contract in contracts.items() if contract.kind == "score"][:1]
    return {name: gallery(part, name, max(1, count // len(names))) for name in names}


def gallery(part: Part, label: str, count: int) -> list[Shown]:
    """Holds so many samples in memory, not all that are weighed."""
    changed: list[Shown] = []
    doubtful: list[Shown] = []
    for rows in part.rows:
        weighed = list(weigh(part, label, rows))
        changed = most([*changed, *(each for each in weighed if each.change > 0)], "change", count)
        doubtful = most([*doubtful, *weighed], "doubt", 2 * count)
    shown = [dataclasses.replace(each, why="most changed") for each in changed[: (count + 1) // 2]]
    held = {(each.shard, each.key) for each in shown}
    rest = [each for each in doubtful if (each.shard, each.key) not in held]
    return [*shown, *(dataclasses.replace(each, why="most doubtful") for each in rest[: count - len(shown)])]


def most(samples: Iterable[Shown], field: str, count: int) -> list[Shown]:
    return sorted(samples, key=lambda each: (-getattr(each, field), each.shard, each.key))[:count]


def weigh(part: Part, label: str, rows: Rows) -> Iterator[Shown]:
    contract, names = part.release.labels[label], part.release.version.labels[label].class_names
    before = part.before.labels.get(label) if part.before else None
    old_names = part.before.version.labels[label].class_names if part.before and before else ()
    classes = None
    if before is not None and before.kind == contract.kind and before.classes and contract.classes:
        classes = correspond(before.classes, old_names, contract.classes, names)
    for now, then in pairs(rows, WEIGHED):
        value = decode(contract, now)
        reading = read(contract, names, value)
        old_value = decode(before, then) if before is not None and then is not None else None
        old = read(before, old_names, old_value) if before is not None and then is not None else None
        shown = Shown(
            rows.shard, str(now["key"]), reading, old, value, old_value, classes, None, 0.0, doubt(reading, value),
            list(others(part.release, label, now)),
        )  # fmt: skip
        yield compared(shown) if old is not None else shown


def compared(shown: Shown) -> Shown:
    """With how far the two labels say something else."""
    assert shown.before is not None
    both = shown.classified
    if both is not None and shown.before.classified is not None and shown.classes and shown.classes.num_shared:
        cells = cell_agreement(*both)
        moved = 0.5 * float(abs(both[0].masses - both[1].masses).sum())
        return dataclasses.replace(shown, cells=cells, change=(1 - TIES) * (1 - cells.equal) + TIES * min(1.0, moved))
    if isinstance(shown.value, Caption) and isinstance(shown.old_value, Caption):
        return dataclasses.replace(shown, change=words_changed(shown.old_value, shown.value))
    return dataclasses.replace(shown, change=float(shown.before.text != shown.now.text))


def words_changed(before: Caption, now: Caption) -> float:
    """1 less the F1 of words, on the mean over the styles that both have; 0 where all texts are equal."""
    styles = [style for style in now.texts if style in before.texts]
    changes = [
        1 - word_f1(words_of(now[style].text), words_of(before[style].text))
        for style in styles
        if now[style].text != before[style].text
    ]
    return statistics.fmean([*changes, *[0.0] * (len(styles) - len(changes))]) if styles else 0.0


def doubt(reading: Reading, value: Any) -> float:
    """Of classes 1 less the mean confidence; of captions flags first, then how improbable the texts are."""
    if reading.classified is not None:
        return 1 - reading.classified.confidence
    if isinstance(value, Caption):
        flags = sum(len(text.flags) for text in value.texts.values())
        return 100.0 * flags + max(-(text.mean_logprob or 0.0) for text in value.texts.values())
    return 1.0 if reading.text.startswith("no class") else 0.0


def others(release: Release, label: str, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What labels without a gallery say."""
    for name, contract in release.labels.items():
        if name != label and contract.kind not in KINDS and contract.kind != "embedding":
            yield name, read(contract, (), decode(contract, row)).text


def told_change(shown: Shown, contract: LabelContract) -> str:
    """In a few words how far the label changed."""
    if shown.before is None:
        return "" if shown.now.classified is None else f"confidence {percent(shown.now.classified.confidence)}"
    if shown.change == 0:
        return "as before"
    if shown.cells is not None and contract.kind in ("label_map", "mask"):
        return f"{percent(1 - shown.cells.equal)} of the {'pixels' if contract.kind == 'mask' else 'cells'} changed"
    if contract.styles is not None:
        return f"{percent(shown.change)} of the words changed"
    return "another class" if contract.classes is not None else "another value"
