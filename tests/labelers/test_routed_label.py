"""routed_label: who is sure answers, every row says who it was, and the model is asked for the others alone."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_language_models import save_llama

from relabel.errors import UsageError
from relabel.labelers.engines.transformers_engine import TransformersConfig
from relabel.labelers.labeler import origin_of
from relabel.labelers.pseudo_label import PseudoLabelLabeler, PseudoLabelParameters
from relabel.labelers.routed_label import CLASSIFIER, MODEL, RoutedLabel, RoutedLabelParameters
from relabel.labels.class_map import ClassMap
from relabel.labels.kinds import embedding
from relabel.labels.probabilities import Probabilities
from relabel.refiners.label_prior import LabelPrior, LabelPriorParameters
from relabel.testing import check_labeler

WORDS = ("red fox", "small cat", "tree")
FEATURES = 4
MINE = origin_of("embed_text", 1, {"weights": "mine"})
TEXTS = ("a red fox runs", "the cat sleeps", "one two three four", "owl bee")
VECTORS = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0.4, 0.3, 0.3, 0], [0, 0, 0, 1]], np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"))


def classifier(
    path: Path,
    tau: float | None = 0.9,
    features: int = FEATURES,
    classes: int = 3,
    names: tuple[str, ...] = WORDS,
    vectors: str = MINE,
) -> str:
    """Sure of a row that lies along one of the first axes."""
    weights = np.zeros((1, classes, features + 1), "<f4")
    weights[0, np.arange(classes), np.arange(classes)] = 10
    result = {
        "all": base64.b64encode(weights.tobytes()).decode(), "all_shape": list(weights.shape), "tau": tau,
        "class_map": ClassMap(names).digest, "embedding": vectors,
    }  # fmt: skip
    path.write_text(json.dumps({"result": result}))
    return str(path)


def routed(folder: Path, file: str, **parameters: Any) -> RoutedLabel:
    engine = TransformersConfig(model=str(folder))
    asked = RoutedLabelParameters(engine=engine, labels=WORDS, text_tokens=40, classifier=file, **parameters)
    labeler = RoutedLabel(asked, "topic")
    labeler.inputs = {"embed_text": embedding("embed_text", FEATURES)}
    labeler.read_origins = {"embed_text": MINE}
    labeler.facts = labeler.inspect()
    return labeler


def labels_of(labeler: Any) -> Any:
    labeler.load("cpu")
    try:
        prepared = [labeler.prepare({"text": text, "__key__": f"{row}"}) for row, text in enumerate(TEXTS)]
        batch = {name: np.array([each[name] for each in prepared]) for name in prepared[0]}
        return labeler({**batch, "embed_text_vector": VECTORS})
    finally:
        labeler.close()


def test_it_keeps_the_rules_of_labelers(folder: Path, tmp_path: Path) -> None:
    labeler = routed(folder, classifier(tmp_path / "c.json"))
    samples = [
        {"text": text, "__key__": text[:5], "embed_text_vector": vector}
        for text, vector in zip(TEXTS, VECTORS, strict=True)
    ]
    check_labeler(labeler, samples)


def test_who_is_sure_answers_and_the_rest_is_the_models_own_label(folder: Path, tmp_path: Path) -> None:
    labeler = routed(folder, classifier(tmp_path / "c.json"))
    found = labels_of(labeler)
    assert list(found["topic_source"]) == [CLASSIFIER, CLASSIFIER, MODEL, MODEL]
    assert list(found["topic_ids"][:2, 0]) == [0, 1]
    np.testing.assert_allclose(found["topic_sure"][:2], 1, atol=1e-3)
    assert (np.asarray(found["topic_sure"][2:]) < 0.9).all()
    alone: Any = PseudoLabelLabeler(
        PseudoLabelParameters(engine=TransformersConfig(model=str(folder)), labels=WORDS, text_tokens=40), "topic"
    )
    alone.facts = alone.inspect()
    bare = labels_of(alone)
    np.testing.assert_array_equal(found["topic_ids"][2:], bare["topic_ids"][2:])
    np.testing.assert_allclose(found["topic_scores"][2:], bare["topic_scores"][2:], rtol=1e-6)
    np.testing.assert_allclose(Probabilities(labeler.writes()).dense(found).sum(axis=1), 1, atol=1e-6)


def test_a_classifier_that_is_never_sure_enough_leaves_all_to_the_model_and_tau_can_be_given(
    folder: Path, tmp_path: Path
) -> None:
    never, given = classifier(tmp_path / "never.json", tau=None), classifier(tmp_path / "c.json")
    assert set(labels_of(routed(folder, never))["topic_source"]) == {MODEL}
    assert list(labels_of(routed(folder, never, tau=0.99))["topic_source"])[:2] == [CLASSIFIER, CLASSIFIER]
    assert set(labels_of(routed(folder, given, tau=0.0))["topic_source"]) == {CLASSIFIER}


def test_the_meaning_is_the_classifiers_content_and_the_confidence_not_a_files_name(
    folder: Path, tmp_path: Path
) -> None:
    one = routed(folder, classifier(tmp_path / "one.json"))
    assert routed(folder, classifier(tmp_path / "two.json")).fingerprint() == one.fingerprint()
    assert routed(folder, classifier(tmp_path / "one.json"), tau=0.9).fingerprint() == one.fingerprint()
    assert routed(folder, classifier(tmp_path / "one.json"), tau=0.8).fingerprint() != one.fingerprint()
    assert routed(folder, classifier(tmp_path / "three.json", tau=0.5)).fingerprint() != one.fingerprint()


def test_the_models_own_answers_lose_its_bias_as_label_prior_takes_it_off(folder: Path, tmp_path: Path) -> None:
    prior = (-0.1, -2.0, -3.5)
    file = classifier(tmp_path / "c.json")
    found, plain = labels_of(routed(folder, file, log_prior=prior)), labels_of(routed(folder, file))
    centring: Any = LabelPrior(LabelPriorParameters(probabilities="topic", log_prior=prior))
    centring.inputs = {"topic": routed(folder, file).writes()}
    expected = centring(plain)
    by_model = np.array([source == MODEL for source in found["topic_source"]])
    assert by_model.tolist() == [False, False, True, True]
    np.testing.assert_array_equal(found["topic_ids"][by_model], expected["label_prior_ids"][by_model])
    np.testing.assert_allclose(found["topic_scores"][by_model], expected["label_prior_scores"][by_model], rtol=1e-5)
    assert not np.allclose(found["topic_scores"][by_model], plain["topic_scores"][by_model], rtol=1e-2)
    np.testing.assert_array_equal(found["topic_scores"][~by_model], plain["topic_scores"][~by_model])
    assert routed(folder, file, log_prior=prior).fingerprint() != routed(folder, file).fingerprint()
    assert "log_prior" not in routed(folder, file).identity()["parameters"]


def test_a_prior_that_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    file = classifier(tmp_path / "c.json")
    with pytest.raises(UsageError, match="log_prior must have 3 entries, one a class, got 2"):
        routed(folder, file, log_prior=(-1.0, -2.0)).writes()
    with pytest.raises(ValueError, match="`log_prior` needs `how: score`"):
        routed(folder, file, log_prior=(-1.0, -2.0, -3.0), how="choose")
    with pytest.raises(ValueError, match="must hold finite logarithms"):
        routed(folder, file, log_prior=(-1.0, -2.0, float("-inf")))


def test_a_classifier_of_another_encoders_vectors_is_refused(folder: Path, tmp_path: Path) -> None:
    other = origin_of("embed_text", 1, {"weights": "other"})
    with pytest.raises(UsageError, match="learned from vectors that were made in another way"):
        routed(folder, classifier(tmp_path / "c.json", vectors=other)).writes()
    one = routed(folder, classifier(tmp_path / "mine.json"))
    two = routed(folder, classifier(tmp_path / "others.json", vectors=other))
    two.read_origins = {"embed_text": other}
    assert two.fingerprint() != one.fingerprint()


def test_a_classifier_that_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="knows 2 classes by vectors of 4 numbers; the labels are 3"):
        routed(folder, classifier(tmp_path / "c.json", classes=2)).writes()
    with pytest.raises(UsageError, match="by vectors of 5 numbers"):
        routed(folder, classifier(tmp_path / "c.json", features=5)).writes()
    with pytest.raises(UsageError, match="other classes, or with these in another order"):
        routed(folder, classifier(tmp_path / "c.json", names=WORDS[::-1])).writes()
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UsageError, match="is not the result of a step `distil`"):
        routed(folder, str(tmp_path / "bad.json"))
    with pytest.raises(UsageError, match="is not the result of a step `distil`"):
        routed(folder, str(tmp_path / "none.json"))
