"""What contracts came to say later: nothing changes for labels that have none of it."""

from relabel.labels.contract import LabelContract
from relabel.labels.kinds import scores

BEFORE = (
    '{"name":"a","kind":"score","columns":[{"name":"a_b","dtype":"<f4","shape":[],"axes":[],"varying":null}],'
    '"classes":null,"score_domain":null,"top_k":null,"residual":null,"quantiser":null,"ignore_index":null,'
    '"min_confidence":null,"geometry":null,"proof":null,"engine_error":null}'
)
"""As a release of before has it."""


def test_a_contract_from_before_reads_and_writes_as_it_did() -> None:
    assert scores("a", "b").model_dump_json() == BEFORE
    assert LabelContract.model_validate_json(BEFORE) == scores("a", "b")


def test_what_a_label_has_is_written() -> None:
    contract = scores("a", "b", "c").model_copy(update={"no_score": -2.0, "rivals": (("b", "c"),)})
    written = contract.model_dump(mode="json")
    assert (written["no_score"], written["rivals"]) == (-2.0, [["b", "c"]])
    assert "styles" not in written
    assert LabelContract.model_validate(written) == contract
