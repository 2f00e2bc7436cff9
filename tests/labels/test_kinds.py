"""Kinds: short constructors of contracts, whose labels are written and read back as declared."""

from collections.abc import Callable

import numpy as np
import pytest

from relabel.errors import UsageError
from relabel.labels.class_map import ClassMap
from relabel.labels.contract import LabelContract
from relabel.labels.kinds import classes, embedding, scores, text
from relabel.labels.shard_file import contracts_of, decode_label_shard, encode_label_shard, label_columns, label_schema


def test_scores_are_one_number_per_suffix() -> None:
    contract = scores("light", "mean", "spread", domain="probability")
    assert (contract.kind, contract.score_domain) == ("score", "probability")
    assert [(column.name, column.dtype) for column in contract.columns] == [
        ("light_mean", "<f4"),
        ("light_spread", "<f4"),
    ]


def test_classes_point_into_names() -> None:
    contract = classes("kind", ["cat", "dog", "owl"], top_k=2)
    assert contract.classes == ClassMap(("cat", "dog", "owl")).declare()
    assert (contract.column("ids").dtype, contract.column("ids").shape, contract.top_k) == ("<u2", (2,), 2)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: scores("light"),
        lambda: scores("light", "mean", "mean"),
        lambda: classes("kind", ["cat"], top_k=2),
        lambda: classes("kind", [], top_k=1),
    ],
)
def test_what_makes_no_contract_is_refused(wrong: Callable[[], LabelContract]) -> None:
    with pytest.raises(UsageError):
        wrong()


def test_they_are_written_and_read_back() -> None:
    contracts = [scores("light", "mean"), classes("kind", ["cat", "dog"]), text("caption")]
    columns = {
        "light_mean": np.array([0.5, 1], np.float32),
        "kind_ids": np.array([[1], [0]], np.uint16),
        "kind_scores": np.array([[0.9], [0.6]], np.float32),
        "caption_text": ["a dog", "ein Kätzchen"],
    }
    table = label_columns(contracts[0], {"light_mean": columns["light_mean"]}, 2)
    for contract in contracts[1:]:
        for column in contract.columns:
            part = label_columns(contract, {each.name: columns[each.name] for each in contract.columns}, 2)
            table = table.append_column(column.name, part[column.name])
    schema = label_schema(contracts, dict.fromkeys(("light", "kind", "caption"), "f" * 64))
    fields = [schema.field(name) for name in table.column_names]
    again = decode_label_shard(encode_label_shard(table.cast(schema.empty_table().select(table.column_names).schema)))
    assert again.to_pylist() == table.to_pylist()
    assert contracts_of(again.schema) == {contract.name: contract for contract in contracts}
    assert [field.name for field in fields] == list(columns)


def test_an_embedding_is_one_vector() -> None:
    contract = embedding("said", 384, "<f2")
    assert contract.kind == "embedding"
    assert (contract.column("vector").shape, contract.column("vector").axes) == ((384,), ("feature",))
    with pytest.raises(UsageError, match="at least one feature"):
        embedding("said", 0)
