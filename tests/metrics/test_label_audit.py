"""Label errors planted into the 2,225 BBC articles, found by models over MiniLM's vectors that never saw the row."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import bbc
import numpy as np
import planted_labels as planted
import pytest

from relabel.labelers.class_reader import ClassSource
from relabel.labels.kinds import embedding
from relabel.metrics.confident_learning import ConfidentLearning, ConfidentLearningParameters
from relabel.refiners.distil import Distil, DistilParameters
from relabel.refiners.fold_out import FoldOut, FoldOutParameters

TOPIC = ClassSource(field="topic")
SHARE = 0.15


@dataclasses.dataclass(frozen=True)
class Audit:
    """What both steps made of labels with planted errors."""

    batch: dict[str, Any]
    wrong: np.ndarray
    models: Any
    learned: Any

    @property
    def issue(self) -> np.ndarray:
        return np.asarray(self.learned(self.batch)["confident_learning_issue"])


@pytest.fixture(scope="session")
def articles() -> bbc.Articles:
    return bbc.articles()


@pytest.fixture(scope="session")
def vectors(articles: bbc.Articles, request: pytest.FixtureRequest) -> np.ndarray:
    """Computed once, then kept in pytest's cache."""
    cache = getattr(request.config, "cache", None)
    folder: Path = request.getfixturevalue("tmp_path_factory").mktemp("bbc") if cache is None else cache.mkdir("bbc")
    return bbc.vectors(articles.texts, folder)


def audit(
    articles: bbc.Articles, vectors: np.ndarray, given: np.ndarray, shards: int = 4, rows: Any = slice(None)
) -> Audit:
    batch: dict[str, Any] = {"key": np.array(articles.keys), "embed_text_vector": vectors, "given": given}
    batch = planted.taken(batch, rows)
    models: Any = FoldOut(FoldOutParameters(given=TOPIC, classes=bbc.TOPICS))
    models.inputs = {"embed_text": embedding("embed_text", vectors.shape[1])}
    batch |= planted.finish(models, batch, shards)(batch)
    learned: Any = ConfidentLearning(ConfidentLearningParameters(given=TOPIC))
    learned.inputs = {"fold_out": models.writes()}
    learned.input_names = {"fold_out": bbc.TOPICS}
    planted.finish(learned, batch, shards)
    return Audit(batch, (given != articles.topics)[rows], models, learned)


def of_questions(audit: Audit) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and given classes, as the metric sees them."""
    answers = audit.learned.questions.answers(audit.batch)
    return answers.probabilities, answers.given


@pytest.fixture(scope="session", params=["uniform", "confusable"])
def audited(request: pytest.FixtureRequest, articles: bbc.Articles, vectors: np.ndarray) -> Audit:
    truth = articles.topics
    if request.param == "uniform":
        return audit(articles, vectors, bbc.uniform_errors(truth, SHARE, seed=1))
    return audit(articles, vectors, bbc.confusable_errors(truth, vectors, SHARE, seed=1))


def test_the_articles_are_all_there(articles: bbc.Articles) -> None:
    assert np.bincount(articles.topics).tolist() == [510, 386, 417, 511, 401]


def test_planted_errors_are_found(audited: Audit) -> None:
    found, wrong = audited.issue, audited.wrong
    assert wrong.sum() == round(SHARE * 2225)
    recall, precision = (found & wrong).sum() / wrong.sum(), (found & wrong).sum() / found.sum()
    print(f"recall {recall:.3f} precision {precision:.3f}")
    assert recall >= 0.8
    assert precision >= 0.7
    rates = audited.learned.finished[1]
    assert 0.1 < np.mean(rates["wrong_of_given"]) < 0.22


def test_the_mask_is_cleanlabs(audited: Audit) -> None:
    from cleanlab.filter import find_label_issues

    probabilities, given = of_questions(audited)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = find_label_issues(given, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    # Some articles are there twice: such rows tie, and cleanlab takes whichever sorting leaves first.
    only = [np.flatnonzero(each) for each in (audited.issue & ~expected, expected & ~audited.issue)]
    tied = [sorted((int(given[row]), probabilities[row].tobytes()) for row in rows) for rows in only]
    assert tied[0] == tied[1]
    assert len(only[0]) <= 3


@pytest.mark.parametrize("shards", [16, 64])
@pytest.mark.parametrize("order", ["shuffled", "by class"])
def test_shards_and_their_order_change_nothing(
    articles: bbc.Articles, vectors: np.ndarray, shards: int, order: str
) -> None:
    given = bbc.uniform_errors(articles.topics, SHARE, seed=1)
    expected = audit(articles, vectors, given, shards=1)
    rows = np.random.default_rng(4).permutation(len(given)) if order == "shuffled" else np.argsort(given, kind="stable")
    found = audit(articles, vectors, given, shards, rows)
    assert found.models.finished == expected.models.finished
    assert found.learned.finished == expected.learned.finished
    np.testing.assert_array_equal(found.issue, expected.issue[rows])


def test_a_model_that_learned_the_errors_finds_none(articles: bbc.Articles, vectors: np.ndarray) -> None:
    """What `max_agreement` guards against: in-sample probabilities of a model that can learn by heart."""
    from sklearn.neighbors import KNeighborsClassifier

    once = np.unique(vectors, axis=0, return_index=True)[1]
    given, vectors = bbc.uniform_errors(articles.topics, SHARE, seed=1)[once], vectors[once]
    seen = KNeighborsClassifier(1).fit(vectors, given).predict_proba(vectors)
    batch = {"key": np.array(articles.keys)[once], "given": given, **planted.columns("said", 0.9 * seen + 0.02)}
    learned: Any = ConfidentLearning(ConfidentLearningParameters(probabilities="said", given=TOPIC))
    learned = planted.told(learned, ["said"], 5)
    with pytest.raises(ValueError, match="never saw the row"):
        planted.finish(learned, batch)


@pytest.mark.parametrize("errors", ["random", "systematic"])
def test_a_student_outgrows_random_errors_and_a_pattern_is_told(
    articles: bbc.Articles, vectors: np.ndarray, errors: str
) -> None:
    """Labels of a model that is wrong in a quarter of the articles; every fifth was audited by people."""
    truth = articles.topics
    said = (
        bbc.uniform_errors(truth, 0.25, seed=2)
        if errors == "random"
        else bbc.confusable_errors(truth, vectors, 0.25, seed=2)
    )
    gold = np.where(np.arange(len(truth)) % 5 == 0, truth, -1)
    student: Any = Distil(DistilParameters(given=TOPIC, gold=ClassSource(field="people"), classes=bbc.TOPICS))
    student.inputs = {"embed_text": embedding("embed_text", vectors.shape[1])}
    batch = {"key": np.array(articles.keys), "embed_text_vector": vectors, "given": said, "gold": gold}
    planted.finish(student, batch, shards=4)
    found = student.finished[0]["gold"]
    assert found["systematic"] is (errors == "systematic")
    assert any("by a pattern" in line for line in student.warnings()) is (errors == "systematic")
    right = (student(batch)["distil_ids"][:, 0] == truth).mean()
    if errors == "random":
        assert found["student"] >= found["teacher"]
        assert right >= 0.9 > (said == truth).mean()
