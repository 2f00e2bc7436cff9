"""Dataset: media beside the labels of a release, exactly once an epoch over all workers of all ranks.

The order is a function of (seed, epoch) and of how many streams there are; a state says how far it went, and goes on
with as many streams or others.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import Refused, UsageError
from .dealing import Deal, Stage, after_batches, left_after, stream_of
from .joining import Held, Joiner
from .media import Media, Paths, media_of
from .options import Options
from .plan import Plan, make_plan, segments
from .positions import Positions
from .ranks import place, worker
from .samples import Maker, Transforms
from .state import State, read_state
from .tally import JoinWarning, Report, Tally, report_of, shared_zeros
from .wanted import Wanted


class Labelled:
    """What both kinds of dataset hold: releases, media, the plan of what is given out."""

    def __init__(self, wanted: Wanted, source: Paths, transform: Transforms, options: Options) -> None:
        wanted.check_recall()
        self.wanted, self.options = wanted, options
        self.media: Media = media_of(wanted.main, source, options.storage_options)
        self._tally = Tally()
        self._joiner = Joiner(wanted, self.media, options, self._tally)
        digest = wanted.main.release.content_digest
        self._maker = Maker(wanted.contracts, self.media, transform, options, digest, wanted.fingerprints)
        self._shards = self._match()
        self.plan: Plan = make_plan(wanted, self._shards["read"], options.on_missing)
        self._epoch = shared_zeros((1,))
        self._check()

    @property
    def epoch(self) -> int:
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration gives; also seen by persistent workers, where torch is there."""
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise UsageError(f"epoch must be a whole number of at least 0, got {epoch!r}.")
        self._epoch[0] = epoch

    def report(self) -> Report:
        """What was delivered and what was not, in all passes and workers so far."""
        totals = self._tally.totals()
        totals["unlabelled"] += self.plan.unlabelled
        totals["withdrawn"] += self.plan.taken_out
        missing, extra, dead = (tuple(self._shards[name]) for name in ("missing", "extra", "dead"))
        return dataclasses.replace(report_of(totals), missing_shards=missing, extra_shards=extra, dead_shards=dead)

    def _match(self) -> dict[str, list[str]]:
        """Shards of the release: `read`, `missing` in the source, `dead`; and `extra` ones of the source."""
        entries = self.wanted.main.release.entries
        there = self.media.shards
        alive = [name for name, entry in entries.items() if entry.data is not None]
        return {
            "read": [name for name in alive if name in there],
            "missing": [name for name in alive if name not in there],
            "dead": [name for name, entry in entries.items() if entry.data is None],
            "extra": [name for name in there if name not in entries],
        }

    def _check(self) -> None:
        options, found = self.options, self._shards
        root, number = self.media.source.root, self.wanted.main.release.number
        if not found["read"]:
            first = min(self.wanted.main.release.shards, default="none")
            raise UsageError(
                f"no shard of release {number} lies in {root}: the release has {first!r}, the source "
                f"{min(self.media.shards, default='none')!r}. Shards are named by their path below the source's root: "
                "give the folder or pattern that stands for the root of the labelled source."
            )
        if not len(self.plan):
            raise UsageError(
                f"release {number} gives out no sample of {root}: {self.plan.unlabelled} have no label, "
                f"{self.plan.taken_out} were withdrawn."
            )
        told = []
        for name, policy, what in (
            ("missing", options.on_missing, f"shards of release {number} are not in {root}"),
            ("extra", options.on_extra, f"shards of {root} are not in release {number}"),
            ("dead", "skip", f"shards of {root} have no labels in release {number}, for they could not be read"),
        ):
            if found[name]:
                shown = f"{len(found[name])} {what} (first: {found[name][0]!r})"
                if policy == "error":
                    raise Refused(f"{shown}. on_{name}='skip' leaves them out and reports them.")
                told.append(shown)
        if options.on_missing == "error" and self.plan.unlabelled:
            raise Refused(
                f"{self.plan.unlabelled} samples of release {number} have no label (release.dead_letters() says why of "
                "dead ones). on_missing='skip' leaves them out, 'none' gives them with None."
            )
        if told:
            warnings.warn("; ".join(told) + ". See dataset.report().", JoinWarning, stacklevel=5)
        for name in found["read"]:
            if options.check == "shard":
                self._joiner.identity.trusts(self.media.shards[name])


