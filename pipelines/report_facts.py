"""Report facts: what a release says of itself, in the few words of a page."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence

import yaml

from relabel.digests import Json
from relabel.reasons import DEAD_REASONS
from relabel.releases.release import CANDIDATE, Release, Store
from relabel.releases.versions import Counts, LabelIdentity, Version

from .comparing import leaves
from .store_commands import named
from .wording import shortened

Pairs = list[tuple[str, str]]

TOLD_PARAMETERS = 24
VALUE_CHARACTERS = 160


@dataclasses.dataclass(frozen=True)
class Standing:
    """Whether people should use the release."""

    word: str
    tone: str
    """good | warn | bad."""
    text: str


def standing(store: Store, release: Release, candidate: bool) -> list[Standing]:
    """The most important first."""
    version, found = release.version, []
    if candidate:
        found.append(Standing("not published", "bad", "A candidate: it was refused, or waits. `latest` is another."))
    if (recall := store.recalls().get(version.version)) is not None and not candidate:
        found.append(Standing("recalled", "bad", recall))
    verdict = version.gate["verdict"] if version.gate else None
    if verdict == "passed":
        found.append(Standing("gate passed", "good", ""))
    elif verdict is not None:
        why = version.gate["forced"] or ""
        found.append(Standing(f"gate {verdict}", "warn" if verdict == "forced" else "bad", why))
    else:
        found.append(
            Standing("no gate", "warn", "The recipe has no gate: nothing was checked before it was published.")
        )
    if version.partial:
        found.append(Standing("partial", "warn", f"It covers {version.coverage:.1%} of the source's shards."))
    if release.counts != version.counts:
        found.append(
            Standing("withdrawn", "warn", "Samples were withdrawn since it was published; they are not shown.")
        )
    return found


def name_of_store(url: str) -> str:
    """The last two names of its path."""
    return "/".join(url.rstrip("/").split("/")[-2:])


def facts(store: Store, release: Release, candidate: bool) -> Pairs:
    version, owners = release.version, release.version.to_json().get("meta") or {}
    tags = named(store.tags(), version.version) if not candidate else []
    return [
        ("Store", store.url),
        ("Source", str((version.source or {}).get("root", "unknown"))),
        ("Written", f"{version.created} by run {version.run_id}"),
        ("On top of", f"release {version.parent}" if version.parent else "nothing: the first release"),
        *([("Owner", ", ".join(f"{name} {value}" for name, value in owners.items() if value))] if owners else []),
        *([("Tags", ", ".join(tags))] if tags else []),
    ]


def tiles(counts: Counts, before: Counts | None) -> list[tuple[str, str, str]]:
    """Name, value, and how it was."""
    values = {
        "samples": counts.samples, "labelled": counts.ok, "dead": counts.dead, "filtered": counts.filtered,
        "shards": counts.shards, "unreadable shards": counts.dead_shards,
    }  # fmt: skip
    old: dict[str, int] = {}
    if before is not None:
        old = dict(
            zip(
                values,
                (before.samples, before.ok, before.dead, before.filtered, before.shards, before.dead_shards),
                strict=True,
            )
        )
    return [(name, f"{value:,}", moved(value, old.get(name))) for name, value in values.items()]


def moved(value: int, before: int | None) -> str:
    if before is None:
        return ""
    return "as before" if value == before else f"{value - before:+,}"


def reasons(counts: Counts, before: Counts | None) -> list[tuple[str, bool, int, str]]:
    """Reason, whether it is of dead letters, how many, and how that moved; the most frequent first."""
    old = before.reasons if before is not None else {}
    ordered = sorted(counts.reasons.items(), key=lambda each: (each[0] not in DEAD_REASONS, -each[1], each[0]))
    return [
        (reason, reason in DEAD_REASONS, number, moved(number, old.get(reason, 0) if before is not None else None))
        for reason, number in ordered
    ]


@dataclasses.dataclass(frozen=True)
class Labelled:
    """By what a label was made."""

    name: str
    kind: str
    operator: str
    fingerprint: str
    parameters: Pairs
    columns: Sequence[str]
    same: bool | None
    """Whether it means what it meant in the release before; None where there is none."""


def labels(version: Version, before: Version | None) -> list[Labelled]:
    steps = {step["label"]: step.get("parameters", {}) for step in (version.recipe or {}).get("steps", [])}
    return [labelled(name, label, steps.get(name, {}), before) for name, label in version.labels.items()]


def labelled(name: str, label: LabelIdentity, written: Mapping[str, Json], before: Version | None) -> Labelled:
    """`written`: as the recipe has it; what the label's identity knows beside that comes after it."""
    identity = dict(label.identity) if isinstance(label.identity, Mapping) else {}
    known = {**leaves(identity.pop("parameters", None) or {}), **leaves(written), **leaves(identity)}
    chosen = sorted(known.items(), key=lambda each: each[0] not in leaves(written))
    shown = [(key, value) for key, value in chosen if value not in (None, "", [], {})]
    old = before.labels.get(name) if before else None
    return Labelled(
        name, label.contract.kind, f"{label.operator}, version {label.version}", label.fingerprint,
        [(key, shortened(str(value), VALUE_CHARACTERS)) for key, value in shown[:TOLD_PARAMETERS]],
        [told_column(column.name, column.dtype, column.axes, column.shape) for column in label.contract.columns],
        None if before is None else old is not None and old.fingerprint == label.fingerprint,
    )  # fmt: skip


