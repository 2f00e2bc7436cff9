"""Dead-letter commands: what could not be labelled and why, and labelling just that again."""

import argparse
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from relabel.digests import Json
from relabel.errors import UsageError
from relabel.releases.letters import Record, check_reason, dead_reasons, read_letters
from relabel.releases.redactions import read_redactions
from relabel.releases.release import Store
from relabel.releases.unpublished import unpublished
from relabel.releases.versions import read_marker, version_numbers
from relabel.releases.withdrawals import read_withdrawals
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store as open_objects

from .terminal import Add, add_if_busy, add_overrides, add_store, emit, positive, say, storage_options, table

SHOWN = 20


def declare(add: Add) -> None:
    dead = add("dead", dead_command, "list what could not be labelled, and why")
    add_store(dead)
    which = dead.add_mutually_exclusive_group()
    which.add_argument("--release", default="latest", metavar="R", help="a number, a tag or `latest` (partial or not)")
    which.add_argument("--open", action="store_true", help="of finished shards that no release holds")
    dead.add_argument("--reason", metavar="CODE", help="only of this reason")
    dead.add_argument(
        "--limit", type=positive, metavar="N", help=f"list at most N (default: {SHOWN}; with --json: all, a line each)"
    )
    replay = add("replay", replay_command, "label dead samples and shards again, and publish a release")
    replay.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
    add_overrides(replay, "--set", "overrides", "override one field of the recipe (repeatable)")
    which = replay.add_mutually_exclusive_group(required=True)
    which.add_argument("--release", metavar="R", help="those of this release: a number, a tag or `latest`")
    which.add_argument("--open", action="store_true", help="those that no release holds; the next run publishes them")
    replay.add_argument("--reason", metavar="CODE", help="only of this reason")
    replay.add_argument("--address", help="a running Ray cluster (default: a local one for this replay)")
    add_if_busy(replay)


def dead_command(options: argparse.Namespace) -> int:
    check_reason(options.reason)
    store = open_objects(options.store, storage_options(options))
    listed = open_records(store) if options.open else release_records(store, options.release)
    limit = options.limit or (None if options.json else SHOWN)
    letters = islice(listed.letters(options.reason), limit)
    if options.json:
        for letter in letters:
            print(json.dumps(letter))
        return 0
    counts = listed.counts(options.reason)
    say(listed.title, *(f"  {number} {what} {code}" for what, code, number in counts))
    shown = [(place(letter), letter["reason"], attempts(letter), letter["detail"]) for letter in letters]
    if shown:
        table([("shard/key", "reason", "attempts", "detail"), *shown])
    else:
        say("nothing is dead" + (f" of reason {options.reason}" if options.reason else ""))
    if (rest := sum(number for _, _, number in counts) - len(shown)) > 0:
        say(f"and {rest} more (--limit N, or --json for all)")
    return 0


class Listed:
    """Shards that ended, less what was withdrawn; of files that were rewritten since, what stands for them is read."""

    def __init__(self, title: str, objects: ObjectStore, records: Iterable[Record]) -> None:
        self.title, self._objects = title, objects
        self._withdrawn = read_withdrawals(objects)
        current = read_redactions(objects).current
        self.records = [
            dataclasses.replace(each, dead_letters=each.dead_letters and current(each.dead_letters))
            for each in records
            if each.shard not in self._withdrawn.shards
        ]

    def letters(self, reason: str | None) -> Iterator[dict[str, Json]]:
        return self._letters(self.records, reason)

    def _letters(self, records: Iterable[Record], reason: str | None) -> Iterator[dict[str, Json]]:
        for letter in read_letters(self._objects, records, reason):
            if "key" not in letter or not self._withdrawn.holds(letter["shard"], letter["key"]):
                yield letter

    def counts(self, reason: str | None) -> list[tuple[str, str, int]]:
        """(what, reason, number) of what is dead, the most frequent first.

        Letters are read only of shards that hold withdrawn samples: their records count these as dead.
        """
        counts: Counter[tuple[str, str]] = Counter()
        for record in self.records:
            if record.status == "dead":
                counts["shards", record.reason] += 1
            elif self._withdrawn.keys_of(record.shard):
                counts.update(("samples", str(letter["reason"])) for letter in self._letters([record], None))
            else:
                counts.update({("samples", code): number for code, number in dead_reasons(record).items()})
        return [(what, code, number) for (what, code), number in counts.most_common() if reason in (None, code)]


def release_records(objects: ObjectStore, selector: str) -> Listed:
    if not version_numbers(objects) and unpublished(objects):
        raise UsageError(f"{objects.url} holds no release yet; --open lists what its runs have finished so far.")
    release = Store(objects).release(selector, accept_partial=True)
    partial = f", partial: coverage {release.coverage:.1%}" if release.version.partial else ""
    return Listed(f"release {release.number} of {objects.url}{partial}", objects, release.entries.values())


def open_records(objects: ObjectStore) -> Listed:
    """A run that was refused at once leaves a store without its marker."""
    found = unpublished(objects)
    if not found:
        read_marker(objects)
    shards = ", ".join(f"{len(receipts)} shards of fingerprint {each}" for each, receipts in found.items())
    records = [receipt for receipts in found.values() for receipt in receipts]
    return Listed(f"finished in {objects.url} and in no release: {shards or 'nothing'}", objects, records)


def place(letter: dict[str, Json]) -> str:
    return f"{letter['shard']}/{letter['key']}" if "key" in letter else str(letter["shard"])


def attempts(letter: dict[str, Json]) -> str:
    return "?" if letter["attempts"] is None else str(letter["attempts"])


def replay_command(options: argparse.Namespace) -> int:
    from .leasing import IfBusy
    from .replay import replay

    replayed = replay(
        options.recipe,
        options.overrides,
        release=options.release,
        reason=options.reason,
        address=options.address,
        if_busy=IfBusy(options.if_busy),
    )
    if options.json:
        emit(replayed.to_json())
        return 0
    outcome = replayed.outcome
    for warning in outcome.plan.warnings:
        say(f"skipped   {warning}")
    if not outcome.plan.todo:
        say("nothing to do: none of these is dead any more" if outcome.plan.done else "nothing to do: nothing is dead")
    else:
        say(
            f"repaired  {replayed.repaired_samples} of {replayed.samples} samples, "
            f"{replayed.repaired_shards} of {replayed.shards} shards"
        )
    for reason, number in replayed.dead.items():
        say(f"dead      {number} {reason}")
    if replayed.other_numerics:
        say(f"numerics  {replayed.other_numerics} shards now hold rows that were computed differently")
    if outcome.plan.redone:
        say(f"parts     {len(outcome.plan.redone)} of unfinished shards hold dead samples; the next run redoes them")
    if options.open:
        say("Run again to label the rest and publish.")
    elif outcome.published and outcome.release is not None:
        say(f"published release {outcome.release.version} in {outcome.plan.job.recipe.store.url}")
    return 0
