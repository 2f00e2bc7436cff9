"""distil: a student as good as its teacher where the teacher's errors are random, and a warning where they are not."""

import base64
from typing import Any

import numpy as np
import planted_labels as planted
import pytest

from relabel.labelers.class_reader import ClassSource
from relabel.labels.kinds import embedding
from relabel.refiners.distil import Distil, DistilParameters, unevenness
from relabel.testing import check_labeler, check_statistic

COUNT, ROWS, FEATURES, AUDITED = 4, 1600, 16, 400
TOPIC, TRUE = ClassSource(field="topic"), ClassSource(field="truth")


ORIGIN = "e" * 64


def batch_of(noise: float = 0.35) -> dict[str, Any]:
    random = np.random.default_rng(5)
    truth = np.arange(ROWS) % COUNT
    vectors = planted.one_hot(truth, FEATURES) + random.normal(0, noise, (ROWS, FEATURES))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    gold = np.where(np.arange(ROWS) < AUDITED, truth, -1)
    return {"key": planted.keys(ROWS), "embed_text_vector": unit, "given": truth.copy(), "gold": gold, "truth": truth}


def random_errors(truth: np.ndarray, share: float) -> np.ndarray:
    random = np.random.default_rng(6)
    wrong = random.random(len(truth)) < share
    return np.where(wrong, (truth + random.integers(1, COUNT, len(truth))) % COUNT, truth)


def systematic_errors(truth: np.ndarray, share: float) -> np.ndarray:
    """Of one class alone, always towards the same other one."""
    random = np.random.default_rng(7)
    return np.where((truth == 0) & (random.random(len(truth)) < share * COUNT), 1, truth)


def distilled(batch: dict[str, Any], **parameters: Any) -> Any:
    made = Distil(DistilParameters(given=TOPIC, gold=TRUE, classes=planted.names(COUNT), **parameters))
    made.inputs = {"embed_text": embedding("embed_text", FEATURES)}
    made.read_origins = {"embed_text": ORIGIN}
    return planted.finish(made, batch, shards=3)


def test_a_student_is_as_good_as_a_teacher_whose_errors_are_random() -> None:
    batch = batch_of()
    batch["given"] = random_errors(batch["truth"], 0.25)
    made = distilled(batch)
    gold = made.finished[0]["gold"]
    assert gold["rows"] == AUDITED
    assert gold["teacher"] == pytest.approx((batch["given"] == batch["truth"])[:AUDITED].mean())
    assert gold["student"] >= gold["teacher"] + 0.1
    assert gold["systematic"] is False
    assert not any("pattern" in line for line in made.warnings())


def test_a_pattern_of_errors_is_learned_and_told() -> None:
    batch = batch_of()
    batch["given"] = systematic_errors(batch["truth"], 0.2)
    made = distilled(batch)
    gold = made.finished[0]["gold"]
    assert gold["systematic"] is True
    assert gold["student"] <= gold["teacher"] + 0.02
    assert made.finished[0]["accuracy"] > gold["student"], "agreement with the teacher is no accuracy"
    assert any("disagree with the 400 audited rows by a pattern" in line for line in made.warnings())


def test_too_few_errors_tell_nothing() -> None:
    made = distilled(batch_of())
    assert made.finished[0]["gold"]["systematic"] is None
    assert any("too few errors to tell" in line for line in made.warnings())
    without = DistilParameters(given=TOPIC, classes=planted.names(COUNT))
    other = Distil(without)
    other.inputs = {"embed_text": embedding("embed_text", FEATURES)}
    assert planted.finish(other, batch_of()).finished[0]["gold"] is None


def test_random_errors_are_seldom_taken_for_a_pattern_and_a_pattern_is_found() -> None:
    random = np.random.default_rng(8)
    found = []
    for _ in range(200):
        counts = np.zeros((3, 3))
        truth = random.integers(0, 3, 600)
        said = np.where(random.random(600) < 0.2, (truth + random.integers(1, 3, 600)) % 3, truth)
        np.add.at(counts, (truth, said), 1)
        found.append(unevenness(counts))
    values = np.array(found, float)
    assert (values < 0.05).mean() == pytest.approx(0.05, abs=0.05)
    assert (values < 1e-3).mean() <= 0.02
    assert (unevenness(np.array([[80.0, 40, 0], [0, 100, 0], [0, 0, 100]])) or 0) < 1e-6
    assert unevenness(np.diag([100.0, 100, 100])) is None


def test_the_curve_falls_in_rows_and_rises_in_agreement_and_tau_keeps_its_word() -> None:
    batch = batch_of(noise=0.5)
    batch["given"] = random_errors(batch["truth"], 0.1)
    made = distilled(batch, agreement=0.85)
    result = made.finished[0]
    shares = [share for _, share, _ in result["curve"]]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    agreed = {confidence: agreed for confidence, _, agreed in result["curve"]}
    assert agreed[result["tau"]] >= 0.85
    assert all(agreed[confidence] < 0.85 for confidence in agreed if confidence < result["tau"])
    found = made(batch)
    sure = found["distil_scores"][:, 0] >= result["tau"]
    assert (found["distil_ids"][sure, 0] == batch["given"][sure]).mean() == pytest.approx(
        agreed[result["tau"]], abs=0.01
    )
    impossible = distilled(batch, agreement=1.0)
    if impossible.finished[0]["tau"] is None:
        assert any("at no confidence" in line for line in impossible.warnings())


def test_the_model_of_all_rows_is_there_and_any_partition_gives_the_same() -> None:
    batch = batch_of()
    result = distilled(batch).finished[0]
    _, classes, weights = result["all_shape"]
    model = np.frombuffer(base64.b64decode(result["all"]), "<f4").reshape(classes, weights)
    said = (batch["embed_text_vector"] @ model[:, :-1].T + model[:, -1]).argmax(axis=1)
    assert (said == batch["truth"]).mean() > 0.9
    assert result["embedding"] == ORIGIN
    made = Distil(DistilParameters(given=TOPIC, gold=TRUE, classes=planted.names(COUNT), sample=300))
    made.inputs = {"embed_text": embedding("embed_text", FEATURES)}
    made.read_origins = {"embed_text": ORIGIN}
    statistic = made.statistic()
    assert statistic is not None
    check_statistic(statistic, planted.cut({name: values[:500] for name, values in batch.items()}, 40), partitions=20)


def test_it_keeps_the_rules_of_labelers() -> None:
    batch = batch_of()
    made = distilled(batch)
    fresh = Distil(made.parameters)
    fresh.inputs, fresh.finished = made.inputs, made.finished
    samples = [
        {
            "__key__": f"k{row}",
            "topic": planted.names(COUNT)[row % COUNT],
            "truth": b"",
            "embed_text_vector": batch["embed_text_vector"][row],
        }
        for row in range(5)
    ]
    check_labeler(fresh, samples)
