"""Check: the rules that a labeler must keep so that a run may trust it, each tried on samples of yours.

A rule that is broken raises RuleBroken, an AssertionError that says what happened and what to do.
"""

import copy
import dataclasses
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from ..digests import Json, canonical_json
from ..errors import BadSample
from ..labelers.engine_labeler import EngineLabeler
from ..labelers.failures import described
from ..labelers.labeler import Batch, Fields, Labeler, Prepared
from ..labelers.packing import pack, unpack
from ..labelers.provenance import root_module
from ..labelers.registry import check_declaration
from ..labels.class_map import ClassMap
from ..labels.contract import LabelContract
from ..labels.shard_file import label_columns
from ..reasons import Reason
from ..releases.contents import VALUE_CHECKS
from ..shards.shard import Value

OTHER_LABEL = "another_name"
GARBAGE: tuple[Value, ...] = (b"", b"\0" * 64, b"\xff\xfe no image, no UTF-8", "text, no bytes")
TOLERANCE = 1e-2
"""Relative and absolute: how far numbers may move with another compute batch."""
TOLD = ("inputs", "input_names", "read_fingerprints", "read_origins", "finished")
"""What a labeler is told by whoever built it, besides its facts."""
CHILD = """
import pickle, sys
cls, parameters, label, told = pickle.load(sys.stdin.buffer)
labeler = cls(cls.Parameters.model_validate_json(parameters), label)
labeler.__dict__.update(told)
print(labeler.fingerprint())
"""


class RuleBroken(AssertionError):
    """A labeler does not keep a rule; the message teaches it."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is checked, and on what."""

    labeler: Labeler[Any]
    """With its facts, without weights; never loaded."""
    samples: Sequence[Fields]
    device: str
    opened: list[Labeler[Any]] = dataclasses.field(default_factory=list)
    """What was loaded so far."""

    @property
    def cls(self) -> type[Labeler[Any]]:
        return type(self.labeler)

    def rebuilt(self, label: str = "") -> Labeler[Any]:
        """Built anew from JSON, as another process does it."""
        parameters = self.cls.Parameters.model_validate_json(self.labeler.parameters.model_dump_json())
        made = self.cls(parameters, label or self.labeler.label)
        for name in TOLD:
            setattr(made, name, getattr(self.labeler, name))
        return with_facts(made, self.labeler.facts)

    def loaded(self, compute_batch: int = 0) -> Labeler[Any]:
        """A copy with its weights, as an actor makes it."""
        made = copy.copy(self.labeler)
        made.compute_batch = compute_batch or made.compute_batch
        with explained(f"load({self.device!r}) must put the weights on the device.", of=self.cls):
            made.load(self.device)
        self.opened.append(made)
        return made

    def close(self) -> None:
        """Lets go of every engine that was opened."""
        for made in self.opened:
            if isinstance(made, EngineLabeler):
                made.close()

    def read_columns(self, sample: Fields) -> Prepared:
        """What a sample has of the labels that the labeler reads, as its batch has it."""
        columns = [column.name for contract in self.labeler.inputs.values() for column in contract.columns]
        return {name: np.array(sample[name]) for name in columns if name in sample}


