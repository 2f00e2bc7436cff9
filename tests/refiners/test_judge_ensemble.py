"""judge_ensemble: juries of planted judges; clones are one vote; every row has one action."""

from typing import Any

import numpy as np
import planted_labels as planted
import pytest

from relabel.errors import UsageError
from relabel.labelers.class_reader import ClassSource
from relabel.refiners.judge_ensemble import ACTIONS, JudgeEnsemble, JudgeEnsembleParameters
from relabel.testing import check_labeler, check_statistic

COUNT, ROWS, SKILL = 4, 6000, 0.75
TOPIC = ClassSource(field="topic")


def batch_of(judges: int, clones: int = 1, noise: float = 0.12) -> tuple[dict[str, Any], np.ndarray]:
    """Labels with 12 % errors and so many judges of one skill; the first comes `clones` times. And the true classes."""
    random = np.random.default_rng(1)
    truth = random.integers(0, COUNT, ROWS)
    wrong = random.random(ROWS) < noise
    given = np.where(wrong, (truth + random.integers(1, COUNT, ROWS)) % COUNT, truth)
    batch: dict[str, Any] = {"key": planted.keys(ROWS), "given": given}
    for judge in range(judges):
        batch |= planted.columns(f"judge_{judge}", planted.noisy(truth, COUNT, SKILL, seed=10 + judge))
    for clone in range(1, clones):
        batch |= planted.columns(f"clone_{clone}", planted.noisy(truth, COUNT, SKILL, seed=10))
    return batch, truth


def labeler(judges: tuple[str, ...], **parameters: Any) -> Any:
    made = JudgeEnsemble(JudgeEnsembleParameters(judges=judges, given=TOPIC, **parameters))
    return planted.told(made, judges, COUNT)


def jury(size: int) -> tuple[str, ...]:
    return tuple(f"judge_{judge}" for judge in range(size))


def judged(made: Any, batch: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("judge_ensemble_"): np.asarray(values) for name, values in made(batch).items()}


def precision(found: dict[str, Any], batch: dict[str, Any], truth: np.ndarray, least: float = 0.0) -> float:
    """How many of the flagged labels are wrong, where the jury is at least so sure."""
    flagged = found["flag"] & (found["confidence"] >= least)
    return float((batch["given"] != truth)[flagged].mean())


def test_precision_rises_with_the_jury_and_with_its_confidence() -> None:
    batch, truth = batch_of(6)
    found = [judged(labeler(jury(size)), batch) for size in (1, 2, 4, 6)]
    by_size = [precision(each, batch, truth) for each in found]
    assert by_size == sorted(by_size)
    assert by_size[-1] > by_size[0] + 0.2
    by_confidence = [precision(found[2], batch, truth, least) for least in (0, 0.4, 0.5, 0.6, 0.7)]
    assert by_confidence == sorted(by_confidence)
    assert by_confidence[-1] > by_confidence[0] + 0.1


def test_flipping_makes_labels_better_and_dropping_leaves_better_ones() -> None:
    batch, truth = batch_of(5)
    found = judged(labeler(jury(5), flip=0.6, drop=0.4), batch)
    chosen, kept = found["chosen"], found["chosen"] >= 0
    assert (chosen[kept] == truth[kept]).mean() > 0.97 > 0.89 > (batch["given"] == truth).mean()
    assert kept.mean() > 0.85
    np.testing.assert_allclose(found["scores"].sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("flip", "drop"), [(0.8, 0.5), (None, 0.5), (0.6, None), (None, None), (0.3, 0.9)])
def test_every_row_has_one_action(flip: float | None, drop: float | None) -> None:
    batch, _ = batch_of(3)
    batch["given"] = np.where(np.arange(ROWS) % 11 == 0, -1, batch["given"])
    found = judged(labeler(jury(3), flip=flip, drop=drop), batch)
    action, flag = found["action"], found["flag"]
    assert sum(int((action == each).sum()) for each in ACTIONS) == ROWS
    np.testing.assert_array_equal(action == "keep", ~flag)
    assert (found["chosen"][action == "flip"] == found["ids"][action == "flip", 0]).all()
    assert (found["chosen"][(action == "drop") | (action == "human")] == -1).all()
    given = batch["given"] >= 0
    assert (found["chosen"][given & ~flag] == batch["given"][given & ~flag]).all()
    assert not flag[~given].any()
    assert (action == "flip").any() == (flip is not None)
    if flip is not None:
        assert found["confidence"][action == "flip"].min() >= np.float32(flip)
    else:
        assert (found["chosen"][~given] == -1).all()


def test_clones_are_one_vote() -> None:
    batch, truth = batch_of(3, clones=4)
    clones = ("clone_1", "clone_2", "clone_3")
    families = dict.fromkeys(("judge_0", *clones), "one maker")
    alone = judged(labeler(jury(3)), batch)
    one_vote = judged(labeler((*jury(3), *clones), families=families), batch)
    many_votes = judged(labeler((*jury(3), *clones)), batch)
    np.testing.assert_array_equal(one_vote["ids"][:, 0], alone["ids"][:, 0])
    np.testing.assert_allclose(one_vote["confidence"], alone["confidence"], atol=1e-6)
    np.testing.assert_array_equal(one_vote["agree"], alone["agree"])
    right = [float((each["ids"][:, 0] == truth).mean()) for each in (one_vote, many_votes)]
    assert right[0] > right[1] + 0.05
    assert many_votes["confidence"].mean() > one_vote["confidence"].mean()


