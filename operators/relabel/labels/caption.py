"""Captions: what is said of a sample in one or more styles, how each text came about, and what was said before.

Per style `s` of a label `l` lie the columns `l_s_text`, `l_s_raw` (as the engine gave it), `l_s_num_tokens`,
`l_s_finish_reason`, `l_s_mean_logprob` (where the engine tells), `l_s_attempts` and `l_s_flags`; `l_old` holds the
caption that the sample had, empty where it had none. A new caption never replaces the old one: both lie in one row.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import Refused, UsageError
from .contract import Column, LabelContract
from .presence import check_presence, name_rows

OLD = "old"
FINISH_REASONS = ("stop", "length", "other")


class Flag(StrEnum):
    """What a guard found in a text; the rules stand in `labelers.guards`."""

    EMPTY = "empty"
    """No letter and no digit."""
    CUT = "cut"
    """The engine did not end it: its tokens were used up, or something else stopped it."""
    OVER_BUDGET = "over_budget"
    """More tokens than the text encoder reads that will be trained on it."""
    REPETITION = "repetition"
    """Words, sentences or characters in a loop."""
    REFUSAL = "refusal"
    """Declines, apologises, or asks for an image."""
    PROMPT_ECHO = "prompt_echo"
    """Repeats its instructions, or speaks of its task."""
    MARKUP = "markup"
    """Tags, JSON, chat tokens, links, control characters: what no sentence holds."""
    LANGUAGE = "language"
    """Not in the language that was asked for."""
    COPIES_OLD = "copies_old"
    """Says what the old caption said, in its words."""
    LOST_NAMES = "lost_names"
    """A proper noun of the old caption is not in the text that was to keep it."""


@dataclasses.dataclass(frozen=True)
class Text:
    """What is said in one style."""

    text: str
    """Never empty."""
    raw: str
    """As the engine gave it."""
    num_tokens: int
    """As the engine counts; the token that ends the text may be one of them."""
    finish_reason: str
    """stop | length | other."""
    mean_logprob: float | None
    """Mean natural logarithm of its tokens' probabilities; None where the engine tells none."""
    attempts: int
    """The engine was asked so often, until the guards let a text pass."""
    flags: tuple[str, ...]
    """What the guards found and did not reject (see `Flag`)."""
    names_lost: tuple[str, ...] | None = None
    """Fused captions: proper nouns of the old caption that the text has not."""


@dataclasses.dataclass(frozen=True)
class Caption:
    """The decoded caption of one sample: `caption["short"].text`, `caption.old`."""

    texts: Mapping[str, Text]
    """By style, in the order of the contract."""
    old: str | None
    """What the sample's caption was; empty where it had none, None where it was not read."""

    def __getitem__(self, style: str) -> Text:
        return self.texts[style]


def caption_contract(
    label: str,
    styles: Sequence[str],
    *,
    logprobs: bool,
    reproducible: bool,
    old: bool,
    names: bool = False,
) -> LabelContract:
    """The contract of captions in these styles.

    `logprobs`: there is a `mean_logprob`; `old`: the old caption is kept; `names`: there is a `names_lost` (list of
    text) per style, the proper nouns of the old caption that the new one has not.
    """
    if not styles or len(set(styles)) < len(styles):
        raise UsageError(f"captions need at least one style, each once, got {list(styles)}.")
    columns = [Column(name=f"{label}_{OLD}", dtype="string")] if old else []
    for style in styles:
        kinds = {
            "text": "string",
            "raw": "string",
            "num_tokens": "<i4",
            "finish_reason": "string",
            **({"mean_logprob": "<f4"} if logprobs else {}),
            "attempts": "|u1",
            "flags": "list:string",
            **({"names_lost": "list:string"} if names else {}),
        }
        columns += [Column(name=f"{label}_{style}_{suffix}", dtype=dtype) for suffix, dtype in kinds.items()]
    return LabelContract(
        name=label,
        kind="caption",
        columns=tuple(columns),
        score_domain="log_probability" if logprobs else None,
        styles=tuple(styles),
        reproducible=reproducible,
    )


def has_old(contract: LabelContract) -> bool:
    """Whether the old caption lies beside the new ones."""
    return any(column.name == f"{contract.name}_{OLD}" for column in contract.columns)


