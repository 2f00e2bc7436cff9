"""Labeler `routed_label`: a light classifier labels what it is sure of, a language model the rest; rows say which.

TnT-LLM (arXiv 2403.12173): the classifier was distilled from the model's labels of a sample (`distil`), and answers
alone where rows as sure as this one agreed with the model often enough.
"""

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from pydantic import Field, model_validator

from ..digests import Json, digest
from ..errors import BadSample, UsageError
from ..labels.class_map import ClassMap
from ..labels.contract import Column, LabelContract
from ..labels.probabilities import FLOOR, distribution, softmax
from ..labels.pseudo import no_class
from ..reasons import Reason
from .engine_labeler import SampleCells
from .engines.choice import EngineChoice
from .engines.protocol import EngineConfig
from .pseudo_label import PseudoLabels
from .pseudo_parameters import PseudoLabelSettings
from .registry import register

CLASSIFIER, MODEL = "classifier", "model"


class RoutedLabelSettings(PseudoLabelSettings):
    """As `pseudo_label`, and when the model is not asked."""

    embedding: str = Field(default="embed_text", min_length=1)
    """The label with a vector per sample, as the classifier was given them."""
    classifier: str = Field(min_length=1)
    """A file: the result of the statistic of a step `distil`. `relabel show STORE --json` says where it lies, under
    `statistics` of that label."""
    tau: float | None = Field(default=None, ge=0, le=1)
    """How sure the classifier must be. Default: as `distil` found it."""
    log_prior: tuple[float, ...] | None = Field(default=None, min_length=2)
    """What is subtracted from the model's log-probabilities, in the order of the classes, as by `label_prior`: where
    the classifier learned labels whose bias was taken off, the model's answers should not keep it. Default: nothing."""

    @model_validator(mode="after")
    def prior_has_scores(self) -> "RoutedLabelSettings":
        if self.log_prior is not None and self.how != "score":
            raise ValueError("`log_prior` needs `how: score`: an answer has no probability for every class")
        if not np.isfinite(self.log_prior or ()).all():
            raise ValueError("log_prior must hold finite logarithms; where a class has probability 0, give -30")
        return self


class RoutedLabelParameters(RoutedLabelSettings):
    """What labels are made with."""

    engine: EngineChoice
    """The model that labels what the classifier is not sure of."""