def test_agreement_counts_families() -> None:
    batch, _ = batch_of(3)
    found = judged(labeler(jury(3)), batch)
    votes = np.stack([batch[f"{judge}_ids"][:, 0] for judge in jury(3)])
    np.testing.assert_array_equal(found["agree"], (votes == found["ids"][:, 0]).sum(axis=0))
    assert found["confidence"][found["agree"] == 3].mean() > found["confidence"][found["agree"] == 1].mean()


def test_on_a_scale_one_step_is_no_error() -> None:
    batch, _ = batch_of(3)
    nominal, ordinal = (judged(labeler(jury(3), ordinal=each), batch) for each in (False, True))
    distance = np.abs(nominal["ids"][:, 0].astype(int) - batch["given"])
    np.testing.assert_array_equal(nominal["flag"], distance > 0)
    np.testing.assert_array_equal(ordinal["flag"], distance > 1)


def test_the_audit_is_a_random_share_of_what_is_not_flagged() -> None:
    batch, truth = batch_of(3)
    found = judged(labeler(jury(3), audit=0.2), batch)
    assert not (found["audit"] & found["flag"]).any()
    assert found["audit"][~found["flag"]].mean() == pytest.approx(0.2, abs=0.02)
    rows = np.random.default_rng(0).permutation(ROWS)[:500]
    np.testing.assert_array_equal(
        judged(labeler(jury(3), audit=0.2), planted.taken(batch, rows))["audit"], found["audit"][rows]
    )
    other = judged(labeler(jury(3), audit=0.2, seed=1), batch)["audit"]
    assert (other & found["audit"]).sum() < 0.5 * other.sum()
    overlooked = (batch["given"] != truth)[~found["flag"]].mean()
    assert (batch["given"] != truth)[found["audit"]].mean() == pytest.approx(overlooked, abs=0.02)


def test_the_report_counts_every_row_once() -> None:
    batch, _ = batch_of(3)
    made = planted.finish(labeler(jury(3), report=True), batch, shards=16)
    report, found = made.finished[0], judged(made, batch)
    assert report["rows"] == ROWS == sum(report["flagged_by_confidence"]) + sum(report["unflagged_by_confidence"])
    assert report["flagged"] == found["flag"].sum()
    assert report == planted.finish(labeler(jury(3), report=True), batch).finished[0]


def test_a_threshold_is_chosen_by_gold() -> None:
    batch, truth = batch_of(4)
    batch["gold"] = np.where(np.arange(ROWS) % 4 == 0, truth, -1)
    options: dict[str, Any] = {"gold": ClassSource(field="checked"), "flip_precision": 0.9}
    made = planted.finish(labeler(jury(4), **options), batch, shards=5)
    assert made.flip == made.finished[0]["flip"]
    found = judged(made, batch)
    flipped = found["action"] == "flip"
    assert (found["chosen"] == truth)[flipped].mean() > 0.86
    assert flipped.sum() > 100
    loose = planted.finish(labeler(jury(4), **{**options, "flip_precision": 0.6}), batch)
    assert loose.flip < made.flip
    contrary = {**batch, "gold": (batch["judge_0_ids"][:, 0] + 1) % COUNT}
    assert planted.finish(labeler(jury(1), **options), contrary).flip is None
    few = {**batch, "gold": np.where(np.arange(ROWS) < 20, truth, -1)}
    with pytest.raises(UsageError, match="at least 20 flagged rows"):
        planted.finish(labeler(jury(4), **options), few)


def test_the_law() -> None:
    batch, truth = batch_of(3)
    batch["gold"] = truth
    some = planted.cut({name: values[:200] for name, values in batch.items()}, 33)
    options: dict[str, Any] = {"gold": ClassSource(field="checked"), "flip_precision": 0.3}
    check_statistic(labeler(jury(3), **options).statistic(), some, max_bytes=5000)


def test_it_keeps_the_rules() -> None:
    batch, _ = batch_of(2)
    made = planted.finish(labeler(jury(2), report=True, families={"judge_1": "x"}), batch)
    samples = [
        {
            "__key__": f"k{row}",
            "topic": f"class {batch['given'][row]}",
            **{n: batch[n][row] for n in batch if "judge" in n},
        }
        for row in range(8)
    ]
    check_labeler(made, samples, compute_batch=4)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"judges": ("a", "a")}, "named once"),
        ({"judges": ("a",), "families": {"b": "x"}}, "names b, which are no judges"),
        ({"judges": ("a",), "flip_precision": 0.9}, "give `gold`"),
    ],
)
def test_parameters_that_do_not_fit_are_told(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JudgeEnsembleParameters(given=TOPIC, **parameters)
