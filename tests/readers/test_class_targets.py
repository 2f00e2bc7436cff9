"""Class targets: labels of classes, hard labels and quality columns as what a loss takes."""

from typing import Any

import numpy as np
import pytest

from relabel import hard_labels, sample_weight, soft_labels
from relabel.errors import BadSample, Refused, UnknownName, UsageError
from relabel.labels.contract import Column, LabelContract
from relabel.labels.kinds import classes, text
from relabel.labels.probabilities import best_first, distribution
from relabel.labels.pseudo import answered_contract

NAMES = ("cat", "dog", "bird", "fish")


def ready(contract: LabelContract, **options: Any) -> Any:
    transform = soft_labels("topic", **options)
    transform.check({"topic": contract})
    return transform


def row(ids: Any, scores: Any, **more: Any) -> dict[str, Any]:
    columns = {"topic_ids": np.array(ids, np.uint16), "topic_scores": np.array(scores, np.float32)}
    return {"__key__": "k", "topic": {**columns, **more}}


def target(contract: LabelContract, ids: Any, scores: Any, **options: Any) -> Any:
    found = ready(contract, **options)(row(ids, scores))["topic"]
    assert found.dtype == np.float32
    return pytest.approx(found.tolist(), abs=1e-6)


def test_a_full_distribution_is_read_by_class() -> None:
    given = np.array([[0.1, 0.6, 0.05, 0.25]])
    written = best_first(given)
    contract = distribution("topic", classes("topic", NAMES).classes)  # type: ignore[arg-type]
    assert given[0].tolist() == target(contract, written["ids"][0], written["scores"][0])


def test_the_rest_of_a_top_k_is_spread_over_the_classes_that_it_leaves_out() -> None:
    assert target(classes("topic", NAMES), [1], [0.7]) == [0.1, 0.7, 0.1, 0.1]
    assert target(classes("topic", NAMES, 2), [1, 0], [0.7, 0.2]) == [0.2, 0.7, 0.05, 0.05]
    logs = classes("topic", NAMES, 2, "log_probability")
    assert target(logs, [1, 0], np.log([0.7, 0.2])) == [0.2, 0.7, 0.05, 0.05]
    assert target(classes("topic", NAMES), [3], [1.0]) == [0.0, 0.0, 0.0, 1.0]


def test_logits_of_all_classes_are_a_softmax_and_of_some_are_refused() -> None:
    everything = classes("topic", NAMES, 4, "logit")
    exact = np.exp([1.0, 3.0, 0.0, 2.0]) / np.exp([1.0, 3.0, 0.0, 2.0]).sum()
    assert exact.tolist() == target(everything, [1, 3, 0, 2], [3, 2, 1, 0])
    with pytest.raises(UsageError, match="all are needed"):
        ready(classes("topic", NAMES, 2, "logit"))


def test_votes_are_shares_and_a_sample_without_a_vote_is_said_to_be_one() -> None:
    contract = answered_contract("topic", NAMES, 3, reproducible=True, several=False)
    assert target(contract, [1, 2, 0, 3], [0.6, 0.2, 0, 0]) == [0.0, 0.75, 0.25, 0.0]
    none = contract.ignore_index
    with pytest.raises(BadSample, match="'k' has no class in 'topic'"):
        ready(contract)(row([none] * 4, [0.0] * 4))
    assert target(contract, [none] * 4, [0.0] * 4, no_class="zeros") == [0.0] * 4
    assert target(contract, [none] * 4, [0.0] * 4, no_class="uniform") == [0.25] * 4
    several = answered_contract("topic", NAMES, 3, reproducible=True, several=True)
    with pytest.raises(Refused, match="several classes"):
        ready(several)


def test_hard_and_smoothed() -> None:
    contract = classes("topic", NAMES, 2)
    assert target(contract, [1, 0], [0.5, 0.4], hard=True) == [0.0, 1.0, 0.0, 0.0]
    smooth = ready(contract, smoothing=0.2)(row([1, 0], [0.5, 0.4]))["topic"]
    assert smooth.sum() == pytest.approx(1)
    assert smooth[1] == pytest.approx(0.8 * 0.5 + 0.05)


def test_classes_are_matched_by_name() -> None:
    wanted = ("fish", "bird", "horse", "dog", "cat")
    assert target(classes("topic", NAMES, 2), [1, 0], [0.7, 0.2], names=NAMES, classes=wanted) == [
        0.05,
        0.05,
        0.0,
        0.7,
        0.2,
    ]
    with pytest.raises(UnknownName, match="'fish'"):
        soft_labels("topic", NAMES, ("cat", "dog", "bird"))
    with pytest.raises(UsageError, match="'cat' more than once"):
        soft_labels("topic", NAMES, (*NAMES, "cat"))
    with pytest.raises(UsageError, match="together"):
        soft_labels("topic", NAMES)
    with pytest.raises(Refused, match="in their order"):
        ready(classes("topic", NAMES), names=NAMES[::-1], classes=NAMES)


