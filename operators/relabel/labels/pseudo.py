"""Pseudo-labels: the classes that a language model gives a text, with what it was asked to tell beside them.

Columns, K classes and P prompts: `<label>_ids` [K] and `<label>_scores` [K] over all classes, best first; `votes` [P],
the class of every prompt by itself, -1 where it named none; `prompt_tokens` [P]; `truncated`.

Scored: `log_likelihood` [P, K], natural logarithms in the order of the classes, and `tokens` [K] of every class's text.
Answered: `answers`, what the model wrote, prompt by prompt; `attempts`; `completion_tokens`; `flags`; and of samples
that may have several classes `applicable`.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Integer

from .contract import Column, LabelContract
from .kinds import classes
from .label_map import id_dtype
from .presence import check_presence, name_rows


class AnswerFlag(StrEnum):
    """What was wrong with the last answer to some prompt; each is counted apart."""

    PARSE_ERROR = "parse_error"
    """It is not what was asked for: no JSON, no such member, too many names."""
    OUT_OF_TAXONOMY = "out_of_taxonomy"
    """It names something that is none of the classes."""
    OTHER = "other"
    """It says that none of the classes fits."""
    CUT = "cut"
    """Its tokens ran out."""


def no_class(count: int) -> int:
    """The id of samples without a class, of so many: one that no class has."""
    return int(np.iinfo(id_dtype(count + 1)).max)


def scored_contract(label: str, names: Sequence[str], prompts: int, reproducible: bool) -> LabelContract:
    """Of classes whose probabilities were computed."""
    count = len(names)
    columns = {
        "log_likelihood": Column(name="", dtype="<f4", shape=(prompts, count), axes=("prompt", "class")),
        "tokens": Column(name="", dtype="<i4", shape=(count,), axes=("class",)),
    }
    return with_columns(classes(label, names, count, "probability"), {**common(prompts), **columns}, reproducible)


def answered_contract(
    label: str, names: Sequence[str], prompts: int, reproducible: bool, several: bool
) -> LabelContract:
    """Of classes that the model named: scores are shares of the prompts' votes."""
    columns = {
        "answers": Column(name="", dtype="list:string"),
        "attempts": Column(name="", dtype="|u1"),
        "completion_tokens": Column(name="", dtype="<i4"),
        "flags": Column(name="", dtype="list:string"),
        **({"applicable": Column(name="", dtype="list:<i4")} if several else {}),
    }
    contract = with_columns(
        classes(label, names, len(names), "vote_share"), {**common(prompts), **columns}, reproducible
    )
    more = {"ignore_index": no_class(len(names)), "applicable": "others_unknown" if several else None}
    return contract.model_copy(update=more)


def common(prompts: int) -> dict[str, Column]:
    return {
        "votes": Column(name="", dtype="<i4", shape=(prompts,), axes=("prompt",)),
        "prompt_tokens": Column(name="", dtype="<i4", shape=(prompts,), axes=("prompt",)),
        "truncated": Column(name="", dtype="|b1"),
    }


def with_columns(contract: LabelContract, more: dict[str, Column], reproducible: bool) -> LabelContract:
    added = tuple(column.model_copy(update={"name": f"{contract.name}_{suffix}"}) for suffix, column in more.items())
    return contract.model_copy(update={"columns": (*contract.columns, *added), "reproducible": reproducible})


def is_pseudo_label(contract: LabelContract) -> bool:
    return contract.kind == "classes" and any(column.name == f"{contract.name}_votes" for column in contract.columns)


def check_column(contract: LabelContract, table: pa.Table) -> list[str]:
    """What is wrong with the values of pseudo-labels; other labels of classes are not looked into."""
    if not is_pseudo_label(contract):
        return []
    assert contract.classes is not None
    present = table.column(contract.column("ids").name).is_valid().to_numpy()
    if torn := check_presence(contract, table, present):
        return torn
    ids, scores = (dense_rows(table, contract.column(suffix)) for suffix in ("ids", "scores"))
    if not len(ids):
        return []
    none = (ids == contract.ignore_index).all(axis=1) & (scores == 0).all(axis=1)
    checks = {
        "ids must be each class once": none | (np.sort(ids) == np.arange(contract.classes.count)).all(axis=1),
        "scores must fall, from 1 at most to 0 at least": (np.diff(scores) <= 0).all(axis=1)
        & (scores[:, -1] >= 0)
        & (scores[:, 0] <= 1 + 1e-6),
    }
    if contract.score_domain == "probability":
        checks["probabilities must sum to 1"] = np.abs(scores.sum(axis=1) - 1) < 1e-4
    labelled = np.flatnonzero(present)
    found = []
    for what, kept in checks.items():
        if not kept.all():
            bad = np.zeros(table.num_rows, np.bool_)
            bad[labelled[~kept]] = True
            found.append(f"{contract.name}: {what}, broken in {name_rows(bad, table)}")
    return found


def dense_rows(table: pa.Table, column: Column) -> Float32[np.ndarray, "rows k"] | Integer[np.ndarray, "rows k"]:
    """The cells that are there."""
    cells = table.column(column.name).drop_null().to_pylist()
    return np.frombuffer(b"".join(cells), column.dtype).reshape(len(cells), *column.shape)
