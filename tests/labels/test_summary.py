"""Summaries of label shards: what they count, and that any partition of the rows gives the same bytes."""

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel.labels.caption import caption_contract
from relabel.labels.contract import Column, LabelContract
from relabel.labels.kinds import classes, scores, text
from relabel.labels.pseudo import answered_contract
from relabel.labels.shard_file import decode_label_shard, encode_label_shard, label_schema, label_table
from relabel.labels.summary import Contest, Flags, Summary, add_up, parse, summarise

SCORE = LabelContract(
    name="fit",
    kind="score",
    columns=(
        Column(name="fit_short", dtype="<f4"),
        Column(name="fit_old", dtype="<f4"),
        Column(name="fit_cut", dtype="<i4"),
        Column(name="fit_good", dtype="|b1"),
    ),
    no_score=-2.0,
    rivals=(("short", "old"),),
)
CAPTION = caption_contract("said", ["short"], logprobs=True, reproducible=True, old=True)
CONTRACTS = [SCORE, CAPTION]

Row = dict[str, Any]


def row(short: float, old: float, cut: int = 0, flags: tuple[str, ...] = (), tokens: int = 5) -> Row:
    return {
        "fit_short": short, "fit_old": old, "fit_cut": cut, "fit_good": short > 0.5, "said_old": "x",
        "said_short_text": "a cat", "said_short_raw": "a cat", "said_short_num_tokens": tokens,
        "said_short_finish_reason": "stop", "said_short_mean_logprob": -0.5, "said_short_attempts": 1,
        "said_short_flags": list(flags),
    }  # fmt: skip


DTYPES = {"fit_short": "<f4", "fit_old": "<f4", "fit_cut": "<i4", "fit_good": "|b1", "said_short_num_tokens": "<i4",
          "said_short_mean_logprob": "<f4", "said_short_attempts": "|u1"}  # fmt: skip


def table(rows: list[Row | None]) -> pa.Table:
    """A label shard of these rows; None is a row without a label. Through its file, as it is written and read."""
    schema = label_schema(CONTRACTS, {contract.name: "0" * 64 for contract in CONTRACTS})
    labelled = [each for each in rows if each is not None]
    labels: dict[str, Any] = {name: [each[name] for each in labelled] for name in row(0, 0)}
    labels |= {name: np.array(labels[name], dtype) for name, dtype in DTYPES.items()}
    states = ["ok" if each is not None else "dead" for each in rows]
    reasons = [None if each is not None else "corrupt_image" for each in rows]
    keys = [str(place) for place in range(len(rows))]
    digests: list[bytes | None] = [None] * len(rows)
    return decode_label_shard(encode_label_shard(label_table(schema, keys, digests, states, reasons, labels)))


def of(rows: list[Row | None]) -> Summary:
    made = summarise(CONTRACTS, table(rows))
    assert made is not None
    return made


def test_hand_computed() -> None:
    made = of([row(0.5, 0.25, 3, ("cut",)), None, row(0.25, 0.25), row(0.75, -2.0, 0, ("cut", "language"), 9)])
    assert made.numbers["fit_short"].mean == 0.5
    assert (made.numbers["fit_old"].count, made.numbers["fit_old"].mean) == (2, 0.25), "where there is one"
    assert (made.numbers["fit_cut"].mean, made.numbers["fit_cut"].quantile(0.5)) == (1.0, 0.0)
    assert made.numbers["fit_good"].mean == pytest.approx(1 / 3)
    assert made.numbers["said_short_num_tokens"].largest == 9
    assert made.flags == {"said_short_flags": Flags(3, {"cut": 2, "language": 1})}
    assert made.contests == {("fit_short", "fit_old"): Contest(1, 1, 0)}
    told = made.to_json()
    assert told["wins"] == {"fit_short > fit_old": {"larger": 1, "equal": 1, "smaller": 0, "share": 0.5}}
    assert told["flags"]["said_short_flags"] == {"rows": 3, "counts": {"cut": 2, "language": 1}}
    assert "said_short_text" not in str(told)
    assert parse(made.encode()) == made


