"""Versions: the numbered, immutable files that each make a release what it is.

Version n is `versions/v%010d.json`, created once; its existence is the publication. Numbers have no gaps, a fence takes
one too, and each file names the digest of the bytes of the one before it.
"""

import functools
import platform
import re
from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field, ValidationError

from ..about import DISTRIBUTION, __version__, installed_version
from ..digests import Json, digest, seal, sha256, unseal
from ..errors import ObjectMissing, Refused, StoreCorrupt, UnknownName, UsageError
from ..labels.contract import Declaration, LabelContract
from ..storage.objects import ObjectStore, settle
from .fences import Fence
from .segments import Entry, SegmentRef
from .stored import Stored, in_threads

FORMAT = 4
"""Of everything below a store's root; a reader refuses what is newer. 1 knew neither fences nor leases, 2 no summaries,
3 no cards."""
PLAIN_FORMAT = 2
"""Of what has not changed since: markers, notices, fences."""
MARKER = "store.json"
NAME = re.compile(r"versions/v(\d{10})\.json")
KEY_PACKAGES = ("numpy", "pyarrow", "pydantic", "fsspec", "s3fs")


class LabelIdentity(Declaration):
    """One label of a release: what it is and who made it."""

    operator: str
    version: int
    """Of the operator."""
    fingerprint: str
    identity: Json
    """All that was chosen and can change the label."""
    contract: LabelContract
    class_names: tuple[str, ...] = ()
    """In the order of ids; not part of the identity, which holds their digest."""


class Counts(Declaration):
    """rows: samples = ok + dead + filtered, over the shards that are not dead."""

    shards: int
    dead_shards: int
    samples: int
    ok: int
    dead: int
    filtered: int
    reasons: dict[str, int]
    """Reason code -> rows, and dead shards under theirs."""


class Version(Declaration):
    """One release's own file."""

    format: int
    version: int
    parent: int
    """The release before it, 0 where there is none."""
    parent_sha256: str
    """Of the bytes of the file before it in the sequence, a release or a fence; "" where there is none."""
    fences: tuple[int, ...] = ()
    """The numbers before this one that are fences, not releases."""
    lease: int | None = None
    """Under which it was published."""
    commit_id: str
    run_id: str
    segments: tuple[SegmentRef, ...]
    labels: dict[str, LabelIdentity]
    selection: Json
    source: Json
    counts: Counts
    coverage: float
    """Shards in the release over shards in the source, in [0, 1]. Below 1 the release is partial: of a milestone."""
    numerics: dict[str, Json]
    """Digest -> how labels were computed, and in how many `shards`."""
    content_digest: str
    recipe: Json
    summary: Json = None
    """Of all its label shards together (`labels.summary`); None where its labels have none."""
    reverts: tuple[tuple[int, int], ...] = ()
    """(revert, the release whose labels it published again), of this version and all before it."""
    created: str
    """UTC, ISO 8601; for people, decides nothing."""
    tool: Json
    gate: Json = None
    """The verdict of the checks under which it was published; None: nobody asked for one."""
    meta: Json = None
    """Whose it is: team, owner, cost center, as the recipe says; None: it says nothing."""
    usage: Json = None
    """Where the time of the run that published it went until then, and what that cost; None: nothing was labelled."""
    cards: dict[str, Stored] = Field(default_factory=dict)
    """Kind -> the file that describes it to others (see `cards`); none where it was published before there were."""

    @property
    def number(self) -> int:
        """Its place in the sequence."""
        return self.version

    @property
    def fingerprints(self) -> dict[str, str]:
        return {name: label.fingerprint for name, label in self.labels.items()}

    @property
    def meaning(self) -> str:
        """The fingerprint of the runs that can have written it."""
        return meaning_digest(self.fingerprints, self.selection)

    @property
    def partial(self) -> bool:
        """Whether shards of the source were still to be labelled when it was published."""
        return self.coverage < 1

    @property
    def objects(self) -> list[Stored]:
        """Its segments and cards."""
        return [*(segment.stored() for segment in self.segments), *self.cards.values()]

    def sealed(self) -> bytes:
        """The bytes of its file."""
        return seal(self.to_json())

    def to_json(self) -> dict[str, Json]:
        """As its file has it."""
        fields: dict[str, Json] = self.model_dump(mode="json")
        later: dict[str, Json] = {"summary": None, "gate": None, "meta": None, "usage": None, "cards": {}}
        return {name: value for name, value in fields.items() if name not in later or value != later[name]}