def check_labeler(
    labeler: Labeler[Any], samples: Sequence[Mapping[str, Value]], *, compute_batch: int = 4, device: str = "cpu"
) -> None:
    """Prove that a labeler keeps the rules, or raise RuleBroken (an AssertionError) for the first that it breaks.

    `labeler` is built from its parameters and not loaded; `samples` are at least three good ones that differ, each a
    mapping of every field in `needs` (and some in `wants`) to its raw value (an encoded image as bytes), and of the
    columns of `inputs` that it uses, where it `reads` other labels. A labeler that asks an engine is checked alike;
    where its contract says that answers cannot be repeated, nothing is compared with itself. All rules: the class
    declares itself; parameters and facts survive JSON; the contract stands without weights, under any label name; the
    labeler travels by pickle; its fingerprint is the same in every process; `prepare` is repeatable and reads only
    what it `needs` and `wants`; `__call__` gives the columns, dtypes and shapes of the contract, one row per sample in
    order, each bit independent of the other rows, repeatable, and close under another compute batch; what cannot be
    labelled is a BadSample.
    """
    require(len(samples) >= 3, f"give check_labeler at least three samples that differ, got {len(samples)}.")
    with explained("The class must declare what it is."):
        check_declaration(type(labeler))
    fresh = copy.copy(labeler)
    fresh.compute_batch = compute_batch
    subject = Subject(check_facts(fresh), [dict(sample) for sample in samples], device)
    check_parameters(subject)
    check_contract(subject)
    check_travels(subject)
    prepared = [check_prepare(subject, sample) for sample in subject.samples]
    require(
        len({frozenset(one) for one in prepared}) == 1,
        f"prepare() must give arrays of the same names for every sample, got {[sorted(one) for one in prepared]}.",
    )
    batch = [{**one, **subject.read_columns(of)} for one, of in zip(prepared, subject.samples, strict=True)]
    try:
        loaded = subject.loaded()
        whole = check_labels(subject, loaded, batch)
        if loaded.writes().reproducible is not False:
            check_repeats(subject, loaded, batch, whole)
            check_rows(loaded, batch, whole)
            check_other_batch(subject, batch, whole)
        check_bad_samples(subject, loaded)
    finally:
        subject.close()
    check_fingerprint(subject)


def check_facts(labeler: Labeler[Any]) -> Labeler[Any]:
    """The labeler with its facts; a lock file must be able to keep them."""
    with explained("inspect() must find the facts of the weights.", of=type(labeler)):
        facts = labeler.facts or labeler.inspect()
        again = labeler.inspect()
    with explained(
        "The facts of inspect() must be JSON: text, numbers, true, false, null, lists and objects of those."
    ):
        kept = json.loads(canonical_json(facts))
    require(kept == facts, f"facts are kept as JSON, which gives {kept} back for {facts}: use lists, and text as keys.")
    require(again == facts, f"inspect() must find the same facts every time, got {facts} and then {again}.")
    return with_facts(labeler, facts)


def check_parameters(subject: Subject) -> None:
    parameters = subject.labeler.parameters
    with explained("Parameters must survive JSON: use text, numbers, booleans, tuples and models of those."):
        again = type(parameters).model_validate_json(parameters.model_dump_json())
    require(again == parameters, f"parameters must come back from JSON as they were, got {again!r} for {parameters!r}.")
    for field in type(parameters).model_fields:
        try:
            setattr(parameters, field, getattr(parameters, field))
        except ValidationError:
            continue
        raise RuleBroken(f"parameters must be frozen, and {field!r} can be set: derive them from relabel.Parameters.")


def check_contract(subject: Subject) -> None:
    """`writes` on a labeler without weights, under its own name and another."""
    with explained("writes() must give the contract from parameters and facts alone, before load().", of=subject.cls):
        contract, again = subject.rebuilt().writes(), subject.rebuilt().writes()
        renamed = subject.rebuilt(OTHER_LABEL).writes()
    require(
        isinstance(contract, LabelContract),
        f"writes() must return a LabelContract (scores(...), classes(...) and text(...) make one), got {contract!r}.",
    )
    require(contract == again, f"writes() must give the same contract every time, got {contract} and {again}.")
    check_columns(contract, subject.labeler.label)
    check_columns(renamed, OTHER_LABEL)
    require(
        subject.rebuilt(OTHER_LABEL).identity() == subject.rebuilt().identity(),
        "identity() must not depend on the label's name: leave self.label out of it.",
    )
    names = tuple(subject.labeler.class_names())
    if names and contract.classes is not None:
        require(
            ClassMap(names).declare() == contract.classes,
            f"class_names() must be the classes that the contract declares, in order, got {len(names)} other ones.",
        )


