"""Results: the finished statistics of a store: each gathered once, frozen, and used by every later run until `refit`.

A result is a small sealed object, created once under the digest of what was asked and of which rows; a refit makes the
next generation. What labels mean holds its digest.
"""

import re
from typing import Any

from relabel.digests import Json, digest, seal, unseal
from relabel.errors import RelabelError, StoreCorrupt
from relabel.labelers.failures import calling
from relabel.labelers.labeler import Labeler
from relabel.statistics.statistic import Statistic
from relabel.storage.objects import ObjectStore, settle
from relabel.storage.opening import open_store

from .job import Pass
from .store_config import StoreConfig

FOLDER = "statistics"
NAME = re.compile(r"g(\d{4,})\.json")
MOST_PASSES = 16
"""Of one labeler: one that asks for more never has enough."""


class Results:
    """What is known of statistics, by what was asked."""

    def __init__(self, config: StoreConfig, refit: bool = False) -> None:
        """`refit`: what the store has does not count, only what `put` adds."""
        self._config, self._refit = config, refit
        self._anew: set[str] = set()
        self._fresh: dict[str, tuple[str, Json]] = {}
        self._before: dict[str, int] = {}
        self._manifests: dict[str, str] = {}
        self.found: dict[str, tuple[Json, ...]] = {}
        """Label -> path, digest and counted rows of each result that `tell` gave it, in order."""

    @property
    def store(self) -> ObjectStore:
        return open_store(self._config.url, self._config.storage_options)

    def tell(self, labeler: Labeler[Any], index: int, selection: Json) -> Pass | None:
        """Give a labeler the results that it needs, as far as there are any; returns the first that is missing."""
        self.found.pop(labeler.label, None)
        self._manifests.pop(labeler.label, None)
        for _ in range(MOST_PASSES):
            with calling(type(labeler), "statistic"):
                statistic = labeler.statistic()
            if statistic is None:
                return None
            if not isinstance(statistic, Statistic):
                raise RelabelError(
                    f"{type(labeler).__name__}.statistic must give a relabel Statistic or None, got "
                    f"{type(statistic).__name__}. Mend the operator."
                )
            asked = [statistic.fingerprint(), labeler.fingerprint(), selection]
            wanted = Pass(index, labeler.label, statistic, digest(asked))
            refit = self._refits(labeler.label)
            found = self._fresh.get(wanted.fingerprint) or (None if refit else self._read(wanted.fingerprint))
            if found is None:
                self._before.setdefault(wanted.fingerprint, self._newest(wanted.fingerprint) if refit else -1)
                return wanted
            path, fields = found
            result, self._manifests[labeler.label] = fields["result"], str(fields["manifest"])
            labeler.finished = (*labeler.finished, result)
            named = {"name": statistic.name, "path": path, "sha256": digest(result), "seen": fields.get("seen")}
            self.found[labeler.label] = (*self.found.get(labeler.label, ()), named)
        raise RelabelError(f"{labeler.name} asked for {MOST_PASSES} statistics and wants more. Mend its `statistic`.")

    def begin_again(self, wanted: Pass, manifest: str) -> bool:
        """Whether the passes before this one saw other rows than those of `manifest`: all of them are made anew then.

        A run that was killed between two passes goes on when the source may have grown.
        """
        before = self._manifests.get(wanted.label, manifest)
        if before != manifest:
            self._anew.add(wanted.label)
        return before != manifest

    def _refits(self, label: str) -> bool:
        return self._refit or label in self._anew

    def put(self, wanted: Pass, result: Json, manifest: str, seen: Json = None) -> None:
        """Freeze a result; where another run was first, its result stands. `manifest` names the rows gathered, `seen`
        counts them, and those that there were beside them.
        """
        fields = {
            "format": 1,
            "statistic": wanted.statistic.name,
            "version": wanted.statistic.version,
            "fingerprint": wanted.fingerprint,
            "manifest": manifest,
            "seen": seen,
            "result": result,
        }
        data = seal(fields)
        newest = self._newest(wanted.fingerprint)
        refit = self._refits(wanted.label)
        number = newest + 1 if refit else max(0, newest)  # only a refit makes a next one
        held = settle(self.store, path := path_of(wanted.fingerprint, number), data)
        while refit and held != data:  # a listing that lags behind must not make a refit take what was there
            number += 1
            held = settle(self.store, path := path_of(wanted.fingerprint, number), data)
        self._fresh[wanted.fingerprint] = path, parse(held, self.store.full_url(path))

    def look_again(self, wanted: Pass) -> bool:
        """Whether another run has put this result since `tell` missed it: it stands then."""
        if self._newest(wanted.fingerprint) <= self._before.get(wanted.fingerprint, -1):
            return False
        found = self._read(wanted.fingerprint)
        if found is not None:
            self._fresh[wanted.fingerprint] = found
        return found is not None

    def _read(self, fingerprint: str) -> tuple[str, Json] | None:
        """Path and fields of the newest generation."""
        number = self._newest(fingerprint)
        if number < 0:
            return None
        path = path_of(fingerprint, number)
        return path, parse(self.store.get(path), self.store.full_url(path))

    def _newest(self, fingerprint: str) -> int:
        """The newest generation; -1 where there is none."""
        names = [info.path.rsplit("/", 1)[1] for info in self.store.list(folder_of(fingerprint))]
        return max((int(found[1]) for name in names if (found := NAME.fullmatch(name))), default=-1)


def folder_of(fingerprint: str) -> str:
    return f"{FOLDER}/{fingerprint[:32]}"


def path_of(fingerprint: str, generation: int) -> str:
    return f"{folder_of(fingerprint)}/g{generation:04d}.json"


def parse(data: bytes, url: str) -> Json:
    """`result` and `manifest`; raises StoreCorrupt where it is damaged."""
    fields = unseal(data, url)
    if not {"result", "manifest"} <= fields.keys():
        raise StoreCorrupt(f"{url} holds no result of a statistic.")
    return fields