def test_labels_of_another_kind_are_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'topics'"):
        soft_labels("topic").check({"topics": classes("topics", NAMES)})
    with pytest.raises(UsageError, match="expected to give probabilities"):
        ready(text("topic"))
    with pytest.raises(UsageError, match="expected to give probabilities"):
        ready(classes("topic", NAMES, 4, "cosine"))
    with pytest.raises(UsageError, match="has not seen"):
        soft_labels("topic")(row([1], [1.0]))
    with pytest.raises(UsageError, match="hold the columns"):
        ready(classes("topic", NAMES))({"topic": np.ones(4, np.float32)})
    with pytest.raises(BadSample, match="different classes"):
        ready(classes("topic", NAMES, 2))(row([1, 1], [0.5, 0.5]))
    with pytest.raises(UsageError, match="smoothing"):
        soft_labels("topic", smoothing=1.0)


@pytest.mark.parametrize("value", ["dog", b"dog", " dog\n", 1, "1", b"1", np.int64(1)])
def test_hard_labels_are_names_or_numbers(value: Any) -> None:
    assert hard_labels("cls", NAMES)({"cls": value})["cls"].tolist() == [0, 1, 0, 0]
    assert hard_labels("cls", NAMES, NAMES[::-1])({"cls": value})["cls"].tolist() == [0, 0, 1, 0]


def test_a_hard_label_that_is_none_is_told_with_its_sample() -> None:
    for value in ("horse", "-1", "4", "", b"\xff", None):
        with pytest.raises(BadSample, match="cls of sample 'k' is none of the 4 classes"):
            hard_labels("cls", NAMES)({"__key__": "k", "cls": value})
    with pytest.raises(UsageError, match="reads 'cls'"):
        hard_labels("cls", NAMES)({"txt": "x"})
    assert hard_labels("cls", NAMES, smoothing=0.2)({"cls": 0})["cls"].tolist() == pytest.approx(
        [0.85, 0.05, 0.05, 0.05]
    )


def audited(**values: Any) -> dict[str, Any]:
    return {"audit": {f"audit_{name}": value for name, value in values.items()}}


def audit_contract() -> LabelContract:
    columns = tuple(Column(name=f"audit_{name}", dtype=dtype) for name, dtype in (("quality", "<f4"), ("issue", "|b1")))
    return LabelContract(name="audit", kind="score", columns=columns, score_domain="probability", no_score=-1.0)


def test_weights_of_a_score() -> None:
    weigh = sample_weight("audit", "quality", floor=0.2, cap=2.0, scale=2.0)
    weigh.check({"audit": audit_contract()})
    given = [0.0, 0.3, 0.9, 5.0, -1.0, float("nan"), None]
    found = [weigh(audited(quality=value))["weight"] for value in given]
    assert [type(weight) for weight in found] == [np.float32] * 7
    assert found == pytest.approx([0.2, 0.6, 1.8, 2.0, 1.0, 1.0, 1.0])


def test_a_label_may_be_wanted_under_another_name() -> None:
    soft, weigh = soft_labels("new"), sample_weight("new", "scores")
    given = {"new": row([1, 0], [0.7, 0.2])["topic"]}
    for each in (weigh, soft):
        each.check({"new": classes("topic", NAMES, 2)})
    assert soft(given)["new"].tolist() == pytest.approx([0.2, 0.7, 0.05, 0.05])
    assert weigh(given)["weight"] == pytest.approx(0.7)


def test_weights_of_flags_words_and_best_scores() -> None:
    flags = sample_weight("audit", "issue", values={True: 0.0, False: 1.0}, into="kept")
    assert [flags(audited(issue=value))["kept"] for value in (True, False)] == [0, 1]
    words = sample_weight("audit", "action", values={"keep": 1.0, "drop": 0.0})
    assert words(audited(action="drop"))["weight"] == 0
    with pytest.raises(UsageError, match="no weight to 'flip'"):
        words(audited(action="flip"))
    assert sample_weight("topic", "scores")(row([1, 0], [0.7, 0.2]))["weight"] == pytest.approx(0.7)
    with pytest.raises(UsageError, match="holds text"):
        sample_weight("audit", "action")(audited(action="keep"))


def test_weights_that_cannot_be_are_refused() -> None:
    with pytest.raises(UnknownName, match="unknown column 'qualty'; did you mean 'quality'"):
        sample_weight("audit", "qualty").check({"audit": audit_contract()})
    with pytest.raises(UnknownName, match="label"):
        sample_weight("audits", "quality").check({"audit": audit_contract()})
    with pytest.raises(UsageError, match="floor <= cap"):
        sample_weight("audit", "quality", floor=1.0, cap=0.5)
    with pytest.raises(UsageError, match="before it is made a target"):
        sample_weight("audit", "quality")({"audit": np.ones(3)})