def decode_row(contract: LabelContract, row: Mapping[str, Any]) -> Caption | dict[str, Any]:
    """One row of a label shard (a mapping of column name to value) as a Caption; plain text: the columns by name.

    Raises UsageError for a row without a label.
    """
    if contract.styles is None:
        return {column.name: row[column.name] for column in contract.columns}
    if row[f"{contract.name}_{contract.styles[0]}_text"] is None:
        raise UsageError(
            f"this row holds no {contract.name!r}: its status is {row.get('status', 'unknown')!r}, "
            f"reason {row.get('reason', 'unknown')!r}."
        )
    return Caption({style: _text(contract, style, row) for style in contract.styles}, row.get(f"{contract.name}_{OLD}"))


def _text(contract: LabelContract, style: str, row: Mapping[str, Any]) -> Text:
    cells = {field.name: row.get(f"{contract.name}_{style}_{field.name}") for field in dataclasses.fields(Text)}
    lists = {name: tuple(cell) for name in ("flags", "names_lost") if (cell := cells[name]) is not None}
    found: dict[str, Any] = {**cells, **lists}
    return Text(**found)


def check_column(contract: LabelContract, table: pa.Table) -> list[str]:
    """What is wrong with the values of a caption, one line per kind of fault; empty where nothing is."""
    if contract.styles is None:
        return []
    present = table.column(contract.column(f"{contract.styles[0]}_text").name).is_valid().to_numpy()
    torn = check_presence(contract, table, present)
    if torn:
        return torn
    faulty: dict[str, list[int]] = {}
    rows = table.select([column.name for column in contract.columns]).to_pylist()
    for place in np.flatnonzero(present).tolist():
        caption = decode_row(contract, rows[place])
        assert isinstance(caption, Caption)
        for style, text in caption.texts.items():
            for fault in _faults(text):
                faulty.setdefault(f"{style}: {fault}", []).append(place)
    return [f"{contract.name}: {what}, broken in {_name(places, table)}" for what, places in faulty.items()]


def _name(places: Sequence[int], table: pa.Table) -> str:
    marked = np.zeros(table.num_rows, np.bool_)
    marked[list(places)] = True
    return name_rows(marked, table)


def _faults(text: Text) -> list[str]:
    unknown = sorted(set(text.flags) - set(Flag))
    logprob = text.mean_logprob
    checks = {
        "the text must hold a letter or a digit": any(map(str.isalnum, text.text)),
        "a text has no line breaks and no spaces around it": text.text == " ".join(text.text.split()),
        "num_tokens must not be negative": text.num_tokens >= 0,
        f"finish_reason must be one of {', '.join(FINISH_REASONS)}": text.finish_reason in FINISH_REASONS,
        "mean_logprob must be finite and at most 0": logprob is None or (math.isfinite(logprob) and logprob <= 0),
        "attempts must be at least 1": text.attempts >= 1,
        "flags must each be there once": len(set(text.flags)) == len(text.flags),
        f"unknown flags ({', '.join(unknown)}); upgrade relabel, or label again": not unknown,
    }
    return [what for what, kept in checks.items() if not kept]


def count_flags(contract: LabelContract, table: pa.Table) -> dict[str, Counter[str]]:
    """Style -> flag -> how many labelled rows of a label shard have it; counts of several shards add up.

    `""` counts the rows that have a text at all, `"retried"` those that took more than one attempt.
    """
    found: dict[str, Counter[str]] = {}
    for style in _styles(contract):
        flags, attempts = (table.column(contract.column(f"{style}_{each}").name) for each in ("flags", "attempts"))
        lists = pc.list_flatten(flags.drop_null())
        counts = Counter({each["values"]: each["counts"] for each in pc.value_counts(lists).to_pylist()})
        counts[""] = len(flags) - flags.null_count
        counts["retried"] = pc.sum(pc.greater(attempts, 1)).as_py() or 0
        found[style] = counts
    return found


def _styles(contract: LabelContract) -> tuple[str, ...]:
    if contract.kind != "caption" or contract.styles is None:
        raise Refused(f"the label {contract.name!r} is of kind {contract.kind!r} without styles, expected captions.")
    return contract.styles
