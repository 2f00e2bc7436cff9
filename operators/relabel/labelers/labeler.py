"""Labelers: one batch of prepared samples in, the columns of one label out, rows in order.

A labeler is built from its parameters on the driver (cheap, no weights), learns the facts of its weights there
(`inspect`, cached in the recipe's lock file), travels to actors by pickle, and loads weights once per actor. Three
methods make one: `writes` (what), `prepare` (one sample, on a CPU) and `__call__` (a batch, on the device).
"""

import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from ..digests import Json, digest
from ..errors import BadSample, Refused, UsageError
from ..labels.contract import Column, LabelContract
from ..reasons import Reason
from ..shards.shard import Value
from ..statistics.statistic import Statistic
from .provenance import source_of

Fields = Mapping[str, Value]
"""One sample's fields by the names in `needs`: an encoded image as bytes, text as str or UTF-8 bytes."""
Prepared = Mapping[str, np.ndarray]
"""One sample, ready for the model: named arrays (or 0-d arrays of text)."""
Batch = Mapping[str, np.ndarray | Sequence[Any]]
"""Stacked [rows, ...] where all samples have one shape, else a list of arrays. The columns of a label that is read are
arrays in the dtype and shape of its contract, those of text, bytes and lists lists of Python's own values."""
Labels = Mapping[str, np.ndarray | Sequence[Any]]
"""Column name -> one entry per row of the batch, in the dtype and shape of the contract."""


class Parameters(BaseModel):
    """An operator's parameters: frozen and JSON-serialisable, because they are its identity."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


P = TypeVar("P", bound=Parameters)

KEY = "__key__"
"""In `needs`: the sample's key, as text; no field of the source, and no part of the sample's digest."""

SOURCE_KINDS = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}
"""numpy's kind of a column -> the kinds that may be written to it without losing what they are."""


