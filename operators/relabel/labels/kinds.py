"""Kinds: the contracts that most labels need, each by one call."""

from collections.abc import Sequence
from typing import Literal

from ..errors import UsageError
from .class_map import ClassMap
from .contract import Column, LabelContract
from .label_map import id_dtype

Domain = Literal["logit", "probability", "log_probability", "cosine", "vote_share"]


def scores(label: str, *suffixes: str, domain: Domain | None = None) -> LabelContract:
    """One number per sample and suffix: the columns `<label>_<suffix>`, float32."""
    if not suffixes or len(set(suffixes)) < len(suffixes):
        raise UsageError(f"scores() needs a suffix for every column, each once, got {list(suffixes)}.")
    columns = tuple(Column(name=f"{label}_{suffix}", dtype="<f4") for suffix in suffixes)
    return LabelContract(name=label, kind="score", columns=columns, score_domain=domain)


def classes(label: str, names: Sequence[str], top_k: int = 1, domain: Domain = "probability") -> LabelContract:
    """The `top_k` best classes of a sample: `<label>_ids` [k], positions in `names`, and `<label>_scores` [k], float32.

    Best first. Give `names` also as the labeler's `class_names()`, so that a release can show them.
    """
    class_map = ClassMap(tuple(names))
    if not 1 <= top_k <= len(names):
        raise UsageError(f"top_k must be between 1 and the {len(names)} classes, got {top_k}.")
    return LabelContract(
        name=label,
        kind="classes",
        columns=(
            Column(name=f"{label}_ids", dtype=id_dtype(len(names)), shape=(top_k,), axes=("k",)),
            Column(name=f"{label}_scores", dtype="<f4", shape=(top_k,), axes=("k",)),
        ),
        classes=class_map.declare(),
        score_domain=domain,
        top_k=top_k,
    )


def text(label: str, suffix: str = "text") -> LabelContract:
    """Free text: the column `<label>_<suffix>`, a string."""
    return LabelContract(name=label, kind="caption", columns=(Column(name=f"{label}_{suffix}", dtype="string"),))


def embedding(label: str, features: int, dtype: Literal["<f4", "<f2"] = "<f4") -> LabelContract:
    """One vector per sample: the column `<label>_vector` [features]."""
    if features < 1:
        raise UsageError(f"an embedding has at least one feature, got {features}.")
    column = Column(name=f"{label}_vector", dtype=dtype, shape=(features,), axes=("feature",))
    return LabelContract(name=label, kind="embedding", columns=(column,))
