"""Labelling: the model actor. One part in, the same part out with one more label; a bad sample costs one sample.

Every call of the labeler has a multiple of `compute_batch` rows (the last one is padded by repeating its last row), so
that a sample's label depends neither on its neighbours nor on how many there are.
"""

import contextlib
import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from relabel.errors import BadSample, DeviceFailed, DeviceFull, RelabelError
from relabel.labelers.engines.spending import Spent
from relabel.labelers.failures import calling
from relabel.labelers.labeler import Batch, Labeler
from relabel.labelers.packing import unpack
from relabel.labels.shard_file import check_columns, column_values, label_columns
from relabel.reasons import Reason, Status

from .dead_letters import attempt
from .job import Job, own_module
from .ledger import Keeper, Ledger, Unit, Verdict
from .memory import CallSize, release_memory
from .parts import ROWS_SCHEMA, Header, cell, contents, empty_columns, from_ipc, to_ipc
from .same import repeats, sameness
from .stages import Stages
from .watchdog import Watchdog, leave


class Stage(ABC):
    """One labeler of a job on one device ("cpu", "cuda"); built once per actor.

    In a worker it has a watchdog, and where the device fails the process ends; elsewhere DeviceFailed is raised.
    """

    def __init__(
        self,
        job: Job,
        index: int,
        device: str,
        ledger: Keeper | None = None,
        watchdog: Watchdog | None = None,
        stages: Stages | None = None,
    ) -> None:
        """`stages`: of the actor that the stage is part of."""
        self.ledger, self.watchdog = ledger or Ledger(), watchdog
        self.stages = stages or device_stages(job.labelers[index].label)
        self.compute_batch = job.recipe.resources.compute_batch
        self.labeler = copy.copy(job.labelers[index])
        self.labeler.compute_batch = self.compute_batch
        self.labeler.threads = job.recipe.resources.threads
        self.refusal: RelabelError | None = None
        try:
            with calling(type(self.labeler), "load"):
                self.labeler.load(device)
                self.contract = self.labeler.writes()
                self.numerics = self.labeler.numerics()
        except RelabelError as error:
            self.refusal = error  # raised by the first call: of an actor that dies at birth Ray tells no cause

    def __call__(self, parts: pa.Table) -> pa.Table:
        """Labels every part (row) of the table."""
        return pa.concat_tables([self.label_part(parts.slice(row, 1)) for row in range(len(parts))])

    def label_part(self, part: pa.Table) -> pa.Table:
        """Raises what `load` refused."""
        if self.refusal is not None:
            raise self.refusal
        with self.stages.shared("infer"):
            header, labelled = self._label_part(part)
        header.usage.append(self.stages.take())
        return labelled.append_column("header", pa.array([header.to_json()], pa.string()))

    def _label_part(self, part: pa.Table) -> tuple[Header, pa.Table]:
        """The part's header, and the part without it."""
        label = self.labeler.label
        header = Header.from_json(part["header"][0].as_py())
        rows = from_ipc(contents(part["rows"]))
        prepared = rows.filter(rows["prepared"])
        alive = np.flatnonzero(pc.equal(prepared["status"], str(Status.OK)).to_numpy())
        batch = batch_of(self.labeler, part, alive, len(prepared))
        unit = (label, header.token, header.start)
        with self.guarded(unit) as verdict:
            found, failures = self.label_batch(batch, len(alive), unit, verdict)
            if header.check and repeats(self.labeler):
                keys = prepared["key"].take(pa.array(alive)).to_pylist()
                good = [place for place in range(len(alive)) if place not in failures]
                with self.stages.in_("check"):
                    header.found[label] = self.label_again(batch, found, keys, good, header.check)
        if failures:
            rows = with_failures(rows, {int(alive[place]): error for place, error in failures.items()})
        header.numerics[label] = self.numerics
        if spent := self.spent():
            header.spent[label] = spent
        return header, (
            part.drop_columns([f"prepared_{label}", "header", "rows"])
            .append_column("rows", cell(to_ipc(rows)))
            .append_column(f"labels_{label}", cell(to_ipc(spread(found, alive, len(prepared)))))
        )

    def label_again(
        self, batch: Batch, found: pa.Table, keys: Sequence[str], good: Sequence[int], count: int
    ) -> list[tuple[str, float]]:
        """Some of the `good` samples of the batch, each labelled alone: key, and how far that agrees with `found`."""
        told = []
        for place in good[:: max(1, len(good) // count)][:count]:
            [before], other = found.slice(place, 1).to_pylist(), self.alone(batch, place)
            same = not isinstance(other, BadSample) and sameness(self.contract, before, other.to_pylist()[0])
            told.append((keys[place], float(same)))
        return told

    @abstractmethod
    def alone(self, batch: Batch, place: int) -> pa.Table | BadSample:
        """One sample of the batch labelled by itself."""

    def close(self) -> None:
        """Let go of what `load` took, where the process goes on."""
        return

    def spent(self) -> Spent:
        """What was used since the last call."""
        return {}

    @abstractmethod
    def guarded(self, unit: Unit) -> contextlib.AbstractContextManager[Verdict]:
        """Work on one part, known to the ledger and the watchdog from its first call to its last."""

    @abstractmethod
    def label_batch(
        self, batch: Batch, count: int, unit: Unit, verdict: Verdict
    ) -> tuple[pa.Table, dict[int, BadSample]]:
        """One row of label columns per row of the batch (null where it failed), and the failures by position."""

    def assembled(self, good: Sequence[int], tables: Sequence[pa.Table], count: int) -> pa.Table:
        """The rows `good` of the batch, in this order in `tables`, as one row for each of `count`."""
        table = pa.concat_tables(tables) if tables else empty_columns(self.contract)
        return spread(table, good, count).combine_chunks()


class LabelStage(Stage):
    """A labeler that takes whole batches."""

    def __init__(
        self,
        job: Job,
        index: int,
        device: str,
        ledger: Keeper | None = None,
        watchdog: Watchdog | None = None,
        stages: Stages | None = None,
    ) -> None:
        super().__init__(job, index, device, ledger, watchdog, stages)
        self.size = CallSize(self.compute_batch, self.labeler.max_batches)
        self.done: Unit | None = None
        """The last part, where the ledger does not know yet that it is done: one call per part instead of two."""

    @contextlib.contextmanager
    def guarded(self, unit: Unit) -> Iterator[Verdict]:
        self.done, done = None, self.done
        verdict = self.ledger.begin(unit, done)
        verdict.require()
        try:
            with self.watchdog.watching(unit) if self.watchdog else contextlib.nullcontext():
                yield verdict
        except DeviceFull:
            raise
        except DeviceFailed as error:
            if self.watchdog is None:
                raise
            self.ledger.failing(unit, Reason.DEVICE_FAILED)
            leave(str(error))
        if verdict.careful:
            self.ledger.end(unit)  # at once: its last sample must not be blamed for what comes after it
        else:
            self.done = unit

    def label_batch(
        self, batch: Batch, count: int, unit: Unit, verdict: Verdict
    ) -> tuple[pa.Table, dict[int, BadSample]]:
        failures = verdict.letters()
        good: list[int] = []
        tables: list[pa.Table] = []
        for labelled, outcome in self.outcomes(batch, verdict.order(count), unit, verdict.careful):
            if isinstance(outcome, BadSample):
                failures[labelled[0]] = outcome
            else:
                good.extend(labelled)
                tables.append(outcome)
        return self.assembled(good, tables, count), failures

    def alone(self, batch: Batch, place: int) -> pa.Table | BadSample:
        return attempt(lambda: self.call(batch, range(place, place + 1)), own_module(self.labeler))

    def outcomes(
        self, batch: Batch, rest: list[int], unit: Unit, careful: bool
    ) -> Iterator[tuple[range, pa.Table | BadSample]]:
        """Labels these rows, which follow each other unless `careful`, in calls of as many as memory holds."""
        again = careful
        while rest:
            if careful:
                self.ledger.at(unit, rest[0])
            positions = range(rest[0], rest[0] + (1 if careful else min(self.size.rows, len(rest))))
            try:
                with self.stages.in_("retry") if again else contextlib.nullcontext():
                    found = list(self.label_rows(batch, positions))
            except DeviceFull as error:
                self.size.full(error)
                again = True
            else:
                self.size.fits()
                yield from found
                rest, again = rest[len(positions) :], careful
                continue
            release_memory()  # here, because the error holds what the call had made

    def label_rows(self, batch: Batch, positions: range) -> Iterator[tuple[range, pa.Table | BadSample]]:
        """Labels these rows by one call; where it raises, by halves, down to the rows that are to blame."""
        if self.watchdog:
            self.watchdog.beat()
        outcome = attempt(lambda: self.call(batch, positions), own_module(self.labeler))
        if isinstance(outcome, BadSample) and len(positions) > 1:
            middle = len(positions) // 2
            with self.stages.in_("retry"):
                yield from self.label_rows(batch, positions[:middle])
                yield from self.label_rows(batch, positions[middle:])
        else:
            yield positions, outcome

    def call(self, batch: Batch, positions: range) -> pa.Table:
        """One call of the labeler, padded to whole compute batches, its output checked against the contract."""
        padding = -len(positions) % self.compute_batch
        padded = {name: pad(values[positions.start : positions.stop], padding) for name, values in batch.items()}
        labels = self.labeler(padded)
        check_columns(self.contract, labels)
        return label_columns(self.contract, labels, len(positions) + padding).slice(0, len(positions))


def device_stages(label: str) -> Stages:
    """Of an actor that loads its labelers now. A model's own threads count, so the CPU seconds are the process's."""
    return Stages("device", "load", label, time.process_time)


def batch_of(labeler: Labeler[Any], part: pa.Table, alive: np.ndarray, count: int) -> Batch:
    """What the labeler prepared, and the labels that it reads, of the rows that have a label so far."""
    batch = dict(unpack(contents(part[f"prepared_{labeler.label}"])))
    whole = len(alive) == count
    if not whole:
        batch = {name: chosen(values, alive) for name, values in batch.items()}
    for name, contract in labeler.inputs.items():
        labels = from_ipc(contents(part[f"labels_{name}"]))
        labels = labels if whole else labels.take(pa.array(alive))
        batch.update({column.name: column_values(labels, column) for column in contract.columns})
    return batch


def spread(table: pa.Table, places: Sequence[int] | np.ndarray, count: int) -> pa.Table:
    """Row i of `table` at `places[i]` of `count` rows; the others are null."""
    if np.array_equal(places, np.arange(count)):
        return table
    row_of = {int(place): row for row, place in enumerate(places)}
    return table.take(pa.array([row_of.get(place) for place in range(count)], pa.int64()))


def chosen(values: np.ndarray | Sequence[Any], rows: np.ndarray) -> np.ndarray | Sequence[Any]:
    """Some rows of a batch's field, in order; they may not be written to."""
    if not isinstance(values, np.ndarray):
        return [values[row] for row in rows]
    picked: np.ndarray = values[rows]
    picked.flags.writeable = False
    return picked


def pad(values: np.ndarray | Sequence[Any], count: int) -> np.ndarray | Sequence[Any]:
    """`values` with its last row repeated `count` more times."""
    if not count:
        return values
    if isinstance(values, np.ndarray):
        padded = np.concatenate([values, np.repeat(values[-1:], count, axis=0)])
        padded.flags.writeable = False  # as rows that were not padded are
        return padded
    return [*values, *[values[-1]] * count]


def with_failures(rows: pa.Table, failures: dict[int, BadSample]) -> pa.Table:
    """`rows` with the failed samples marked dead; positions count the prepared rows."""
    cells = rows.to_pylist()
    prepared = [cell for cell in cells if cell["prepared"]]
    for position, error in failures.items():
        prepared[position].update(status=str(Status.DEAD), reason=error.reason, detail=error.detail)
    return pa.Table.from_pylist(cells, ROWS_SCHEMA)
