"""Standing: where a store is now, from its objects alone: who is at work, how far, and what it holds."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from relabel.digests import Json
from relabel.releases.candidates import read_candidates
from relabel.releases.leases import Holder, holders
from relabel.releases.stops import find_stop
from relabel.releases.unpublished import unpublished
from relabel.releases.versions import Version, read_version, version_numbers
from relabel.storage.objects import ObjectStore

from .prices import tell_cost
from .progress import duration
from .recording import RUNNING, RunRecord, read_records

SHOWN_RUNS = 5


@dataclasses.dataclass(frozen=True)
class Standing:
    """What any machine can know of a store."""

    url: str
    release: Version | None
    """The newest."""
    owners: list[tuple[Holder, bool]]
    """Who holds it, and whether they were asked to stop."""
    runs: list[RunRecord]
    """Newest first."""
    damaged: list[str]
    """Records that cannot be read."""
    receipts: int
    """Shards that are finished and in no release."""
    rows: int
    dead: int
    """Dead letters among those."""
    dead_shards: int
    candidates: list[str]
    """Runs whose releases wait, or were refused."""

    def run_of(self, holder: Holder) -> RunRecord | None:
        return next((run for run in self.runs if run.run_id == holder.lease.run_id), None)

    def state(self, run: RunRecord) -> str:
        """As it said, but one that says it works and holds no lease has died."""
        held = {holder.lease.run_id for holder, _ in self.owners if not holder.expired}
        return "died" if run.state == RUNNING and run.run_id not in held else run.state

    def to_json(self) -> dict[str, Json]:
        release = self.release
        return {
            "store": self.url,
            "release": None if release is None else release.version,
            "release_created": None if release is None else release.created,
            "release_counts": None if release is None else release.counts.model_dump(),
            "coverage": None if release is None else release.coverage,
            "owners": [self._owner(holder, stop) for holder, stop in self.owners],
            "runs": [{**dataclasses.asdict(run), "state": self.state(run)} for run in self.runs[:SHOWN_RUNS]],
            "unpublished": {
                "receipts": self.receipts,
                "samples": self.rows,
                "dead_letters": self.dead,
                "dead_shards": self.dead_shards,
            },
            "candidates": self.candidates,
            "damaged_records": self.damaged,
        }

    def _owner(self, holder: Holder, stop: bool) -> dict[str, Json]:
        lease = holder.lease
        return {
            "run_id": lease.run_id,
            "host": lease.host,
            "lease": lease.number,
            "partition": str(lease.partition),
            "since": lease.created,
            "silent_seconds": round(holder.silent_seconds, 1),
            "expired": holder.expired,
            "asked_to_stop": stop,
        }


def standing(store: ObjectStore) -> Standing:
    """Of this moment; a run's own words are as old as its last record (20 s by default)."""
    numbers = version_numbers(store)
    records, damaged = read_records(store)
    loose = [receipt for found in unpublished(store).values() for receipt in found]
    return Standing(
        url=store.url,
        release=read_version(store, numbers[-1]) if numbers else None,
        owners=[(holder, find_stop(store, holder.lease.run_id) is not None) for holder in holders(store)],
        runs=records[::-1],
        damaged=damaged,
        receipts=len(loose),
        rows=sum(receipt.rows for receipt in loose),
        dead=sum(receipt.dead for receipt in loose),
        dead_shards=sum(receipt.status == "dead" for receipt in loose),
        candidates=[each.run_id for each in read_candidates(store)],
    )


def tell_standing(found: Standing) -> Iterator[str]:
    """For a person."""
    release = found.release
    if release is None:
        yield "release   none yet"
    else:
        counts = release.counts
        partial = f", partial: {release.coverage:.1%}" if release.partial else ""
        yield (
            f"release   {release.version} of {release.created}{partial}: {counts.shards} shards, {counts.ok} ok, "
            f"{counts.dead} dead, {counts.dead_shards} shards dead"
        )
    for holder, stop in found.owners:
        yield f"owner     {holder}" + ("; expired: the next run takes over" if holder.expired else "")
        if stop:
            yield "          asked to stop"
        run = found.run_of(holder)
        if run is not None and run.progress:
            yield from tell_progress(run)
    if not found.owners:
        yield "owner     no run is at work"
    if found.receipts:
        yield (
            f"waiting   {found.receipts} finished shards ({found.rows} samples, {found.dead} dead letters, "
            f"{found.dead_shards} unreadable) are in no release yet"
        )
    for each in found.candidates:
        yield f"candidate {each}: look with `relabel candidates {found.url}`"
    for run in found.runs[:SHOWN_RUNS]:
        if found.state(run) != RUNNING:
            yield tell_run(run, found.state(run))
    for line in found.damaged:
        yield f"warning   {line}"


def tell_progress(run: RunRecord) -> Iterator[str]:
    told: dict[str, Any] = run.progress
    eta = "" if told["eta_seconds"] is None else f", done in {duration(float(told['eta_seconds']))}"
    yield (
        f"progress  {told['shards_done']} of {told['shards']} shards, {told['samples']} samples, "
        f"{told['images_per_second']:g}/s{eta}, {told['dead_letters']} dead letters, waits for: {told['waits_for']} "
        f"(as of {run.updated})"
    )
    if run.usage:
        yield f"cost      {tell_cost(run.usage['cost'])}"
        if run.usage["bottleneck"]:
            yield f"limit     {run.usage['bottleneck']['text']}"


def tell_run(run: RunRecord, state: str) -> str:
    """One line of a run that has ended."""
    what = f" release {run.release}" if run.release is not None else ""
    why = f": {run.error}" if run.error else ""
    died = ": it said nothing more; run again, it goes on" if state == "died" else ""
    code = "" if run.exit_code is None else f" (exit {run.exit_code})"
    return f"run       {run.run_id} {run.updated} {state}{what}{code}{why}{died}"
