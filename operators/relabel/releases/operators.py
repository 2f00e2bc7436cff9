"""Operators: which source each version of an operator of your own had when it first labelled into this store.

`operators/<name>-v<version>.json` is created once, before the first label is written: labels of two sources never carry
one version, whatever became of the run.
"""

from collections.abc import Mapping

from ..digests import Json, seal, unseal
from ..errors import ObjectMissing, Refused
from ..storage.objects import ObjectStore, settle
from .versions import Version


def record_path(name: str, version: int) -> str:
    return f"operators/{name}-v{version}.json"


def require_source(store: ObjectStore, name: str, version: int, source: Json, parent: Version | None = None) -> None:
    """Raises Refused, naming the files, where this version of the operator stands for another source already.

    The record tells; where it is gone, the latest release (`parent`).
    """
    path = record_path(name, version)
    try:
        held = unseal(store.get(path), store.full_url(path))["source"]
    except ObjectMissing:
        held = _released(parent, name, version)
    if held is not None:
        _compare(store, name, version, held, source)


def claim_source(store: ObjectStore, name: str, version: int, source: Json) -> None:
    """Record that this version of the operator stands for this source; raises Refused where it stands for another."""
    path = record_path(name, version)
    won = settle(store, path, seal({"operator": name, "version": version, "source": source}))
    _compare(store, name, version, unseal(won, store.full_url(path))["source"], source)


def _released(parent: Version | None, name: str, version: int) -> Json:
    for label in parent.labels.values() if parent else ():
        if (label.operator, label.version) == (name, version):
            return label.identity.get("source")
    return None


def _compare(store: ObjectStore, name: str, version: int, held: Json, source: Json) -> None:
    if held["digest"] != source["digest"]:
        changed = "; ".join(changed_files(held["files"], source["files"]))
        raise Refused(
            f"{name} version {version} is not what it was when it first labelled into {store.url}: {changed}. Set "
            f"`version = {version + 1}` in its class (its labels are then made anew), or bring the old source back."
        )


def changed_files(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """`brightness/model.py was edited`, one entry per file that differs."""
    verbs = {(True, True): "was edited", (True, False): "is gone", (False, True): "is new"}
    differing = sorted(file for file in before.keys() | after.keys() if before.get(file) != after.get(file))
    return [f"{file} {verbs[file in before, file in after]}" for file in differing]