class Labeler(ABC, Generic[P]):
    """Batch in, label columns out. Subclasses set `name` and `version` and are registered by `register`.

    `class Brightness(Labeler[BrightnessParameters])` says what its parameters are; `Labeler[Parameters]` has none.
    `relabel.testing.check_labeler` proves that an operator keeps what is said here.
    """

    name: ClassVar[str]
    """The short name that recipes use."""
    version: ClassVar[int]
    """Raised whenever the meaning of the labels changes; an operator of your own that is edited must raise it."""
    Parameters: ClassVar[type[BaseModel]]
    """Taken from the brackets behind `Labeler`."""
    needs: tuple[str, ...] = ("image",)
    """Sample fields that `prepare` reads; a sample without one is a dead letter."""
    wants: tuple[str, ...] = ()
    """Sample fields that `prepare` reads where they are there and not empty."""
    reads: tuple[str, ...] = ()
    """Labels of earlier steps: `__call__` finds their columns in its batch, each under its own name. Samples that an
    earlier step could not label do not come."""
    max_batches: ClassVar[int] = 1
    """Compute batches that one call may hold; above 1, `__call__` gets any multiple of `compute_batch` up to this."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "Parameters" not in cls.__dict__:
            bases = [base for base in cls.__dict__.get("__orig_bases__", ()) if _is_labeler(typing.get_origin(base))]
            models = [each for base in bases for each in typing.get_args(base) if isinstance(each, type)]
            cls.Parameters = models[0] if models else getattr(cls, "Parameters", Parameters)

    def __init__(self, parameters: P, label: str = "") -> None:
        self.parameters = parameters
        self.label = label or self.name
        """The label's name in the release; its columns start with it."""
        self.facts: dict[str, Json] = {}
        """What `inspect` found out; set by whoever built the labeler."""
        self.inputs: dict[str, LabelContract] = {}
        """The contracts of the labels that it `reads`; set by whoever built the labeler."""
        self.input_names: dict[str, tuple[str, ...]] = {}
        """And the names of their classes, where they have classes with names."""
        self.read_fingerprints: dict[str, str] = {}
        """And their fingerprints."""
        self.read_origins: dict[str, str] = {}
        """And how they were made, as `origin_of` tells: the same under every name."""
        self.finished: tuple[dict[str, Json], ...] = ()
        """Results of the statistics that `statistic` asked for, in order; set by whoever built the labeler."""
        self.compute_batch = 8
        """Rows of one call of the network, always exactly so many; set before `load`, part of the numerics."""
        self.threads = 1
        """Threads of the model on a CPU; set before `load`, part of the numerics."""
        self.source = source_of(type(self))
        """Digests of the files that define an operator of your own; part of the fingerprint. None for relabel's."""

    def weight_files(self) -> Sequence[Path]:
        """Local files whose bytes decide the labels; a change of size or time makes cached facts stale."""
        return ()

    def inspected_parameters(self) -> dict[str, Json]:
        """The parameters that the facts depend on; a change of any other needs no second look at the weights."""
        return self.parameters.model_dump(mode="json")

    def inspect(self) -> dict[str, Json]:
        """Facts that need the weights at hand (digest, classes, map size); may be slow, is cached by the lock file."""
        return {}

    def known_facts(self) -> dict[str, Json]:
        """Raises UsageError where there are none yet."""
        if not self.facts:
            raise UsageError("this labeler has no facts yet. Set `labeler.facts = Lock(path).facts(labeler)` first.")
        return self.facts

    def statistic(self) -> Statistic | None:
        """The next statistic over all rows that is needed before `__call__`, from `parameters`, `facts`, `inputs` and
        the results in `finished`; None: there is nothing more to know. Its results are part of the fingerprint.
        """
        return None

    def warnings(self) -> Sequence[str]:
        """What a person should know before these labels are used, as far as `facts` and `finished` tell."""
        return ()

    def identity(self) -> dict[str, Json]:
        """All that was chosen and can change a label, from `parameters` and `facts` alone, without weights."""
        return {"parameters": self.parameters.model_dump(mode="json"), **self.facts}

    def fingerprint(self) -> str:
        """Digest of what this labeler's labels mean.

        What a contract does not declare is left out, so that a new kind of declaration changes no old fingerprint.
        """
        meaning = {
            "operator": self.name,
            "version": self.version,
            "identity": self.identity(),
            "contract": self.writes().model_dump(mode="json", exclude_none=True),
            **({"reads": self.read_fingerprints} if self.read_fingerprints else {}),
            **({"statistics": [digest(result) for result in self.finished]} if self.finished else {}),
        }
        return digest(meaning if self.source is None else {**meaning, "source": self.source["digest"]})

    def class_names(self) -> Sequence[str]:
        """Names of the classes that ids point into, in order, for people; their digest is in the contract."""
        return tuple(self.facts.get("class_names") or ())

    def columns(self, **values: np.ndarray | Sequence[Any]) -> Labels:
        """What `__call__` returns, by the suffixes of the contract's columns, in their dtypes.

        Raises Refused where the suffixes are not the contract's or a dtype would lose its kind (a float to an int),
        BadSample where a number is not finite: the caller halves the batch until the bad sample is alone.
        """
        contract = self.writes()
        wanted = {column.name.removeprefix(f"{self.label}_"): column for column in contract.columns}
        if wanted.keys() != values.keys():
            raise Refused(
                f"the contract of {self.label!r} has the columns {', '.join(wanted)}; columns() got "
                f"{', '.join(values) or 'none'}. Give these, or change what writes() declares."
            )
        return {column.name: _as_declared(column, values[suffix]) for suffix, column in wanted.items()}

    @abstractmethod
    def writes(self) -> LabelContract:
        """The label and its columns, from `parameters` and `facts`."""

    @abstractmethod
    def prepare(self, sample: Fields) -> Prepared:
        """One sample's fields to arrays, on a CPU; raises BadSample. `sample` has every field in `needs`."""

    def load(self, device: str) -> None:
        """Put the weights on `device` ("cpu", "cuda"), once per actor; raises Refused where they do not fit."""

    @abstractmethod
    def __call__(self, batch: Batch) -> Labels:
        """Label one batch of `compute_batch` rows, which may not be written to: one entry per row, in order, that
        depends on no other row. Raises BadSample; a batch that raises is halved down to the rows that are to blame.
        """

    def numerics(self) -> dict[str, Json]:
        """Versions that decide the last bits of a label (engine, kernels); called after `load`."""
        return {}


def origin_of(operator: str, version: int, identity: Mapping[str, Json]) -> str:
    """Digest of who makes a label and how, whatever the label is called: of vectors, which encoder and how it reads."""
    how = {name: value for name, value in identity.items() if name != "statistics"}
    return digest({"operator": operator, "version": version, "identity": how})


def _is_labeler(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Labeler)


def _as_declared(column: Column, values: np.ndarray | Sequence[Any]) -> np.ndarray | Sequence[Any]:
    if column.loose and column.dtype != "|b1":
        return values
    array = np.asarray(values)
    if array.dtype.kind not in SOURCE_KINDS[np.dtype(column.dtype).kind]:
        raise Refused(
            f"label column {column.name!r} is {column.dtype} by its contract, got {array.dtype.str}: convert it first, "
            "or change what writes() declares."
        )
    with np.errstate(over="ignore"):
        cast = array.astype(column.dtype)
    if not (np.isfinite(cast).all() if cast.dtype.kind == "f" else (cast == array).all()):
        raise BadSample(Reason.BAD_OUTPUT, f"{column.name} is not finite, or beyond what {column.dtype} holds")
    return cast
