"""Labelers: one batch of prepared samples in, the columns of one label out, rows in order.

A labeler is built from its parameters on the driver (cheap, no weights), learns the facts of its weights there
(`inspect`, cached in the recipe's lock file), travels to actors by pickle, and loads weights once per actor.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from ..digests import Json, digest
from ..labels.contract import LabelContract
from ..shards.shard import Value

Prepared = Mapping[str, np.ndarray]
"""One sample, ready for the model: named arrays (or 0-d arrays of text)."""
Batch = Mapping[str, np.ndarray | Sequence[np.ndarray]]
"""Stacked [rows, ...] where all samples have one shape, else a list of arrays."""
Labels = Mapping[str, np.ndarray | Sequence[Any]]
"""Column name -> one entry per row of the batch, in the dtype and shape of the contract."""


class Parameters(BaseModel):
    """An operator's parameters: frozen and JSON-serialisable, because they are its identity."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


P = TypeVar("P", bound=Parameters)


class Labeler(ABC, Generic[P]):
    """Batch in, label columns out. Subclasses set the class variables and are registered by `register`."""

    name: ClassVar[str]
    """The short name that recipes use."""
    version: ClassVar[int]
    """Raised whenever the meaning of the labels changes."""
    Parameters: ClassVar[type[Parameters]]
    needs: ClassVar[tuple[str, ...]] = ("image",)
    """Sample fields that `prepare` reads; a sample without one is a dead letter."""

    def __init__(self, parameters: P, label: str = "") -> None:
        self.parameters = parameters
        self.label = label or self.name
        """The label's name in the release; its columns start with it."""
        self.facts: dict[str, Json] = {}
        """What `inspect` found out; set by whoever built the labeler."""
        self.compute_batch = 8
        """Rows of one call of the network, always exactly so many; set before `load`, part of the numerics."""
        self.threads = 1
        """Threads of the model on a CPU; set before `load`, part of the numerics."""

    def weight_files(self) -> Sequence[Path]:
        """Local files whose bytes decide the labels; a change of size or time makes cached facts stale."""
        return ()

    def inspected_parameters(self) -> dict[str, Json]:
        """The parameters that the facts depend on; a change of any other needs no second look at the weights."""
        return self.parameters.model_dump(mode="json")

    def inspect(self) -> dict[str, Json]:
        """Facts that need the weights at hand (digest, classes, map size); may be slow, is cached by the lock file."""
        return {}

    def identity(self) -> dict[str, Json]:
        """All that was chosen and can change a label, from `parameters` and `facts` alone, without weights."""
        return {"parameters": self.parameters.model_dump(mode="json"), **self.facts}

    def fingerprint(self) -> str:
        """Digest of what this labeler's labels mean."""
        return digest(
            {
                "operator": self.name,
                "version": self.version,
                "identity": self.identity(),
                "contract": self.writes().model_dump(mode="json"),
            }
        )

    @abstractmethod
    def writes(self) -> LabelContract:
        """The label and its columns, from `parameters` and `facts`."""

    @abstractmethod
    def prepare(self, sample: Mapping[str, Value]) -> Prepared:
        """One sample's fields to arrays, on a CPU; raises BadSample. `sample` has every field in `needs`."""

    @abstractmethod
    def load(self, device: str) -> None:
        """Put the weights on `device` ("cpu", "cuda"), once per actor; raises Refused where they do not fit."""

    @abstractmethod
    def __call__(self, batch: Batch) -> Labels:
        """Label one batch; must not depend on a row's neighbours."""

    def numerics(self) -> dict[str, Json]:
        """Versions that decide the last bits of a label (engine, kernels); called after `load`."""
        return {}
