"""Verify: whether everything that a release reaches is what was written.

quick lists and reads the small files; default also opens some label shards; full reads every byte. A problem names
the object that is wrong, and one wrong object does not hide another.
"""

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

from ..digests import Json, digest, sha256, unseal
from ..errors import ObjectMissing, Refused, StoreCorrupt
from ..storage.objects import ObjectStore
from .contents import check_dead_letters, check_label_shard
from .fences import Fence
from .lookup import as_number, find_version
from .redactions import read_redactions
from .retirements import read_retired
from .segments import Entry, SegmentRef, merge, read_segment
from .stored import Stored, absences, get_checked, in_threads
from .summaries import release_summary
from .versions import (
    MARKER,
    Version,
    content_digest,
    count,
    mix,
    parse_entry,
    parse_marker,
    sequence_numbers,
    version_numbers,
    version_path,
)

Level = Literal["quick", "default", "full"]
LEVELS: tuple[Level, ...] = ("quick", "default", "full")
SAMPLED_SHARDS = 16
NUM_READERS = 4
"""Whole label shards in memory at a time."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    object: str
    """Path of the object, relative to the store."""
    what: str


@dataclasses.dataclass
class Report:
    """What was checked and what was found."""

    level: Level
    release: int
    problems: list[Problem] = dataclasses.field(default_factory=list)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    """versions, segments, shards; files and bytes that the release holds; files_read: label shards opened; redacted:
    files that were rewritten without withdrawn rows since (what stands for them is there); retired: 1 where its files
    may be gone and were not looked at."""
    redacted: list[str] = dataclasses.field(default_factory=list)
    """Paths of these files."""

    @property
    def ok(self) -> bool:
        return not self.problems

    def add(self, path: str, *what: str) -> None:
        self.problems += [Problem(path, each) for each in what]


def verify(store: ObjectStore, selector: int | str = "latest", level: Level = "default") -> Report:
    """Check one release and the chain of versions that it stands on; reads only.

    A published version whose file is gone is a problem, not an error; raises UnknownName for what was never published.
    """
    number, taken = as_number(selector), sequence_numbers(store)
    # One past the newest: its file may be the one that is gone.
    if number is None or not 1 <= number <= max(taken, default=0) + 1:
        number = find_version(store, selector, accept_partial=True)
    elif number in taken and number not in version_numbers(store):
        number = find_version(store, selector)  # a fence: raises
    report = Report(level, number)
    check_marker(store, report)
    version = check_chain(store, report)
    if version is None:
        return report
    entries = check_segments(store, version, report)
    if entries is None:
        return report
    check_sums(version, entries, report)
    check_statistics(store, version, report)
    check_cards(store, version, report)
    if number in read_retired(store):  # its label shards may be gone
        report.counts["retired"] = 1
        return report
    objects = present(store, entries, report)
    check_presence(store, objects, report)
    if level != "quick":
        check_contents(store, version, entries, report)
    if level == "full":
        check_replacements(store, entries, objects, report)
    return report


def check_marker(store: ObjectStore, report: Report) -> None:
    attempt(report, MARKER, lambda: parse_marker(store.get(MARKER), store))


def attempt(report: Report, path: str, work: Callable[[], T]) -> T | None:
    """The result of `work`, or None and a problem with the object at `path`."""
    try:
        return work()
    except ObjectMissing:
        report.add(path, "is gone")
    except (StoreCorrupt, Refused) as error:
        report.add(path, str(error))
    return None


def check_chain(store: ObjectStore, report: Report) -> Version | None:
    """Every file from the first to this one is whole, in its place, and names the bytes of the one before it."""
    paths = {number: version_path(number) for number in range(1, report.release + 1)}
    read = in_threads(lambda path: attempt(report, path, lambda: store.get(path)), list(paths.values()))
    files = dict(zip(paths, read, strict=True))
    parsed = {number: parse(store, path, files[number], report) for number, path in paths.items()}
    whole = {number: entry for number, entry in parsed.items() if entry is not None}
    for number, entry in whole.items():
        before = files.get(number - 1)
        named = entry.before_sha256 if isinstance(entry, Fence) else entry.parent_sha256
        if before is not None and sha256(before) != named:
            report.add(paths[number - 1], f"is not the file that number {number} names as its parent")
        check_place(number, entry, whole, report)
    report.counts["versions"] = len(files)
    versions = {number: entry for number, entry in whole.items() if isinstance(entry, Version)}
    check_runs(versions, report)
    return versions.get(report.release)


def parse(store: ObjectStore, path: str, data: bytes | None, report: Report) -> Version | Fence | None:
    return None if data is None else attempt(report, path, lambda: parse_entry(data, store.full_url(path)))


def check_place(number: int, entry: Version | Fence, whole: Mapping[int, Version | Fence], report: Report) -> None:
    """What a file of the sequence says of its number, of the release before it and of the fences before it."""
    fences = {each for each, found in whole.items() if each < number and isinstance(found, Fence)}
    damaged = set(range(1, number)) - whole.keys()
    before = max(set(range(1, number)) - set(entry.fences), default=0)
    release = entry.release if isinstance(entry, Fence) else entry.parent
    if (entry.number, release) != (number, before):
        kind = type(entry).__name__.lower()
        report.add(version_path(number), f"says that it is {kind} {entry.number} with parent {release}")
    if not fences <= set(entry.fences) <= fences | damaged:
        report.add(version_path(number), f"says that {list(entry.fences)} are fences; these are: {sorted(fences)}")


def check_runs(versions: Mapping[int, Version], report: Report) -> None:
    first: dict[str, int] = {}
    for number, version in sorted(versions.items()):
        if first.setdefault(version.run_id, number) != number:
            report.add(
                version_path(number), f"was published by run {version.run_id}, as was version {first[version.run_id]}"
            )


def check_segments(store: ObjectStore, version: Version, report: Report) -> dict[str, Entry] | None:
    """The release's entries, or None where a segment cannot be read."""

    def read(ref: SegmentRef) -> list[Entry] | None:
        entries = attempt(report, ref.path, lambda: read_segment(store, ref))
        if entries is not None and len(entries) != ref.entries:
            report.add(ref.path, f"holds {len(entries)} entries; the version says {ref.entries}")
        return entries

    lists = in_threads(read, version.segments)
    report.counts["segments"] = len(lists)
    whole = [entries for entries in lists if entries is not None]
    return merge(whole) if len(whole) == len(lists) else None