@register
class RoutedLabel(PseudoLabels[RoutedLabelParameters]):
    """`ids` and `scores` of all classes, best first; `source`: `classifier` or `model`; `sure`: the classifier's
    confidence, whoever answered.
    """

    name, version = "routed_label", 1

    def __init__(self, parameters: RoutedLabelParameters, label: str = "") -> None:
        super().__init__(parameters, label)
        self.reads = (parameters.embedding,)

    @property
    def engine_config(self) -> EngineConfig:
        return self.parameters.engine

    def weight_files(self) -> Sequence[Path]:
        return (*super().weight_files(), Path(self.parameters.classifier).expanduser())

    def inspected_parameters(self) -> dict[str, Json]:
        return {**super().inspected_parameters(), "classifier": self.parameters.classifier}

    def inspect(self) -> dict[str, Json]:
        """Also the classifier itself: where the labeler runs there may be no file of it."""
        return {**super().inspect(), "classifier": read_classifier(Path(self.parameters.classifier).expanduser())}

    def identity(self) -> dict[str, Json]:
        """The classifier by its digest; `tau` as it is used; a prior where there is one."""
        known = super().identity()
        parameters = {name: value for name, value in known["parameters"].items() if name != "classifier"}
        if self.parameters.log_prior is None:
            del parameters["log_prior"]
        return {
            **known,
            "parameters": {**parameters, "tau": self.tau},
            "classifier": digest(known["classifier"]),
        }

    @property
    def tau(self) -> float:
        """Above 1 where the classifier is never sure enough."""
        given, found = self.parameters.tau, self.facts["classifier"]["tau"]
        return float(given if given is not None else 2.0 if found is None else found)

    @functools.cached_property
    def coefficients(self) -> Float32[np.ndarray, "classes weights"]:
        held = self.facts["classifier"]
        _, classes, weights = held["all_shape"]
        return np.frombuffer(base64.b64decode(held["all"]), "<f4").reshape(classes, weights)

    def writes(self) -> LabelContract:
        """Raises UsageError where the classifier is one of other classes or other vectors."""
        super().writes()  # whether the engine can do what is asked
        names, contract = self.labels.names, self.inputs[self.parameters.embedding]
        classes, weights = self.coefficients.shape
        features = contract.column("vector").shape[0] if contract.kind == "embedding" else 0
        if (classes, weights) != (len(names), features + 1):
            raise UsageError(
                f"the classifier knows {classes} classes by vectors of {weights - 1} numbers; the labels are "
                f"{len(names)} and {contract.name!r} (kind {contract.kind}) has {features}. Give the classifier that "
                "was distilled with these labels from these vectors."
            )
        if (prior := self.parameters.log_prior) is not None and len(prior) != classes:
            raise UsageError(f"log_prior must have {classes} entries, one a class, got {len(prior)}.")
        if self.facts["classifier"]["class_map"] != ClassMap(tuple(names)).digest:
            raise UsageError(
                "the classifier was distilled with other classes, or with these in another order: its first class is "
                f"not {names[0]!r} here. Give the labels that it was distilled with, or distil again with these."
            )
        learned, given = self.facts["classifier"]["embedding"], self.read_origins.get(contract.name, "")
        if learned != given:
            raise UsageError(
                f"the classifier learned from vectors that were made in another way (encoder, prefix, tokens, dtype; "
                f"digest {learned[:16] or 'unknown'}) than those of {contract.name!r} ({given[:16] or 'unknown'}): its "
                "answers would mean nothing. Embed as the recipe did that distilled it, or distil again from these."
            )
        more = {"source": "string", "sure": "<f4"}
        columns = (Column(name=f"{self.label}_{suffix}", dtype=dtype) for suffix, dtype in more.items())
        found = distribution(self.label, ClassMap(tuple(names)).declare(), *columns)
        return found.model_copy(update={"reproducible": self.engine_config.reproducible})

    async def label_sample(self, sample: SampleCells) -> Mapping[str, Any]:
        """Raises BadSample where the model was asked and named no class."""
        said = self._classified(np.asarray(sample[f"{self.parameters.embedding}_vector"], np.float64))
        sure = float(said.max())
        if sure >= self.tau:
            order = np.argsort(-said, kind="stable")
            return {"ids": order, "scores": said[order], "source": CLASSIFIER, "sure": sure}
        found = await super().label_sample(sample)
        if found["ids"][0] == no_class(len(said)):
            raise BadSample(Reason.UNUSABLE_TEXT, f"the model named none of the classes: {found.get('answers')}")
        ids, scores = np.asarray(found["ids"]), np.asarray(found["scores"], np.float64)
        if self.parameters.log_prior is not None:
            logs = np.log(np.maximum(scores, FLOOR)) - np.array(self.parameters.log_prior)[ids]
            scores = softmax(logs[None])[0]
            order = np.lexsort((ids, -scores))
            ids, scores = ids[order], scores[order]
        return {"ids": ids, "scores": scores / scores.sum(), "source": MODEL, "sure": sure}

    def _classified(self, vector: Float64[np.ndarray, " features"]) -> Float64[np.ndarray, " classes"]:
        model = self.coefficients.astype(np.float64)
        return np.asarray(softmax(((model[:, :-1] * vector).sum(axis=1) + model[:, -1])[None])[0])


def read_classifier(path: Path) -> dict[str, Json]:
    """`all`, `all_shape`, `class_map`, `embedding` and `tau` of a result; raises UsageError where the file is none of
    `distil`.
    """
    try:
        held = json.loads(path.read_bytes())
        result = held["result"]
        return {name: result[name] for name in ("all", "all_shape", "class_map", "embedding", "tau")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"classifier: {path} is not the result of a step `distil` of this relabel ({type(error).__name__}: "
            f"{error}). Give the file that its store holds under `statistics/`; run that recipe again if it is older."
        ) from error
