"""Recording: what a run says of itself while it works, in its store, so that any machine can tell (`status`, `cost`).

One small object per run, `runs/RUN.json`, written again from time to time. A run goes on where it cannot be written. It
decides nothing but this: what a run found of samples labelled twice is judged also where another one publishes.
"""

import contextlib
import dataclasses
import datetime as dt
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from relabel.digests import Json, seal, unseal
from relabel.errors import AwaitsApproval, RelabelError, StorageError, StorageFull, StoreCorrupt
from relabel.redaction import redacted
from relabel.releases.leases import BEATS
from relabel.releases.stored import in_threads
from relabel.releases.versions import version_path
from relabel.storage.objects import ObjectStore

from .again import Twice
from .job import Job
from .plan import Plan
from .progress import Tally
from .stopping import Stopped

FOLDER = "runs"
RUNNING = "running"


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run said of itself last."""

    run_id: str
    name: str
    """Of the recipe."""
    store: str
    partition: str
    """"" for the whole source."""
    host: str
    meta: dict[str, str]
    started: str
    """UTC, ISO 8601."""
    updated: str
    state: str
    """running | published | kept (labelled, nothing published) | stopped | failed."""
    error: str
    """For a person, where it stopped or failed."""
    exit_code: int | None
    """None while it works."""
    release: int | None
    """That it published."""
    progress: Json
    """`Tally.to_json`."""
    usage: Json
    """`Account.to_json`."""
    twice: Json = None
    """`Twice.to_json`; None where none were to be labelled twice, or an older relabel wrote it."""

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.run_id}.json"


class Recorder:
    """Writes one run's record."""

    def __init__(self, job: Job, partition: str, tally: Tally, twice: Twice | None) -> None:
        self._store, self._tally, self._twice = job.open_store(), tally, twice
        self.record = RunRecord(
            run_id=job.run_id,
            name=job.recipe.name,
            store=job.recipe.store.url,
            partition=partition,
            host=socket.gethostname(),
            meta=job.recipe.meta.named,
            started=now(),
            updated=now(),
            state=RUNNING,
            error="",
            exit_code=None,
            release=None,
            progress=None,
            usage=None,
        )

    def ended(self, release: int | None) -> None:
        """Well; `release` is what it published."""
        self.write(state="kept" if release is None else "published", release=release, exit_code=0)

    def write(self, **changes: Any) -> None:
        """With what changed, and where the run is now."""
        told = {"progress": self._tally.to_json(), "usage": self._tally.account.to_json(), "updated": now()}
        told["twice"] = None if self._twice is None else self._twice.to_json()
        self.record = dataclasses.replace(self.record, **told, **changes)
        try:
            self._store.put(self.record.path, seal({"format": 1, **dataclasses.asdict(self.record)}))
        except StorageError as error:
            print(f"relabel: the run's record is not written ({error})", file=sys.stderr, flush=True)
            if isinstance(error, StorageFull):  # the end of the run's lease needs the room more
                with contextlib.suppress(StorageError):
                    self._store.delete(self.record.path)


@contextlib.contextmanager
def recorded(job: Job, partition: str, tally: Tally, twice: Twice | None = None) -> Iterator[Recorder]:
    """Inside, the run's record follows it; its last word is how the run ended, of a good end the caller's."""
    recorder, done = Recorder(job, partition, tally, twice), threading.Event()
    seconds = job.recipe.resources.lease_seconds / BEATS

    def follow() -> None:
        while not done.wait(seconds):
            recorder.write()

    recorder.write()
    thread = threading.Thread(target=follow, daemon=True, name="record")
    thread.start()
    failed: BaseException | None = None
    try:
        yield recorder
    except BaseException as error:
        failed = error
        raise
    finally:
        done.set()
        thread.join()
        if failed is not None:
            state = "stopped" if isinstance(failed, Stopped) else "failed"
            state = "kept" if isinstance(failed, AwaitsApproval) else state
            code = failed.exit_code if isinstance(failed, RelabelError) else 1
            recorder.write(state=state, error=redacted(f"{type(failed).__name__}: {failed}"), exit_code=code)


def now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def read_records(store: ObjectStore, since: float = 0.0) -> tuple[list[RunRecord], list[str]]:
    """Every run's record, oldest first; and of those that cannot be read, why. Only those written since a moment by the
    server's clock.
    """
    damaged: list[str] = []

    def read(path: str) -> RunRecord | None:
        try:
            fields = unseal(store.get(path), store.full_url(path))
            names = {field.name for field in dataclasses.fields(RunRecord)} - {"twice"}
            return RunRecord(**{name: fields[name] for name in names}, twice=fields.get("twice"))
        except (StoreCorrupt, KeyError) as error:
            damaged.append(str(error) if isinstance(error, StoreCorrupt) else f"{store.full_url(path)} lacks {error}")
            return None

    paths = [info.path for info in store.list(FOLDER) if info.modified >= since]
    records = [each for each in in_threads(read, paths) if each is not None]
    return sorted(records, key=lambda record: (record.started, record.run_id)), sorted(damaged)


def found_before(todo: Plan) -> list[Json]:
    """What earlier runs found of samples labelled twice: those whose labels would be published for the first time.

    They were planned against the last release, so they wrote their records after it. One that was killed may have found
    more than its record says.
    """
    job, parent = todo.job, todo.parent
    runs = {receipt.run_id for receipt in todo.done.values()}
    if job.recipe.gate.off or not runs:
        return []
    store = job.open_store()
    records, _ = read_records(store, store.head(version_path(parent.number)).modified if parent else 0.0)
    found = [record.twice for record in records if record.run_id in runs and record.twice]
    return [each for each in found if each["parent"] == (parent.number if parent else 0)]