def told_column(name: str, dtype: str, axes: Sequence[str], shape: Sequence[int]) -> str:
    sides = ", ".join(f"{axis}={length}" for axis, length in zip(axes, shape, strict=True))
    return f"{name}: {dtype}" + (f" [{sides}]" if sides else "")


def checks(verdict: Json) -> list[dict[str, Json]]:
    """A recorded verdict's checks: what was refused first, then what was told only, then the others."""
    return sorted(verdict["checks"], key=lambda check: (check["ok"], check["judged"], check["name"], check["of"]))


def provenance(version: Version) -> Pairs:
    tool = ", ".join(f"{name} {value}" for name, value in sorted(leaves(version.tool or {}).items()))
    return [
        ("Content digest", version.content_digest),
        ("Run", version.run_id),
        ("Commit", version.commit_id),
        *((f"Fingerprint of {name}", print_) for name, print_ in version.fingerprints.items()),
        *([("Reverts", f"release {dict(version.reverts)[version.version]}")] if made_by_revert(version) else []),
        ("Manifest of the source", str((version.source or {}).get("manifest", "unknown"))),
        *((f"Card {kind}", card.path) for kind, card in version.cards.items()),
        ("Written with", tool),
    ]


def made_by_revert(version: Version) -> bool:
    return version.version in dict(version.reverts)


def numerics(version: Version) -> list[tuple[str, str]]:
    """Digest -> how labels were computed, and in how many shards."""
    return [
        (name[:16], ", ".join(f"{key} {value}" for key, value in leaves(each).items()))
        for name, each in version.numerics.items()
    ]


def recipe_text(version: Version) -> str:
    return yaml.safe_dump(version.recipe, sort_keys=False, allow_unicode=True) if version.recipe else ""


def next_commands(store: Store, release: Release, candidate: bool) -> Pairs:
    """What to type next, and why."""
    version, url = release.version, shlex.quote(store.url)
    selector = f"{CANDIDATE}{version.run_id}" if candidate else str(version.version)
    found = []
    if version.parent:
        found.append((f"relabel diff {url} {version.parent} {selector}", "every change, with examples"))
    if version.counts.dead or version.counts.dead_shards:
        found.append((f"relabel dead {url} --release {selector}", "every dead letter"))
        found.append((f"relabel replay RECIPE --release {selector}", "label them again, once the cause is mended"))
    if candidate:
        found.append(('relabel publish RECIPE --force --reason "..."', "publish it all the same"))
    elif version.parent:
        found.append((f"relabel revert {url} {version.parent}", "go back to the release before"))
    found.append((f"relabel verify {url} --release {selector} --level full", "is every byte what was written?"))
    return found
