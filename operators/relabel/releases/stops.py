"""Stops: a request, from any machine, that a run ends early; its owner sees it with its next heartbeat."""

from ..digests import Json, seal, unseal
from ..errors import ObjectMissing
from ..storage.objects import ObjectStore, settle


def stop_path(run_id: str) -> str:
    return f"stops/{run_id}.json"


def ask_to_stop(store: ObjectStore, run_id: str, host: str, created: str) -> dict[str, Json]:
    """Asked once or again is the same; returns who asked first, and when. `host` and `created` are for people."""
    path = stop_path(run_id)
    data = settle(store, path, seal({"run_id": run_id, "host": host, "created": created}))
    return unseal(data, store.full_url(path))


def find_stop(store: ObjectStore, run_id: str) -> dict[str, Json] | None:
    """Who asked this run to stop; None where nobody did."""
    path = stop_path(run_id)
    try:
        return unseal(store.get(path), store.full_url(path))
    except ObjectMissing:
        return None