def test_other_labels_have_none() -> None:
    rows = pa.table({"kind_ids": pa.array([], pa.binary(2)), "kind_scores": pa.array([], pa.binary(4))})
    assert summarise([classes("kind", ["a", "b"])], rows) is None
    assert summarise([], rows) is None


def test_flags_of_pseudo_labels_are_counted_and_their_numbers_are_not() -> None:
    contract = answered_contract("topic", ["a", "b"], 1, reproducible=True, several=False)
    rows = pa.table({
        "topic_attempts": pa.array([1, 3, None], pa.uint8()),
        "topic_truncated": [False, True, None],
        "topic_flags": [["cut"], ["cut", "parse_error"], None],
    })  # fmt: skip
    made = summarise([contract], rows)
    assert made is not None
    assert made.numbers == {}
    assert made.flags == {
        "topic_truncated": Flags(2, {"truncated": 1}),
        "topic_flags": Flags(2, {"cut": 2, "parse_error": 1}),
    }
    assert add_up([made, parse(made.encode())]).flags["topic_truncated"] == Flags(4, {"truncated": 2})


def test_plain_texts_and_scores_are_summarised_as_far_as_they_can_be() -> None:
    rows = pa.table({"t_text": ["a"], "b_mean": pa.array([0.5], pa.float32())})
    made = summarise([text("t"), scores("b", "mean")], rows)
    assert made is not None
    assert list(made.numbers) == ["b_mean"]
    assert (made.flags, made.contests) == ({}, {})


def test_a_shard_without_labelled_rows_has_an_empty_summary() -> None:
    made = of([None, None])
    assert made.numbers == {}
    assert made.contests == {("fit_short", "fit_old"): Contest(0, 0, 0)}
    full = of([row(0.5, 0.25)])
    assert add_up([made, full]).numbers == full.numbers


number = st.one_of(st.sampled_from([-2.0, 0.25, 0.5]), st.floats(-1, 1, width=32))
flag = st.lists(st.sampled_from(["cut", "language", "markup"]), unique=True, max_size=3).map(tuple)
any_row = st.one_of(st.none(), st.builds(row, number, number, st.integers(0, 99), flag, st.integers(1, 200)))


@settings(max_examples=40)
@given(st.lists(any_row, min_size=1, max_size=12), st.integers(1, 5), st.randoms(use_true_random=False))
def test_any_partition_in_any_order_is_the_same_to_the_last_byte(
    rows: list[Row | None], parts: int, chance: random.Random
) -> None:
    whole = of(rows)
    chance.shuffle(rows)
    cut = [rows[start::parts] for start in range(parts) if rows[start::parts]]
    chance.shuffle(cut)
    made = [parse(of(each).encode()) for each in cut]
    middle = len(made) // 2
    nested = add_up([add_up(made[:middle]), add_up(made[middle:])]) if middle else add_up(made)
    assert add_up(made).encode() == nested.encode()
    assert {**add_up(made).state(), "shards": 1} == whole.state()


def test_what_is_no_score_is_known_in_the_columns_own_precision() -> None:
    odd = SCORE.model_copy(update={"no_score": 0.1})
    columns = {"fit_short": [0.5, 0.1], "fit_old": [0.1, 0.2]}
    rows = pa.table({name: pa.array(values, pa.float32()) for name, values in columns.items()})
    rows = rows.append_column("fit_cut", pa.array([0, 0], pa.int32())).append_column("fit_good", pa.array([True, True]))
    made = summarise([odd], rows)
    assert made is not None
    assert made.numbers["fit_short"].count == made.numbers["fit_old"].count == 1
    assert made.contests == {("fit_short", "fit_old"): Contest(0, 0, 0)}