class Samples(Labelled):
    """Iterate it, or give it to a DataLoader with any number of workers."""

    def __init__(self, wanted: Wanted, source: Paths, transform: Transforms, options: Options) -> None:
        super().__init__(wanted, source, transform, options)
        self._resume: State | None = None
        self._now: State | None = None
        """Where this process's iteration began."""
        self._given = 0
        """What its stream gave of its stage."""
        self._place: tuple[int, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is spawned knows nothing of torch.distributed.
        return {**self.__dict__, "_place": self._place or place(self.options), "_now": None}

    def __len__(self) -> int:
        """Samples that the next iteration gives on this rank: of the epoch, or of what is left of it."""
        rank, world = self._rank()
        resume = self._current_resume()
        count = len(self._left(resume.stages, resume.epoch)) if resume else len(self.plan)
        start, stop = self._deal(world, 1).rank_span(count, rank)
        return stop - start

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration gives; a state of another epoch is forgotten."""
        super().set_epoch(epoch)
        if self._resume is not None and self._resume.epoch != epoch:
            self._resume = None

    def __iter__(self) -> Iterator[Any]:
        # Not a generator: a state that was loaded is used up here, whether the first sample is asked for or not.
        number, workers = worker()
        rank, world = self._rank()
        self.wanted.check_recall()
        deal = self._deal(world, workers)
        stages, stage, turn = self._go_on(deal)
        if not stages and len(self.plan) < world and deal.remainder == "drop":
            raise UsageError(
                f"{len(self.plan)} samples do not go round {world} ranks, and remainder='drop' would drop them all: "
                "use remainder='pad' or fewer ranks."
            )
        self._resume = None
        stream = rank * workers + (number + turn) % workers
        self._now = State(self._identity, self.epoch, (*stages, stage), turn, stream)
        self._given = stage.given[stream]
        self._tally.begin(number)
        return self._give(self._now, stream)

    def state_dict(
        self, batches: int | None = None, batch_size: int | None = None, num_workers: int = 0, drop_last: bool = False
    ) -> dict[str, Any]:
        """How far the epoch went, as JSON.

        Where this very object is iterated (no workers, or inside one) nothing is given. Of a plain DataLoader with
        workers, ask the object that the loader was made with, and say how many batches were taken from the loader, how
        large a batch is and how many workers there are: all ranks are then taken to be equally far.
        """
        if batches is None:
            return self._here().to_json()
        if batch_size is None or batch_size < 1 or batches < 0 or num_workers < 0:
            raise UsageError("give batches >= 0 with batch_size >= 1 and num_workers >= 0, as the DataLoader has them.")
        _, world = self._rank()
        workers = max(1, num_workers)
        deal = self._deal(world, workers)
        stages, stage, turn = self._go_on(deal)
        left = len(self._left(stages, self.epoch))
        given = list(stage.given)
        turned = turn
        for rank in range(world):
            order = [rank * workers + (number + turn) % workers for number in range(workers)]
            spans = {stream: deal.span(left, stream) for stream in order}
            sizes = [spans[stream][1] - spans[stream][0] - given[stream] for stream in order]
            taken, then = after_batches(sizes, batches, batch_size, drop_last)
            turned = (turn + then) % workers
            for stream, count in zip(order, taken, strict=True):
                given[stream] += count
        return State(self._identity, self.epoch, (*stages, Stage(deal, tuple(given))), turned).to_json()

    def load_state_dict(self, state: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """The next iteration goes on where `state_dict` was asked, and is of that epoch.

        With as many ranks and workers it gives exactly what would have come. With others what is left is dealt anew,
        for which a state of all streams is needed: that of a plain DataLoader (see `state_dict`), or a list of the
        streams' states (of one rank where training is in step, else of all). Raises UsageError and Refused as
        `read_state` does.
        """
        found = read_state(state, self._identity)
        super().set_epoch(found.epoch)
        self._resume, self._now = found, None

    @property
    def _identity(self) -> dict[str, Any]:
        options = self.options
        return {**self.wanted.identity, "plan": self.plan.digest, "seed": options.seed, "shuffle": options.shuffle}

    def _rank(self) -> tuple[int, int]:
        return self._place or place(self.options)

    def _deal(self, world: int, workers: int) -> Deal:
        return Deal(world, workers, self.options.remainder, self.options.batch_size)

    def _buffer(self) -> int:
        return max(1, self.options.shuffle)

    def _left(self, stages: Sequence[Stage], epoch: int) -> Positions:
        return left_after(len(self.plan), stages, self._buffer(), (self.options.seed, epoch))

    def _current_resume(self) -> State | None:
        return self._resume if self._resume is not None and self._resume.epoch == self.epoch else None

    def _here(self) -> State:
        now = self._now
        if now is None or now.stream is None:
            return self._current_resume() or State(self._identity, self.epoch, ())
        *before, stage = now.stages
        given = (*stage.given[: now.stream], self._given, *stage.given[now.stream + 1 :])
        return dataclasses.replace(now, stages=(*before, Stage(stage.deal, given)))

    def _go_on(self, deal: Deal) -> tuple[tuple[Stage, ...], Stage, int]:
        """Stages that ended, the one to go on with, and the worker whose turn it is."""
        resume = self._current_resume()
        if resume is None or not resume.stages:
            return (), Stage(deal, (0,) * deal.streams), 0
        last = resume.stages[-1]
        if last.deal == deal:
            return resume.stages[:-1], last, resume.turn
        if resume.stream is not None:
            raise UsageError(
                f"this state is that of stream {resume.stream} of {last.deal.streams} alone, and now there are "
                f"{deal.streams}: give load_state_dict a list of the states of all streams."
            )
        return resume.stages, Stage(deal, (0,) * deal.streams), 0

    def _give(self, began: State, number: int) -> Iterator[Any]:
        *before, stage = began.stages
        plan, epoch, options = self.plan, began.epoch, self.options
        left = self._left(before, epoch)
        stream = stream_of(left, stage, number, self._buffer(), (options.seed, epoch), len(before))
        order = plan.order(options.seed, epoch, options.shuffle > 0)
        found = self._joiner.read(plan, segments(stream.reading(), order, plan.counts))
        held: dict[int, Held | None] = {}
        shard, seed = "", self._maker.seeds(epoch, "")
        delivered = 0
        try:
            for item in stream.shuffle:
                while item not in held:
                    at, sample = next(found)
                    held[at] = sample
                sample = held.pop(item)
                if self._now is began:
                    self._given += 1
                if sample is None:
                    continue
                rows, row, raw = sample
                if rows.shard != shard:
                    shard, seed = rows.shard, self._maker.seeds(epoch, rows.shard)
                delivered += 1
                yield self._maker.make(rows, row, raw, seed)
            for _ in found:  # the last shard to its end
                raise AssertionError("a row was read that is in no stream")
        finally:
            found.close()
            self._tally.add("delivered", delivered)
        self._tally.warn(f"epoch {epoch} of release {self.wanted.main.release.number}")