def version_path(number: int) -> str:
    return f"versions/v{number:010d}.json"


def parse_entry(data: bytes, url: str) -> Version | Fence:
    """Raises StoreCorrupt where these are the bytes of neither, Refused where they are of a newer format."""
    fields = unseal(data, url)
    kind = Fence if fields.get("kind") == "fence" else Version
    check_format(fields.get("format"), url)
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise StoreCorrupt(f"{url} is sealed but is not a {kind.__name__.lower()}: {error}") from error


def parse_version(data: bytes, url: str) -> Version:
    """As `parse_entry`; raises UnknownName where it is a fence."""
    entry = parse_entry(data, url)
    if isinstance(entry, Fence):
        hint = f"Number {entry.number} is a fence, not a release: {entry}."
        raise UnknownName("release", str(entry.number), [str(entry.release)] if entry.release else [], hint)
    return entry


def read_entry(store: ObjectStore, number: int) -> Version | Fence:
    """Raises StoreCorrupt, naming the file, where it is gone or damaged."""
    path = version_path(number)
    try:
        return parse_entry(store.get(path), store.full_url(path))
    except ObjectMissing as error:
        raise StoreCorrupt(f"{store.full_url(path)} is gone.") from error


def read_version(store: ObjectStore, number: int) -> Version:
    """Raises StoreCorrupt, naming the file, where it is gone or damaged, UnknownName where it is a fence."""
    path = version_path(number)
    try:
        return parse_version(store.get(path), store.full_url(path))
    except ObjectMissing as error:
        raise StoreCorrupt(f"{store.full_url(path)} is gone.") from error


def sequence_numbers(store: ObjectStore) -> list[int]:
    """Of releases and fences, ascending; found by listing, for there is no pointer that could be stale."""
    return [int(found[1]) for info in store.list("versions") if (found := NAME.fullmatch(info.path))]


def version_numbers(store: ObjectStore) -> list[int]:
    """Of releases, ascending: the newest whole file says which of the others are fences.

    A damaged file counts as a release, so that whoever reads it is told.
    """
    numbers = sequence_numbers(store)
    for number in reversed(numbers):
        try:
            newest = read_entry(store, number)
        except Refused:
            continue
        fences = {*newest.fences, *([number] if isinstance(newest, Fence) else [])}
        return [each for each in numbers if each not in fences]
    return numbers


def read_sequence(store: ObjectStore) -> list[Version | Fence]:
    """Every release and every fence, oldest first."""
    return in_threads(lambda number: read_entry(store, number), sequence_numbers(store))


def read_history(store: ObjectStore) -> list[Version]:
    """Every release, oldest first."""
    return [entry for entry in read_sequence(store) if isinstance(entry, Version)]


def read_sequence_around(store: ObjectStore, parent: int) -> list[Version | Fence]:
    """What a commit must know of the past, oldest first: every file, less the damaged ones older than `parent`.

    One request each, 16 at a time. A damaged old version holds nobody up: whatever run published it, a run planned
    against a later one is another. From `parent` on each must be whole.
    """
    numbers = sequence_numbers(store)
    if parent and parent not in numbers and store.exists(version_path(parent)):
        numbers.append(parent)  # the listing lags behind

    def read(number: int) -> Version | Fence | None:
        try:
            return read_entry(store, number)
        except StoreCorrupt:
            if number < parent:
                return None
            raise

    return [entry for entry in in_threads(read, numbers) if entry is not None]


def check_format(found: Json, url: str) -> None:
    if not isinstance(found, int):
        raise StoreCorrupt(f"{url} states no format number; relabel did not write it.")
    if found > FORMAT:
        raise Refused(
            f"{url} has format {found}; this relabel ({__version__}) reads up to {FORMAT}. "
            f"Upgrade it: pip install --upgrade {DISTRIBUTION}."
        )


