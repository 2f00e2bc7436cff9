"""Profiles: how the labels of some shards are spread: classes, scores, lengths of texts, flags.

A gate compares them between releases. They are made of a few label shards, chosen by a hash of their names, and kept
per shard, so that it is known how far shards of one release differ among themselves.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..digests import sha256
from ..labels import label_map, mask
from ..labels.contract import LabelContract
from ..labels.distribution import Distribution, distribution, merged
from ..labels.shard_file import dense
from ..labels.summary import count_flags, is_flag, is_number, spread
from ..reasons import Status

NO_CLASS = -1
"""What stands for pixels and samples without a class."""
EMPTY = "empty"
"""Of a text: none, or without a word."""
MISSING = "missing"
"""Of a number: none, not finite, or the one that says that there is none."""
PASSED_OVER = ("height", "width")
"""Numbers that say nothing of the label's quality."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """One label, over the labelled samples of some shards."""

    samples: int
    classes: Mapping[int, float]
    """Class -> share of its samples (of their cells, of their pixels), summed over samples: totals `samples`."""
    numbers: Mapping[str, Distribution]
    """Score columns by name; `<text column>: words`, the lengths of texts."""
    flags: Mapping[str, int]
    """`<column>: <flag>` -> samples that have it."""

    def share(self, flag: str) -> float:
        """Of the samples that have a flag."""
        return self.flags.get(flag, 0) / self.samples if self.samples else 0.0


def chosen(names: Iterable[str], most: int) -> list[str]:
    """At most so many of these shards, by a hash of their names: the same ones every time."""
    return sorted(names, key=lambda name: sha256(name.encode()))[:most]


def profile(contract: LabelContract, table: pa.Table) -> Profile:
    """Of one label shard."""
    table = table.filter(pc.equal(table["status"], Status.OK.value)).combine_chunks()
    numbers: dict[str, Distribution | None] = {}
    flags: Counter[str] = Counter()
    for column in contract.columns:
        suffix = column.name.removeprefix(f"{contract.name}_")
        if is_flag(column):
            counts = count_flags(table[column.name]).counts
            flags.update({f"{column.name}: {flag}": count for flag, count in counts.items()})
        elif column.dtype == "string" and suffix.endswith("text"):
            words = [len(text.split()) for text in table[column.name].to_pylist() if text is not None]
            flags[f"{column.name}: {EMPTY}"] = len(table) - sum(map(bool, words))
            numbers[f"{column.name}: words"] = distribution(np.array(words, np.float64), whole=True)
        elif is_number(column) and suffix not in PASSED_OVER:
            found = numbers[column.name] = spread(contract, column, table)
            if lacking := len(table) - (found.count if found else 0):
                flags[f"{column.name}: {MISSING}"] = lacking
    classes, confidence = class_shares(contract, table)
    numbers[f"{contract.name}: confidence"] = confidence
    known = {name: each for name, each in numbers.items() if each is not None}
    return Profile(table.num_rows, classes, known, dict(flags))


def class_shares(contract: LabelContract, table: pa.Table) -> tuple[dict[int, float], Distribution | None]:
    """Class -> share summed over samples; and how sure the label is, cell by cell, where it says so."""
    if contract.classes is None or not table.num_rows:
        return {}, None
    if contract.kind == "label_map":
        maps = label_map.decode_column(contract, table)
        scores, residual = maps.scores.astype(np.float64), maps.residual.astype(np.float64)
        highest = np.maximum(scores[..., 0], residual)
        total = np.exp(scores - highest[..., None]).sum(axis=-1) + np.exp(residual - highest)
        sure = np.exp(scores[..., 0] - highest) / total
        cells = math.prod(maps.ids.shape[1:3])
        return counted(maps.ids[..., 0].ravel(), 1 / cells), distribution(sure.ravel())
    if contract.kind == "mask":
        shares: Counter[int] = Counter()
        for each in mask.decode_column(contract, table):
            assert each is not None
            ids = np.where(each.map == each.ignore_index, NO_CLASS, each.map.astype(np.int64))
            for index, share in counted(ids.ravel(), 1 / ids.size).items():
                shares[index] += share  # type: ignore[assignment]
        return dict(shares), None
    if contract.kind == "classes":
        best = dense(table, contract.column("ids"))[:, 0].astype(np.int64)
        best = np.where(best >= contract.classes.count, NO_CLASS, best)
        scores = dense(table, contract.column("scores"))[:, 0].astype(np.float64)
        return counted(best, 1.0), distribution(scores)
    return {}, None


def counted(ids: np.ndarray, weight: float) -> dict[int, float]:
    values, counts = np.unique(ids, return_counts=True)
    return {int(index): count * weight for index, count in zip(values.tolist(), counts.tolist(), strict=True)}


def added(profiles: Sequence[Profile]) -> Profile:
    """All of their samples together."""
    classes: Counter[int] = Counter()
    flags: Counter[str] = Counter()
    numbers: dict[str, list[Distribution]] = {}
    for each in profiles:
        for index, share in each.classes.items():
            classes[index] += share  # type: ignore[assignment]
        flags.update(each.flags)
        for name, found in each.numbers.items():
            numbers.setdefault(name, []).append(found)
    return Profile(
        sum(each.samples for each in profiles), dict(classes), {name: merged(each) for name, each in numbers.items()},
        dict(flags),
    )  # fmt: skip


def distance(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Jensen-Shannon distance of two class histograms, base 2: 0 for equal shares, 1 where no class is in both."""
    ids = sorted(one.keys() | other.keys())
    first, second = (np.array([each.get(index, 0.0) for index in ids]) for each in (one, other))
    if not first.sum() or not second.sum():
        return 0.0 if not first.sum() and not second.sum() else 1.0
    first, second = first / first.sum(), second / second.sum()
    middle = (first + second) / 2
    divergence = sum(
        float((each[each > 0] * np.log2(each[each > 0] / middle[each > 0])).sum()) / 2 for each in (first, second)
    )
    return math.sqrt(max(0.0, divergence))


def noise(one: Profile, other: Profile) -> float:
    """How far two histograms of the same classes lie apart by chance, on the mean, for so many samples."""
    if not one.samples or not other.samples:
        return 1.0
    classes = len(one.classes.keys() | other.classes.keys())
    return math.sqrt(max(0, classes - 1) / (8 * math.log(2)) * (1 / one.samples + 1 / other.samples))
