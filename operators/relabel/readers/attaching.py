"""Attaching: labels for the samples of a webdataset pipeline, in whatever order they come.

The label rows of a shard stand in the shard's order, so that a sample's row is nearly always the next one; where it is
not, it is looked up by key. Label shards of the shards that came last stay open.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import Refused, UsageError
from ..releases.release import Release
from ..shards.listing import look_local, look_remote
from ..shards.shard import Sample, Shard
from ..shards.source import SourceConfig
from ..storage.filesystems import is_local
from .identity import Identity
from .label_rows import JoinedRows
from .options import Options, options_of
from .ranks import worker
from .samples import Transforms, transforms_of
from .tally import Report, Tally, report_of
from .wanted import Columns, Wanted, source_config, wanted

OPTIONS = ("on_missing", "on_extra", "on_mismatch", "check", "storage_options")
Nothing = Literal["unknown", "dead"]
"""Why a shard has no labels: the release does not know it, or it could not be labelled."""
OPEN_SHARDS = 8
"""Whose labels stay in memory: a pipeline that shuffles mixes a few."""


def attach(
    release: Release, pipeline: Iterable[Any], columns: Columns, transform: Transforms, given: Mapping[str, Any]
) -> Any:
    """See `opening.Release.attach`."""
    stage = Attached(wanted(release, columns), transform, options_of(given, OPTIONS))
    compose: Any = getattr(pipeline, "compose", None)
    if callable(compose):
        made: Any = compose(stage)
        made.report = stage.report
        return made
    return Stream(pipeline, stage)


class Stream:
    """Any iterable of samples, with labels."""

    def __init__(self, samples: Iterable[Any], stage: "Attached") -> None:
        self._samples, self._stage = samples, stage
        self.report: Callable[[], Report] = stage.report

    def __iter__(self) -> Iterator[Any]:
        return self._stage(self._samples)


class Open:
    """The labels of one shard."""

    def __init__(self, rows: JoinedRows, digests: bool) -> None:
        self.rows, self.digests = rows, digests
        self.next = 0

    def row(self, key: str) -> int | None:
        """The next row where it has the key, else the one that has it."""
        row: int | None = self.next
        if self.next >= len(self.rows.keys) or self.rows.keys[self.next] != key:
            row = self.rows.main.rows.get(key)
        if row is not None:
            self.next = row + 1
        return row


class Pass:
    """One pass of a pipeline: labels of the shards that came last, and of all shards which samples came."""

    def __init__(self) -> None:
        self.shards: OrderedDict[str, Open | Nothing] = OrderedDict()
        self.labelled: dict[str, np.ndarray] = {}
        """URL -> which rows have labels."""
        self.seen: dict[str, np.ndarray] = {}
        """URL -> rows of which one has."""


class Attached:
    """A stage of a pipeline: samples in, the same ones with labels out. Picklable."""

    def __init__(self, wanted: Wanted, transform: Transforms, options: Options) -> None:
        wanted.check_recall()
        self._wanted, self._options, self._tally = wanted, options, Tally()
        self._transforms = transforms_of(transform)
        for each in self._transforms:
            check = getattr(each, "check", None)
            if callable(check):
                check(wanted.contracts)
        config = source_config(wanted.main.base) or SourceConfig.model_validate("unknown.tar")
        self._identity = Identity(wanted, config, options.check)
        self._storage = config.storage_options if options.storage_options is None else dict(options.storage_options)

    def report(self) -> Report:
        """What was delivered and what was not, in all passes and workers so far."""
        return report_of(self._tally.totals())

    def __call__(self, samples: Iterable[Any]) -> Iterator[Any]:
        """Samples with labels; what is left out is counted, and told at the end of a pass."""
        self._wanted.check_recall()
        self._tally.begin(worker()[0])
        done = Pass()
        for sample in samples:
            key, url = require_sample(sample)
            shard = done.shards.get(url)
            if shard is None:
                shard = self._begin(done, url)
            if not isinstance(shard, Open):
                self._none(shard, url)
            elif (labels := self._labels(shard, done.seen[url], key, sample)) is not None:
                yield self._finish(sample, labels)
        for url, labelled in done.labelled.items():
            self._count_unseen(url, labelled & ~done.seen[url])
        self._tally.warn(f"release {self._wanted.main.release.number}")

    def _begin(self, done: Pass, url: str) -> Open | Nothing:
        shard = done.shards[url] = self._open(url)
        if len(done.shards) > OPEN_SHARDS:
            done.shards.popitem(last=False)
        if isinstance(shard, Open) and url not in done.seen:
            done.labelled[url] = shard.rows.ok
            done.seen[url] = np.zeros(len(shard.rows.keys), np.bool_)
        return shard

    def _finish(self, sample: dict[str, Any], labels: dict[str, Any]) -> Any:
        if not labels.keys().isdisjoint(sample):
            twice = min(labels.keys() & sample.keys())
            raise UsageError(f"{twice!r} names a label and a field; use columns={{'new_{twice}': {twice!r}}}.")
        result: Any = {**sample, **labels}
        for transform in self._transforms:
            result = transform(result)
        self._tally.add("delivered")
        return result

    def _none(self, why: Nothing, url: str) -> None:
        """A sample of a shard of which there are no labels."""
        if why == "unknown":
            self._extra(f"shard {url} is not in release {self._wanted.main.release.number}")
        else:
            self._tally.add("unlabelled")

    def _labels(self, shard: Open, seen: np.ndarray, key: str, sample: Mapping[str, Any]) -> dict[str, Any] | None:
        """None where the sample is left out."""
        rows, row = shard.rows, shard.row(key)
        if row is None:
            self._extra(f"sample {key!r} of {rows.shard!r} is not in release {self._wanted.main.release.number}")
            return None
        if seen[row] and shard.digests:
            self._tally.add("duplicate")
        seen[row] = True
        if rows.withdrawn[row]:
            self._tally.add("withdrawn")
            return None
        if shard.digests and (fault := self._fault(rows, row, key, sample)) is not None:
            self._tally.add("mismatched")
            if self._options.on_mismatch == "error":
                raise Refused(f"{fault}. Label the source again; on_mismatch='skip' leaves such samples out.")
            return None
        if not rows.ok[row] and self._options.on_missing != "none":
            self._tally.add("unlabelled")
            if self._options.on_missing == "error":
                raise Refused(f"sample {key!r} of {rows.shard!r} has no label. on_missing='skip' leaves it out.")
            return None
        return rows.labels(row)

    def _fault(self, rows: JoinedRows, row: int, key: str, sample: Mapping[str, Any]) -> str | None:
        raw = {name: value for name, value in sample.items() if isinstance(value, bytes | str) and name[:2] != "__"}
        if not raw:
            raise UsageError(
                f"sample {key!r} has no encoded fields left to compare with what was labelled: attach labels before "
                "decoding, or use check='none'."
            )
        return self._identity.fault(rows, row, Sample(key, row, raw))

    def _extra(self, what: str) -> None:
        self._tally.add("extra")
        if self._options.on_extra == "error":
            raise Refused(f"{what}. on_extra='skip' leaves such samples out and counts them.")

    def _count_unseen(self, url: str, unseen: np.ndarray) -> None:
        """Labelled rows of which no sample came, of a shard of which some did."""
        if unseen.any():
            self._tally.add("missing", int(unseen.sum()))
            if self._options.on_missing == "error":
                raise Refused(
                    f"{int(unseen.sum())} labelled samples of {url} did not come, the first is that of row "
                    f"{int(np.flatnonzero(unseen)[0])}."
                )

    def _open(self, url: str) -> Open | Nothing:
        name = self._name_of(url)
        if name is None:
            return "unknown"
        if self._wanted.main.release.entries[name].data is None:
            return "dead"
        shard = self._look(name, url)
        trusted = shard is not None and self._identity.trusts(shard)
        if shard is None and self._options.check == "shard":
            raise Refused(f"{url}: its size and version cannot be asked for; use check='digest'.")
        return Open(JoinedRows(self._wanted, name), self._identity.needs_digests(trusted))

    def _name_of(self, url: str) -> str | None:
        """The shard that a URL means: the longest name that it ends with."""
        path = url.rstrip("/").replace("\\", "/")
        parts = path.split("/")
        entries = self._wanted.main.release.entries
        candidates = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((name for name in candidates if name in entries), None)

    def _look(self, name: str, url: str) -> Shard | None:
        """The shard as it lies there; None where that cannot be asked."""
        if url.startswith("pipe:") or url == "-":
            return None
        if is_local(url):
            path = str(Path(url.removeprefix("file://").removeprefix("file:")).expanduser().resolve())
            found = look_local([path])
        elif url.startswith(("http://", "https://")):
            return None
        else:
            found = look_remote([url], self._storage)
        return next((Shard(name, url, *state) for state in found.values()), None)


def require_sample(sample: Any) -> tuple[str, str]:
    """Key and URL; raises UsageError where a sample has none."""
    if isinstance(sample, dict) and isinstance(sample.get("__key__"), str) and isinstance(sample.get("__url__"), str):
        return sample["__key__"], sample["__url__"]
    got = sorted(sample) if isinstance(sample, dict) else type(sample).__name__
    raise UsageError(
        f"labels attach to dicts with `__key__` and `__url__`, as webdataset's tar stages give; got {got}. Attach them "
        "before samples become tuples."
    )
