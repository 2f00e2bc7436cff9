"""Gate gold: how far a release agrees with labels that are known to be right, sample by sample."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from relabel.digests import Json
from relabel.errors import StoreCorrupt, UsageError
from relabel.labels.caption import Caption
from relabel.metrics.caption_match import word_f1, words_of
from relabel.reasons import Status
from relabel.releases.profile import chosen
from relabel.releases.release import Release, Store, decode
from relabel.releases.versions import LabelIdentity
from relabel.storage.opening import open_store

from .agreement import Correspondence, by_common_ids, cell_agreement, correspond
from .gate_checks import NUM_EXAMPLES, Check
from .gate_policy import Gate, Gold
from .readings import Classified, read

FEWEST = 10
"""Samples that both have, below which nothing is said."""
CERTAIN = 3.0
"""Standard errors."""
MASSES = ("label_map", "mask", "classes")


@dataclasses.dataclass(frozen=True)
class Score:
    """How well one sample agrees."""

    shard: str
    key: str
    value: float
    """In [0, 1]."""
    transposed: float | None = None
    """The same with rows and columns of the label exchanged; None where it has none."""


@dataclasses.dataclass(frozen=True)
class GoldLabel:
    """The label of the gold release, and what must agree with it."""

    release: Release
    label: LabelIdentity
    name: str
    against: str


def open_gold(gold: Gold, candidate: Release) -> GoldLabel:
    """Raises UsageError where it is not clear which labels are meant, or they cannot be compared."""
    release = Store(open_store(gold.store, gold.storage_options)).release(gold.release, recalled="error")
    labels = release.version.labels
    name = gold.label or one_of(labels, f"gate.gold.label: the release {release.number} of {gold.store}")
    if name not in labels:
        raise UsageError(f"gate.gold.label: there is no label {name!r}; there are: {', '.join(labels)}.")
    fitting = {each: label for each, label in candidate.version.labels.items() if comparable(label, labels[name])}
    against = gold.against or one_of(fitting, "gate.gold.against: the recipe")
    if against not in fitting:
        raise UsageError(
            f"gate.gold: the label {against!r} cannot be compared with the gold {labels[name].contract.kind}; those "
            f"that can: {', '.join(fitting) or 'none'}."
        )
    return GoldLabel(release, labels[name], name, against)


def one_of(labels: Mapping[str, Any], where: str) -> str:
    if len(labels) != 1:
        raise UsageError(f"{where} has {len(labels)} labels that could be meant ({', '.join(labels)}): name one.")
    return next(iter(labels))


def comparable(label: LabelIdentity, gold: LabelIdentity) -> bool:
    kinds = label.contract.kind, gold.contract.kind
    return kinds == ("caption", "caption") or (kinds[0] in MASSES and kinds[1] in MASSES)


def of_gold(candidate: Release, parent: Release | None, gate: Gate) -> Iterator[Check]:
    """Nothing where the recipe names no gold."""
    if gate.gold is None:
        return
    gold = open_gold(gate.gold, candidate)
    scores = list(agreement(candidate, gold, gate.sample_shards))
    name = gold.against
    if len(scores) < FEWEST:
        yield Check(
            "gold", name, False,
            f"only {len(scores)} labelled samples are in the gold release {gold.release.number} too, by shard, key and "
            f"digest; {FEWEST} are needed. Label the gold samples of this source, with its shard names.",
            len(scores), FEWEST,
        )  # fmt: skip
        return
    values = np.array([score.value for score in scores])
    mean, error = float(values.mean()), float(values.std() / len(values) ** 0.5)
    limits, texts = [], []
    if gate.gold.least is not None:
        limits.append(gate.gold.least - CERTAIN * error)
        texts.append(f"at least {gate.gold.least:.3f} is asked for")
    if parent is not None and gold.against in parent.version.labels:
        old = {(score.shard, score.key): score.value for score in readable(parent, gold, gate.sample_shards)}
        pairs = [(score.value, old[score.shard, score.key]) for score in scores if (score.shard, score.key) in old]
        if len(pairs) >= FEWEST:
            differences = np.array([now - before for now, before in pairs])
            before = mean - float(differences.mean())
            limits.append(before - gate.gold.drop - CERTAIN * float(differences.std() / len(pairs) ** 0.5))
            texts.append(f"the last release had {before:.3f} on the same samples")
    limit = max(limits, default=None)
    worst = sorted(scores, key=lambda score: (score.value, score.key))[:NUM_EXAMPLES]
    examples: list[Json] = [{"shard": each.shard, "key": each.key, "agreement": round(each.value, 4)} for each in worst]
    yield Check(
        "gold", name, limit is None or mean >= limit,
        f"agreement {mean:.3f} with the gold labels of {len(scores)} samples; "
        f"{', '.join(texts) or 'there is nothing to compare it with yet (gate.gold.least)'}.",
        mean, limit, examples, judged=limit is not None,
    )  # fmt: skip
    yield from orientation(name, scores)


def orientation(name: str, scores: Sequence[Score]) -> Iterator[Check]:
    """Whether the maps agree better once rows and columns are exchanged."""
    pairs = [(score.value, score.transposed) for score in scores if score.transposed is not None]
    if len(pairs) < FEWEST:
        return
    gains = np.array([transposed - value for value, transposed in pairs])
    gain, error = float(gains.mean()), float(gains.std() / len(gains) ** 0.5)
    limit = CERTAIN * error + 0.02
    yield Check(
        "orientation", name, gain <= limit,
        f"with rows and columns exchanged the maps agree {gain:+.3f} better with gold; they are "
        f"{'transposed' if gain > limit else 'not transposed'}.", gain, limit,
    )  # fmt: skip


def agreement(release: Release, gold: GoldLabel, most: int) -> Iterator[Score]:
    """Of the samples that both have labelled, in at most so many shards. Raises StoreCorrupt where one is damaged."""
    for shard in common(release, gold, most):
        yield from agreement_in(shard, release, gold)


def readable(release: Release, gold: GoldLabel, most: int) -> Iterator[Score]:
    """The same, passing over what is damaged of the last release: the candidate may be what makes it good."""
    for shard in common(release, gold, most):
        with contextlib.suppress(StoreCorrupt):
            yield from [*agreement_in(shard, release, gold)]


def common(release: Release, gold: GoldLabel, most: int) -> list[str]:
    shards = [name for name, entry in gold.release.entries.items() if entry.data is not None]
    both = [name for name in shards if (entry := release.entries.get(name)) is not None and entry.data is not None]
    return chosen(both, most)


def agreement_in(shard: str, release: Release, gold: GoldLabel) -> Iterator[Score]:
    label = release.version.labels[gold.against]
    classes = correspondence(label, gold.label)
    right = {row["key"]: row for row in rows_of(gold.release, shard, gold.label)}
    for row in rows_of(release, shard, label):
        other = right.get(row["key"])
        if other is None or other["sample_digest"] != row["sample_digest"]:
            continue
        values = decode(label.contract, row), decode(gold.label.contract, other)
        found = compared(label, values[0], gold.label, values[1], classes)
        if found is not None:
            yield Score(shard, row["key"], *found)


def rows_of(release: Release, shard: str, label: LabelIdentity) -> Iterator[dict[str, Any]]:
    names = ["key", "sample_digest", "status", *(column.name for column in label.contract.columns)]
    for batch in release.table(shard, names).to_batches(max_chunksize=256):
        yield from (row for row in batch.to_pylist() if row["status"] == Status.OK)


def correspondence(label: LabelIdentity, gold: LabelIdentity) -> Correspondence | None:
    if label.contract.classes is None or gold.contract.classes is None:
        return None
    return correspond(label.contract.classes, label.class_names, gold.contract.classes, gold.class_names)


def compared(
    label: LabelIdentity, value: Any, gold: LabelIdentity, right: Any, classes: Correspondence | None
) -> tuple[float, float | None] | None:
    """Agreement, and that of the transposed label; None where gold says nothing of the sample."""
    if classes is None:
        return (caption_agreement(value, right), None)
    said, known = read(label.contract, label.class_names, value), read(gold.contract, gold.class_names, right)
    if said.classified is None or known.classified is None:
        return None
    count = len(classes.names)
    first = by_common_ids(said.classified, classes.first, count)
    second = by_common_ids(known.classified, classes.second, count)
    if second.cells.size == 1:
        return (float(first.best == second.cells.item()), None)
    if first.cells.size == 1:
        return (float(first.best == second.best), None)
    found = cell_agreement(first, second)
    turned = cell_agreement(transposed(first), second)
    return (found.equal, turned.equal) if found.compared else None


def transposed(found: Classified) -> Classified:
    return dataclasses.replace(found, cells=found.cells.T, strength=found.strength.T)


def caption_agreement(value: Caption, right: Caption) -> float:
    """The best word F1 of any style with any gold text."""
    texts, golds = ([words_of(text.text) for text in each.texts.values()] for each in (value, right))
    return max((word_f1(said, known) for said in texts for known in golds), default=0.0)