def check_columns(contract: LabelContract, label: str) -> None:
    """The names of a contract follow the label, and its columns can be written."""
    advice = "Use self.label and not self.name in writes(): recipes rename labels by `as:`."
    require(
        contract.name == label, f"the contract's name must be the label's, {label!r}, got {contract.name!r}. {advice}"
    )
    require(len(contract.columns) > 0, f"the contract of {label!r} has no columns.")
    for column in contract.columns:
        require(
            column.name.startswith(f"{label}_"),
            f"the columns of {label!r} must begin with {label + '_'!r}, got {column.name!r}. {advice}",
        )
        require(
            len(column.axes) == len(column.shape),
            f"column {column.name!r} must name one axis per dimension, got axes {column.axes} for {column.shape}.",
        )
        with explained(f"Column {column.name!r} must have a dtype that label shards know, got {column.dtype!r}."):
            column.arrow_type()


def check_travels(subject: Subject) -> None:
    """By pickle, before weights are loaded."""
    rule = (
        "A labeler travels to actors by pickle before load(): define the class at the top of a module, and keep open "
        "files, locks, lambdas and models out of __init__ (load() is their place)."
    )
    with explained(rule):
        again = pickle.loads(pickle.dumps(subject.labeler))  # noqa: S301  our own bytes
    require(again.fingerprint() == subject.labeler.fingerprint(), f"its fingerprint changes on the way. {rule}")


def check_fingerprint(subject: Subject) -> None:
    """The same when built anew, here and in two other processes whose sets have other orders."""
    with explained("fingerprint() must follow from parameters and facts alone."):
        here = subject.labeler.fingerprint()
    labeler = subject.labeler
    told = {name: getattr(labeler, name) for name in ("facts", *TOLD)}
    content = pickle.dumps((subject.cls, labeler.parameters.model_dump_json(), labeler.label, told))
    children = [start_child(subject.cls, seed) for seed in ("1", "2")]
    answers = [child.communicate(content) for child in children]
    for child, (out, error) in zip(children, answers, strict=True):
        last = (error.decode().strip().splitlines() or [""])[-1]
        require(
            child.returncode == 0,
            f"another process cannot build the labeler ({last}). Put its class at the top of a module that can be "
            "imported, not into a script or a function.",
        )
        require(
            out.decode().strip() == here,
            "its fingerprint differs from process to process: identity(), writes() and inspect() must not depend on "
            "time, random numbers, id(), the order of a set or the machine.",
        )


def start_child(cls: type, seed: str, program: str = CHILD) -> "subprocess.Popen[bytes]":
    """A process that prints the fingerprint of what it is given; it finds modules where this one does."""
    file = getattr(root_module(cls.__module__), "__file__", None)
    home = [] if file is None else [str(Path(file).parent if Path(file).stem != "__init__" else Path(file).parents[1])]
    path = os.pathsep.join([*(entry or str(Path.cwd()) for entry in sys.path), *home])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed}
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment,
    )  # fmt: skip


def check_prepare(subject: Subject, sample: Fields) -> Prepared:
    """One good sample, prepared twice by a labeler without weights."""
    needs = subject.labeler.needs
    lacking = sorted(set(needs) - set(sample))
    require(not lacking, f"every sample must have the fields that the labeler needs; one lacks {', '.join(lacking)}.")
    given = {name: sample[name] for name in (*needs, *subject.labeler.wants) if name in sample}
    with explained(
        f"prepare() gets the fields in `needs` ({', '.join(needs)}) and runs without weights.", of=subject.cls
    ):
        first, second = (subject.rebuilt().prepare(given) for _ in range(2))
    require(
        isinstance(first, Mapping) and len(first) > 0,
        f"prepare() must give arrays by name such as {{'image': pixels}}, got {type(first).__name__}.",
    )
    for name, array in first.items():
        require(
            isinstance(array, np.ndarray) and not array.dtype.hasobject,
            f"prepare() must give numpy arrays of numbers or text, got {type(array).__name__} for {name!r}.",
        )
    require(
        first.keys() == second.keys() and all(same(first[name], second[name]) for name in first),
        "prepare() must give the same arrays for the same sample every time: take randomness from the sample's bytes.",
    )
    return first