def ensure_store(store: ObjectStore, identity: str) -> Json:
    """Make the root a store unless it is one; returns what its marker says. `identity` names a new store (a uuid)."""
    try:
        data = store.get(MARKER)
    except ObjectMissing:
        data = settle(store, MARKER, seal({"format": PLAIN_FORMAT, "uuid": identity}))
    return parse_marker(data, store)


def read_marker(store: ObjectStore) -> Json:
    """What the store's marker says; raises UsageError where the root is no store."""
    try:
        return parse_marker(store.get(MARKER), store)
    except ObjectMissing as error:
        raise UsageError(
            f"{store.url} is not a label store: it holds no {MARKER}. Give the `store` of a recipe that was run."
        ) from error


def parse_marker(data: bytes, store: ObjectStore) -> Json:
    fields = unseal(data, store.full_url(MARKER))
    check_format(fields.get("format"), store.full_url(MARKER))
    return fields


def count(entries: Iterable[Entry]) -> Counts:
    entries = list(entries)
    reasons: dict[str, int] = {}
    for entry in entries:
        for reason, rows in ({entry.reason: 1} if entry.status == "dead" else entry.reasons).items():
            reasons[reason] = reasons.get(reason, 0) + rows
    return Counts(
        shards=len(entries),
        dead_shards=sum(entry.status == "dead" for entry in entries),
        samples=sum(entry.rows for entry in entries),
        ok=sum(entry.ok for entry in entries),
        dead=sum(entry.dead for entry in entries),
        filtered=sum(entry.filtered for entry in entries),
        reasons=reasons,
    )


def content_digest(labels: Mapping[str, LabelIdentity], entries: Sequence[Entry]) -> str:
    """Equal for the same labels of the same shards: run, URL, token, attempt and time do not enter."""
    meaning = {
        name: {"fingerprint": label.fingerprint, "contract": label.contract.model_dump(mode="json")}
        for name, label in labels.items()
    }
    return digest({"labels": meaning, "shards": sorted([entry.shard, entry.outcome] for entry in entries)})


def meaning_digest(fingerprints: Mapping[str, str], selection: Json) -> str:
    """What labels mean, which rows are labelled and from which fields: the fingerprint of runs and receipts."""
    return digest({"labels": dict(fingerprints), "selection": selection})


def mix(entries: Iterable[Entry], known: Mapping[str, Json]) -> dict[str, Json]:
    """`known` numerics by digest, each with the number of shards computed that way; unused ones drop out."""
    shards: dict[str, int] = {}
    for entry in entries:
        shards[entry.numerics] = shards.get(entry.numerics, 0) + 1
    return {name: {**known[name], "shards": number} for name, number in shards.items()}


@functools.cache
def tool() -> dict[str, Json]:
    """Which software published; for people, decides nothing."""
    packages = {name: installed_version(name) for name in KEY_PACKAGES}
    return {"relabel": __version__, "python": platform.python_version(), "packages": packages}


def partial_only(store: ObjectStore, version: Version) -> str:
    """Why a partial release is not given."""
    return (
        f"release {version.version} of {store.url} is partial: it covers {version.coverage:.1%} of the source's "
        "shards, and its run goes on. Accept it with release(..., accept_partial=True), --accept-partial or, in a "
        "recipe, `source: {accept_partial: true}`; or wait until the run has published a complete one."
    )


def version_digest(store: ObjectStore, number: int) -> str:
    """sha256 of a version's file, which was whole; raises StoreCorrupt, and UnknownName where it is a fence."""
    path = version_path(number)
    data = store.get(path)
    parse_version(data, store.full_url(path))
    return sha256(data)


def digest_before(store: ObjectStore, newest: Version | Fence | None) -> str:
    """For the file that follows `newest`: of the bytes as they lie in the store, whoever wrote them.

    Raises StoreCorrupt where they did not come whole: one that names half a file would be wrong for ever.
    """
    if newest is None:
        return ""
    path = version_path(newest.number)
    data = store.get(path)
    parse_entry(data, store.full_url(path))
    return sha256(data)


def fences_after(newest: Version | Fence | None) -> tuple[int, ...]:
    """For the file that follows `newest`: which numbers before it are fences."""
    if newest is None:
        return ()
    return (*newest.fences, newest.number) if isinstance(newest, Fence) else newest.fences
