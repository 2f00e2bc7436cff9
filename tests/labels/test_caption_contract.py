"""Captions: what a contract declares, how a row is read back, and which values break it."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from relabel import scores, text
from relabel.errors import Refused, UsageError
from relabel.labels.caption import Caption, Flag, Text, caption_contract, check_column, count_flags, decode_row
from relabel.labels.contract import LabelContract
from relabel.labels.shard_file import decode_label_shard, encode_label_shard, label_schema, label_table
from relabel.releases.contents import VALUE_CHECKS
from relabel.releases.release import decode

CONTRACT = caption_contract("caption", ["short", "long"], logprobs=True, reproducible=True, old=True)


def cells(**changes: Any) -> dict[str, Any]:
    """One good row of the label's columns."""
    row: dict[str, Any] = {"caption_old": "IMG_1.jpg"}
    for style in ("short", "long"):
        row |= {
            f"caption_{style}_text": f"a {style} text", f"caption_{style}_raw": f" a {style}  text\n",
            f"caption_{style}_num_tokens": 4, f"caption_{style}_finish_reason": "stop",
            f"caption_{style}_mean_logprob": -0.5, f"caption_{style}_attempts": 1, f"caption_{style}_flags": [],
        }  # fmt: skip
    return row | {f"caption_{name}": value for name, value in changes.items()}


def table_of(contract: LabelContract, rows: list[dict[str, Any]]) -> pa.Table:
    columns = {
        column.name: pa.array([row[column.name] for row in rows], column.arrow_type()) for column in contract.columns
    }
    return pa.table(columns)


def test_every_style_has_its_columns_and_the_old_caption_lies_beside_them() -> None:
    names = [column.name for column in CONTRACT.columns]
    assert names[0] == "caption_old"
    assert names[1:8] == [
        f"caption_short_{suffix}"
        for suffix in ("text", "raw", "num_tokens", "finish_reason", "mean_logprob", "attempts", "flags")
    ]
    assert len(names) == 15
    assert [CONTRACT.column(f"long_{each}").dtype for each in ("num_tokens", "mean_logprob", "attempts", "flags")] == [
        "<i4", "<f4", "|u1", "list:string"
    ]  # fmt: skip
    assert (CONTRACT.styles, CONTRACT.reproducible) == (("short", "long"), True)


def test_what_an_engine_does_not_tell_has_no_column() -> None:
    bare = caption_contract("c", ["short"], logprobs=False, reproducible=False, old=False)
    assert not any(column.name.endswith(("_mean_logprob", "_old", "_names_lost")) for column in bare.columns)
    assert caption_contract("c", ["f"], logprobs=False, reproducible=True, old=True, names=True).column("f_names_lost")


def test_styles_must_be_there_and_differ() -> None:
    for styles in ([], ["short", "short"]):
        with pytest.raises(UsageError, match="at least one style, each once"):
            caption_contract("c", styles, logprobs=False, reproducible=True, old=False)


def test_old_contracts_say_nothing_of_captions() -> None:
    """What a fingerprint is made of is as it was."""
    assert not {"styles", "reproducible"} & scores("light", "mean").model_dump(exclude_none=True).keys()


def test_a_row_is_read_back_from_a_file() -> None:
    row = cells(long_flags=["over_budget", "copies_old"], long_attempts=3)
    schema = label_schema([CONTRACT], {"caption": "f" * 64})
    labels = {
        column.name: [row[column.name]] if column.loose else np.array([row[column.name]], column.dtype)
        for column in CONTRACT.columns
    }
    table = label_table(schema, ["a", "b"], [b"0" * 16, None], ["ok", "dead"], [None, "unusable_text"], labels)
    read = decode_label_shard(encode_label_shard(table)).to_pylist()
    caption = decode(CONTRACT, read[0])
    assert isinstance(caption, Caption)
    assert caption.old == "IMG_1.jpg"
    assert list(caption.texts) == ["short", "long"]
    assert caption["short"] == Text("a short text", " a short  text\n", 4, "stop", -0.5, 1, ())
    assert (caption["long"].flags, caption["long"].attempts) == (("over_budget", "copies_old"), 3)
    with pytest.raises(UsageError, match="holds no 'caption': its status is 'dead', reason 'unusable_text'"):
        decode(CONTRACT, read[1])


def test_plain_text_is_read_as_it_was() -> None:
    assert decode(text("told"), {"told_text": "a cat"}) == {"told_text": "a cat"}
    assert decode_row(text("told"), {"told_text": None}) == {"told_text": None}
    assert check_column(text("told"), pa.table({"told_text": [""]})) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"short_text": ""}, "short: the text must hold a letter or a digit"),
        ({"long_text": "..."}, "long: the text must hold a letter or a digit"),
        ({"long_text": "a\ncat"}, "long: a text has no line breaks"),
        ({"short_num_tokens": -1}, "short: num_tokens must not be negative"),
        ({"short_finish_reason": "ended"}, "short: finish_reason must be one of stop, length, other"),
        ({"short_mean_logprob": 0.1}, "short: mean_logprob must be finite and at most 0"),
        ({"short_mean_logprob": float("nan")}, "short: mean_logprob must be finite"),
        ({"long_attempts": 0}, "long: attempts must be at least 1"),
        ({"long_flags": ["cut", "cut"]}, "long: flags must each be there once"),
        ({"long_flags": ["ugly"]}, r"long: unknown flags \(ugly\)"),
        ({"long_flags": None}, "a row has all columns where its status is ok"),
        ({"old": None}, "a row has all columns"),
    ],
)
def test_each_broken_value_is_named(changes: dict[str, Any], fault: str) -> None:
    assert check_column(CONTRACT, table_of(CONTRACT, [cells(), cells()])) == []
    found = VALUE_CHECKS["caption"](CONTRACT, table_of(CONTRACT, [cells(), cells(**changes), cells()]))
    assert len(found) == 1
    with pytest.raises(AssertionError, match=fault):
        raise AssertionError(found[0])
    assert "first in row 1" in found[0]


def test_flags_are_counted_and_counts_add_up() -> None:
    rows = [
        cells(short_flags=["over_budget"]),
        cells(short_flags=["over_budget", "copies_old"], short_attempts=2),
        cells(),
    ]
    whole = count_flags(CONTRACT, table_of(CONTRACT, rows))
    assert whole["short"] == {"over_budget": 2, "copies_old": 1, "": 3, "retried": 1}
    assert whole["long"] == {"": 3, "retried": 0}
    parts = [count_flags(CONTRACT, table_of(CONTRACT, each)) for each in (rows[:1], rows[1:])]
    assert parts[0]["short"] + parts[1]["short"] == whole["short"]
    with pytest.raises(Refused, match="expected captions"):
        count_flags(scores("light", "mean"), pa.table({"light_mean": [0.5]}))


def test_every_flag_is_explained() -> None:
    """Names are stable: releases hold them."""
    assert {str(flag) for flag in Flag} == {
        "empty", "cut", "over_budget", "repetition", "refusal", "prompt_echo", "markup", "language", "copies_old",
        "lost_names",
    }  # fmt: skip
    assert dataclasses.fields(Text)[0].name == "text"