def check_labels(subject: Subject, loaded: Labeler[Any], prepared: Sequence[Prepared]) -> pa.Table:
    """The labels of all samples, within the contract."""
    with explained("load() and __call__ must work on good samples; these were taken for bad."):
        whole = labels_of(loaded, packed(prepared))
    require(loaded.writes() == subject.labeler.writes(), "load() must not change the contract that writes() gives.")
    require(
        subject.rebuilt().fingerprint() == subject.labeler.fingerprint() == loaded.fingerprint(),
        "load() must not change parameters or facts.",
    )
    check_numerics(loaded)
    check_values(loaded.writes(), whole)
    return whole


def check_repeats(subject: Subject, loaded: Labeler[Any], prepared: Sequence[Prepared], whole: pa.Table) -> None:
    """Equal bit for bit on another actor and when made again."""
    for again, who in ((loaded, "call"), (subject.loaded(), "actor")):
        require(
            labels_of(again, packed(prepared)).equals(whole),
            f"the same batch must give the same labels on every {who}, bit for bit: no random numbers, no state that "
            "a call leaves behind, no order of a set.",
        )


def check_numerics(loaded: Labeler[Any]) -> None:
    with explained("numerics() must be JSON: versions and device names."):
        canonical_json(loaded.numerics())


def check_values(contract: LabelContract, table: pa.Table) -> None:
    check = VALUE_CHECKS.get(contract.kind)
    problems = check(contract, table) if check else not_finite(contract, table)
    require(not problems, f"labels must keep their contract: {'; '.join(problems)}.")


def not_finite(contract: LabelContract, table: pa.Table) -> list[str]:
    dense = [column for column in contract.columns if not column.loose and np.dtype(column.dtype).kind == "f"]
    bad = [column.name for column in dense if not np.isfinite(values_of(table, column.name, column.dtype)).all()]
    return [f"{name} is not finite (raise BadSample instead, or use self.columns, which does)" for name in bad]


def check_rows(loaded: Labeler[Any], prepared: Sequence[Prepared], whole: pa.Table) -> None:
    """Each sample alone, and all of them backwards: its labels are the same bits and stand where it stands."""
    alone = pa.concat_tables([labels_of(loaded, packed([one])) for one in prepared]).combine_chunks()
    turned = labels_of(loaded, packed(prepared[::-1])).take(list(range(len(prepared) - 1, -1, -1)))
    right = alone.equals(whole) and alone.equals(turned)
    rows = [sorted(map(repr, table.to_pylist())) for table in (alone, whole, turned)]
    require(
        right or not rows[0] == rows[1] == rows[2],
        "labels must stand in the order of the samples: the right labels came in another order.",
    )
    require(
        right,
        "a sample's labels must not depend on its neighbours: alone, in a batch filled with itself, or among others in "
        "another order it got other labels. Reduce over the axes of one sample, never over rows.",
    )


def check_other_batch(subject: Subject, prepared: Sequence[Prepared], whole: pa.Table) -> None:
    """One row per call: the same labels up to the last bits."""
    single = labels_of(subject.loaded(1), packed(prepared))
    for column in subject.labeler.writes().columns:
        if column.loose:
            continue
        ours, theirs = (values_of(table, column.name, column.dtype) for table in (whole, single))
        close = np.isclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE) if ours.dtype.kind == "f" else ours == theirs
        require(
            bool(close.mean() >= 0.95),
            f"labels must not depend on compute_batch beyond the last bits: {column.name!r} differs in "
            f"{1 - close.mean():.0%} of its values between {subject.labeler.compute_batch} rows per call and 1.",
        )