def check_sums(version: Version, entries: Mapping[str, Entry], report: Report) -> None:
    """What the version says of its entries is what they add up to."""
    path, listed = version_path(version.version), list(entries.values())
    report.counts["shards"] = len(listed)
    if count(listed) != version.counts:
        report.add(path, f"counts {version.counts} do not add up; the segments say {count(listed)}")
    if content_digest(version.labels, listed) != version.content_digest:
        report.add(path, "content digest is not that of its label shards")
    if release_summary(listed) != version.summary:
        report.add(path, "summary does not add up to those of its label shards")
    if not {entry.numerics for entry in listed} <= set(version.numerics):
        report.add(path, "lacks the numerics of some of its label shards")
    elif mix(listed, version.numerics) != version.numerics:
        report.add(path, "numerics do not add up to its label shards")
    for entry in listed:
        if entry.rows != entry.ok + entry.dead + entry.filtered or (entry.data is None) != (entry.status == "dead"):
            report.add(
                path, f"shard {entry.shard!r}: rows must be ok + dead + filtered, and data there unless it is dead"
            )


def check_statistics(store: ObjectStore, version: Version, report: Report) -> None:
    """The results that its labels were made with are there, as they were."""

    def read(path: str) -> dict[str, Json] | None:
        return attempt(report, path, lambda: unseal(store.get(path), store.full_url(path)))

    for label in version.labels.values():
        named_ones = label.identity.get("statistics", ())
        # An operator's own facts may be called so, too.
        for named in (each for each in named_ones if isinstance(each, dict) and {"path", "sha256"} <= each.keys()):
            held = read(named["path"])
            if held is not None and digest(held.get("result")) != named["sha256"]:
                report.add(named["path"], "is not the result that the release names")


def check_cards(store: ObjectStore, version: Version, report: Report) -> None:
    """What describes the release to others is there, byte for byte."""
    in_threads(lambda card: attempt(report, card.path, lambda: get_checked(store, card)), [*version.cards.values()])


def present(store: ObjectStore, entries: Mapping[str, Entry], report: Report) -> list[Stored]:
    """What must lie in the store: what the release names, or what stands for it where that was redacted."""
    redactions = read_redactions(store)
    named = [each for entry in entries.values() for each in entry.objects()]
    now = [redactions.current(each) for each in named]
    report.redacted = [each.path for each, lying in zip(named, now, strict=True) if lying != each]
    if report.redacted:
        report.counts["redacted"] = len(report.redacted)
    return [each for each in now if each is not None]


def check_presence(store: ObjectStore, objects: Sequence[Stored], report: Report) -> None:
    """Every label shard and dead-letter file lies there at its size."""
    report.counts["files"] = len(objects)
    report.counts["bytes"] = sum(each.size_bytes for each in objects)
    for path, what in absences(store, objects).items():
        report.add(path, what)


def check_contents(store: ObjectStore, version: Version, entries: Mapping[str, Entry], report: Report) -> None:
    """Open some label shards, or all of them and the dead letters; what is known to be gone is left out."""
    known = {problem.object for problem in report.problems} | set(report.redacted)
    full = report.level == "full"
    chosen = [entry for entry in entries.values() if entry.data is not None and entry.data.path not in known]
    if not full and len(chosen) > SAMPLED_SHARDS:
        chosen = random.sample(chosen, SAMPLED_SHARDS)
    report.counts["files_read"] = len(chosen)
    found = in_threads(lambda entry: check_label_shard(store, version, entry, full), chosen, NUM_READERS)
    for entry, what in zip(chosen, found, strict=True):
        report.add(entry.data.path if entry.data else "", *what)
    if full:
        check_letters(store, [entry.dead_letters for entry in entries.values() if entry.dead_letters], report)


def check_letters(store: ObjectStore, letters: Sequence[Stored], report: Report) -> None:
    """Every line of every dead-letter file."""
    known = {problem.object for problem in report.problems} | set(report.redacted)
    chosen = [each for each in letters if each.path not in known]
    found = in_threads(lambda each: check_dead_letters(store, each), chosen, NUM_READERS)
    for each, what in zip(chosen, found, strict=True):
        report.add(each.path, *what)


def check_replacements(
    store: ObjectStore, entries: Mapping[str, Entry], objects: Sequence[Stored], report: Report
) -> None:
    """What stands for redacted files has the bytes that were written."""
    known = {problem.object for problem in report.problems}
    named = {each.path for entry in entries.values() for each in entry.objects()}
    chosen = [each for each in objects if each.path not in known | named]
    in_threads(lambda each: attempt(report, each.path, lambda: get_checked(store, each)), chosen, NUM_READERS)
