"""Watch: what must hold of a store after every single write, whatever failed.

Versions have no gaps and each verifies when it becomes visible; from then on no byte that it reaches may change. One
run id publishes once, none under a lease older than a fence before it, each version is its parent plus what its run saw
and changed, and what decides is written once.
"""

import re
from collections.abc import Mapping, Sequence

from ..digests import sha256
from ..errors import StoreCorrupt
from ..releases.commit import Draft, same_meaning
from ..releases.contents import check_dead_letters, check_label_shard
from ..releases.fences import Fence
from ..releases.segments import Entry, SegmentRef, entry_of, merge, read_segment
from ..releases.verify import verify
from ..releases.versions import NAME, Version, read_entry, version_path
from .memory import Change, MemoryStore

WRITTEN_ONCE = re.compile(
    r"versions/.*|receipts/.*\.json|tags/.*|operators/.*|recalls/.*|withdrawals/.*|redactions/.*|leases/.*\.json|"
    r"stops/.*|store\.json"
)
_checked: dict[tuple[str, str], list[str]] = {}


class Violation(AssertionError):
    """A promise of the store was broken; the message says which, by what and where."""

    trace: Sequence[str] = ()
    """What was done until then, where a simulation found it."""


class Watch:
    """Looks at each change of a store once; `drafts` are what runs tried to publish, by run id."""

    def __init__(self, store: MemoryStore, drafts: Mapping[str, Sequence[Draft]] | None = None) -> None:
        self.store, self.drafts = store, drafts
        self.sequence: list[Version | Fence] = []
        self.versions: dict[int, Version] = {}
        """Number -> release."""
        self.entries: dict[int, dict[str, Entry]] = {0: {}}
        """Number -> what the release holds."""
        self.reached: dict[str, bytes] = {}
        """What lies at each path that a visible release reaches."""
        self._segments: dict[str, list[Entry]] = {}
        self._seen = 0
        for info in store.list("versions"):
            self._publish(info.path)

    def check(self) -> None:
        """Raises Violation where one of the changes since the last call breaks a promise."""
        while self._seen < len(self.store.changes):
            change = self.store.changes[self._seen]
            self._seen += 1
            self._check_kept(change)
            if change.after is not None and change.before is None and NAME.fullmatch(change.path):
                try:
                    self._publish(change.path)
                except StoreCorrupt as error:
                    raise Violation(f"{change.path} became visible and is not whole: {error}") from error

    def _check_kept(self, change: Change) -> None:
        before = change.before and change.before.data
        after = change.after and change.after.data
        if before is not None and before != after and WRITTEN_ONCE.fullmatch(change.path):
            raise Violation(f"{change.path} was {'deleted' if after is None else 'replaced'}; it is written once.")
        if change.path in self.reached and self.reached[change.path] != after:
            raise Violation(f"{change.path} was changed, and a visible release reaches it.")

    def _publish(self, path: str) -> None:
        entry = read_entry(self.store, int(path[-15:-5]))
        if entry.number != len(self.sequence) + 1:
            raise Violation(f"{path} was published when the newest was {len(self.sequence)}: the history has a gap.")
        if isinstance(entry, Fence):
            self._check_fence(path, entry)
            self.reached[path] = self.store.get(path)
        else:
            self._check_version(path, entry)
        self.sequence.append(entry)

    def _check_fence(self, path: str, fence: Fence) -> None:
        before = self.store.get(version_path(fence.number - 1)) if self.sequence else b""
        named = "" if not self.sequence else sha256(before)
        numbers = tuple(each.number for each in self.sequence if isinstance(each, Fence))
        if (fence.before_sha256, fence.release, fence.fences) != (named, max(self.versions, default=0), numbers):
            raise Violation(f"{path} is a fence that does not name what is before it: {fence}")

    def _check_version(self, path: str, version: Version) -> None:
        if version.run_id in {each.run_id for each in self.versions.values()}:
            raise Violation(f"{path}: run {version.run_id} published twice.")
        newest = max((each.lease for each in self.sequence if isinstance(each, Fence)), default=0)
        if version.lease is not None and version.lease < newest:
            raise Violation(f"{path} was published under lease {version.lease}, after a fence of lease {newest}.")
        entries = merge(self._segment(ref) for ref in version.segments)
        problems = [f"{each.object} {each.what}" for each in verify(self.store, version.version, "quick").problems]
        for entry in entries.values():
            problems.extend(self._check_contents(version, entry))
        if problems:
            raise Violation(f"{path} does not verify: {problems}")
        if self.drafts is not None:
            check_update(version, entries, self.entries, self.versions, self.drafts.get(version.run_id, ()))
        self.versions[version.version] = version
        self.entries[version.version] = entries
        reached = [path, *(each.path for each in version.objects)]
        reached += [each.path for entry in entries.values() for each in entry.objects()]
        self.reached.update({each: self.store.get(each) for each in reached})

    def _segment(self, ref: SegmentRef) -> list[Entry]:
        """Decoded once: its bytes may not change."""
        if ref.path not in self._segments:
            self._segments[ref.path] = read_segment(self.store, ref)
        return self._segments[ref.path]

    def _check_contents(self, version: Version, entry: Entry) -> list[str]:
        """Every byte is hashed; equal bytes are decoded once in a process."""
        found = [] if entry.dead_letters is None else check_dead_letters(self.store, entry.dead_letters)
        if entry.data is None:
            return found
        read = sha256(self.store.get(entry.data.path)), f"{sorted(version.fingerprints.items())}{entry.keys_sha256}"
        if read[0] != entry.data.sha256:
            return [*found, f"{entry.data.path} is not what was written"]
        if read not in _checked:
            _checked[read] = check_label_shard(self.store, version, entry, full=True)
        return found + _checked[read]


def check_update(
    new: Version,
    entries: Mapping[str, Entry],
    history: Mapping[int, Mapping[str, Entry]],
    versions: Mapping[int, Version],
    drafts: Sequence[Draft],
) -> None:
    """No update is lost: a version is its parent, less what its run replaced knowing it, plus what the run made."""
    lost = [explain(new, entries, history, versions, draft) for draft in drafts]
    if not lost or all(lost):
        raise Violation(f"version {new.version} is not its parent plus what run {new.run_id} did: {lost}")


def explain(
    new: Version,
    entries: Mapping[str, Entry],
    history: Mapping[int, Mapping[str, Entry]],
    versions: Mapping[int, Version],
    draft: Draft,
) -> list[str]:
    """The shards of a version that its parent and this draft do not account for."""

    def held(number: int) -> Mapping[str, Entry]:
        return history[number] if number and same_meaning(versions[number], draft) else {}

    parent, planned = held(new.parent), held(draft.parent)
    wanted = {receipt.shard: entry_of(receipt) for receipt in draft.receipts}
    odd = []
    for shard in {*parent, *entries, *wanted}:
        was, now, plan = parent.get(shard), entries.get(shard), planned.get(shard)
        ours = wanted.get(shard)
        made = (ours is not None and now == ours) or (now is None and shard in draft.removed)
        if not (now == was and (ours in (None, plan, now))) and not (made and was in (plan, ours)):
            odd.append(shard)
    return odd