def check_bad_samples(subject: Subject, loaded: Labeler[Any]) -> None:
    """Damaged, empty and mistyped fields: labelled, or refused by BadSample with a known reason."""
    first = subject.samples[0]
    good = {name: first[name] for name in (*subject.labeler.needs, *subject.labeler.wants) if name in first}
    for need, value in good.items():
        cut = [value[: len(value) // 2]] if isinstance(value, bytes | str) else []
        for bad in (*cut, *GARBAGE):
            rule = (
                f"A sample that cannot be labelled ({need} = {shown(bad)}) must raise BadSample(reason, detail) with a "
                "reason of relabel.reasons.Reason, else nobody learns what is wrong with it."
            )
            with explained(rule, BadSample, of=subject.cls):
                try:
                    prepared = subject.rebuilt().prepare({**good, need: bad})
                    labels_of(loaded, packed([{**prepared, **subject.read_columns(first)}]))
                except BadSample as error:
                    require(error.reason in set(Reason), f"unknown reason {error.reason!r}. {rule}")


def labels_of(loaded: Labeler[Any], batch: Batch) -> pa.Table:
    """The labels of a batch, as an actor makes them: every call has exactly `compute_batch` rows."""
    rows, size = len(next(iter(batch.values()))), loaded.compute_batch
    chunks = [range(rows)[start : start + size] for start in range(0, rows, size)]
    return pa.concat_tables([call(loaded, batch, chunk) for chunk in chunks]).combine_chunks()


def call(loaded: Labeler[Any], batch: Batch, rows: range) -> pa.Table:
    """One call; where rows are too few, the last one is repeated and its further labels dropped."""
    filled = [*rows, *[rows[-1]] * (loaded.compute_batch - len(rows))]
    given = {name: taken(values, filled) for name, values in batch.items()}
    with explained(
        f"__call__ must label a batch of {loaded.compute_batch} prepared samples, which it may not write to. Arrays of "
        "one shape come stacked, [rows, ...], others as a list of arrays.",
        BadSample,
        of=type(loaded),
    ):
        labels = loaded(given)
    with explained("__call__ must give the columns of its contract (self.columns(...) does).", BadSample):
        require(isinstance(labels, Mapping), f"__call__ must give a mapping of columns, got {type(labels).__name__}.")
        return label_columns(loaded.writes(), labels, loaded.compute_batch).slice(0, len(rows))


def packed(prepared: Sequence[Prepared]) -> Batch:
    """As samples reach an actor: in one read-only buffer."""
    return unpack(pack(prepared))


def taken(values: np.ndarray | Sequence[Any], rows: Sequence[int]) -> np.ndarray | Sequence[Any]:
    if not isinstance(values, np.ndarray):
        return [values[row] for row in rows]
    chosen = values[list(rows)]
    chosen.flags.writeable = False
    return chosen


def values_of(table: pa.Table, name: str, dtype: str) -> np.ndarray:
    """A dense column's numbers, flat."""
    column = table.column(name)
    if pa.types.is_fixed_size_binary(column.type):
        return np.frombuffer(b"".join(column.to_pylist()), dtype)
    return np.asarray(column.to_pylist(), dtype)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def with_facts(labeler: Labeler[Any], facts: Mapping[str, Json]) -> Labeler[Any]:
    labeler.facts = dict(facts)
    return labeler


def shown(value: Value) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:36]} ..."


def require(kept: bool, rule: str) -> None:
    if not kept:
        raise RuleBroken(rule)


class explained:  # noqa: N801  reads as a word in a `with`
    """Raises RuleBroken, the rule and the line of the class `of`, where the block raises anything but `allowed`."""

    def __init__(self, rule: str, *allowed: type[Exception], of: type = object) -> None:
        self.rule, self.module = rule, of.__module__
        self.allowed: tuple[type[Exception], ...] = (RuleBroken, *allowed)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, self.allowed):
            raise RuleBroken(f"{self.rule} It raised {described(error, self.module)}") from error
