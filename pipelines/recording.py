"""Recording: what a run says of itself while it works, in its store, so that any machine can tell (`status`, `cost`).

One small object per run, `runs/RUN.json`, written again from time to time. It decides nothing: a run goes on where it
cannot be written.
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
from relabel.storage.objects import ObjectStore

from .job import Job
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

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.run_id}.json"


class Recorder:
    """Writes one run's record."""

    def __init__(self, job: Job, partition: str, tally: Tally) -> None:
        self._store, self._tally = job.open_store(), tally
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
        self.record = dataclasses.replace(self.record, **told, **changes)
        try:
            self._store.put(self.record.path, seal({"format": 1, **dataclasses.asdict(self.record)}))
        except StorageError as error:
            print(f"relabel: the run's record is not written ({error})", file=sys.stderr, flush=True)
            if isinstance(error, StorageFull):  # the end of the run's lease needs the room more
                with contextlib.suppress(StorageError):
                    self._store.delete(self.record.path)


@contextlib.contextmanager
def recorded(job: Job, partition: str, tally: Tally) -> Iterator[Recorder]:
    """Inside, the run's record follows it; its last word is how the run ended, of a good end the caller's."""
    recorder, done = Recorder(job, partition, tally), threading.Event()
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


def read_records(store: ObjectStore) -> tuple[list[RunRecord], list[str]]:
    """Every run's record, oldest first; and of those that cannot be read, why."""
    damaged: list[str] = []

    def read(path: str) -> RunRecord | None:
        try:
            fields = unseal(store.get(path), store.full_url(path))
            names = {field.name for field in dataclasses.fields(RunRecord)}
            return RunRecord(**{name: fields[name] for name in names})
        except (StoreCorrupt, KeyError) as error:
            damaged.append(str(error) if isinstance(error, StoreCorrupt) else f"{store.full_url(path)} lacks {error}")
            return None

    records = [each for each in in_threads(read, list(store.names(FOLDER))) if each is not None]
    return sorted(records, key=lambda record: (record.started, record.run_id)), sorted(damaged)
