"""Recalls: releases that nobody should use any more, and why; `latest` passes over them.

`recalls/v%010d.json` is created once: a recall is never taken back, and its first reason stands.
"""

from ..errors import ObjectMissing, UsageError
from ..storage.objects import ObjectStore
from . import notices
from .versions import version_digest

FOLDER = "recalls"


def recall_path(number: int) -> str:
    return f"{FOLDER}/v{number:010d}.json"


def write_recall(store: ObjectStore, number: int, reason: str) -> str:
    """Recall a version; returns the reason that stands, which is an earlier one where it was recalled already."""
    if not reason.strip():
        raise UsageError("a recall needs a reason: it is what everybody who uses the release will read.")
    fields = {"version": number, "version_sha256": version_digest(store, number), "reason": reason.strip()}
    return str(notices.post(store, recall_path(number), fields)["reason"])


def find_recall(store: ObjectStore, number: int) -> str | None:
    """Why a version is recalled, or None where it is not."""
    try:
        return str(notices.read(store, recall_path(number))["reason"])
    except ObjectMissing:
        return None


def read_recalls(store: ObjectStore) -> dict[int, str]:
    """Every recalled version and why."""
    return {int(fields["version"]): str(fields["reason"]) for fields in notices.read_all(store, FOLDER).values()}
