"""caption_match: words and wholes against the true caption, by cases worked out by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel.labelers.labeler import Batch
from relabel.labelers.packing import pack, unpack
from relabel.labels.caption import caption_contract
from relabel.labels.kinds import text
from relabel.metrics.caption_match import CaptionMatch, CaptionMatchParameters, word_f1, words_of
from relabel.metrics.caption_metric import texts_of
from relabel.testing import check_labeler

CAPTIONS = caption_contract("caption", ["short", "long"], logprobs=True, reproducible=True, old=True)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("A red car.", ["red", "car"]),
        ("The  CAT\tsat", ["cat", "sat"]),
        ("don't stop", ["dont", "stop"]),
        ("don’t stop", ["dont", "stop"]),
        ("ice-cream, black/white", ["ice", "cream", "black", "white"]),
        ("Straße", ["strasse"]),
        ("ＷＩＤＥ １２", ["wide", "12"]),
        ("Cafe\u0301 café", ["café", "café"]),
        ("snake_case & 3.5 $", ["snake", "case", "3", "5"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("the a an", []),
        ("…!", []),
        ("", []),
    ],
)
def test_words(written: str, words: list[str]) -> None:
    assert words_of(written) == words


@pytest.mark.parametrize(
    ("said", "gold", "f1"),
    [
        ("a red car", "the red car", 1.0),
        ("red car", "car red", 1.0),  # order does not count
        ("red red car", "red car", 2 * 2 / 5),  # each word as often as both have it
        ("a blue car", "a red car", 2 * 1 / 4),
        ("a red car on a road", "a red car", 2 * 2 / (4 + 2)),  # red car on road
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("a", "cat", 0.0),  # only an article
    ],
)
def test_word_f1(said: str, gold: str, f1: float) -> None:
    assert word_f1(words_of(said), words_of(gold)) == pytest.approx(f1, abs=1e-12)


words = st.lists(st.sampled_from(["red", "blue", "car", "dog"]), max_size=6)


@given(words, words)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(said: list[str], gold: list[str]) -> None:
    common = sum(min(said.count(word), gold.count(word)) for word in set(said))
    f1 = word_f1(said, gold)
    assert f1 == word_f1(gold, said)
    assert (f1 == 1) == (bool(said) and sorted(said) == sorted(gold))
    if common:
        precision, recall = common / len(said), common / len(gold)
        assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
    else:
        assert f1 == 0


def matcher(**parameters: Any) -> CaptionMatch:
    made = CaptionMatch(CaptionMatchParameters(**parameters))
    made.inputs = {"caption": CAPTIONS}
    return made


def sample(short: str, long: str, old: str, gold: str | bytes | None) -> dict[str, Any]:
    spoken = {"caption_short_text": short, "caption_long_text": long, "caption_old": old}
    return spoken if gold is None else {**spoken, "gold": gold}


def measure(labeler: CaptionMatch, samples: list[dict[str, Any]]) -> dict[str, list[float]]:
    fields = [{name: each[name] for name in labeler.wants if name in each} for each in samples]
    batch: dict[str, Any] = dict(unpack(pack([labeler.prepare(each) for each in fields])))
    batch.update({name: [each[name] for each in samples] for name in samples[0] if name.startswith("caption_")})
    return {name.removeprefix("caption_match_"): np.asarray(values).tolist() for name, values in call(labeler, batch)}


def call(labeler: CaptionMatch, batch: Batch) -> Any:
    return labeler(batch).items()


def test_styles_and_old_captions_are_measured() -> None:
    rows = [
        sample("A red car.", "a red car on grass", "IMG_1.jpg", "The red car"),
        sample("a dog", "a cat", "", b"a cat"),
        sample("a dog", "a cat", "a dog", None),
        sample("a dog", "a cat", "a dog", " ... "),
    ]
    assert measure(matcher(), rows) == {
        "short_f1": [1.0, 0.0, -1.0, -1.0],
        "short_exact": [1.0, 0.0, -1.0, -1.0],
        "long_f1": [pytest.approx(2 * 2 / 6), 1.0, -1.0, -1.0],
        "long_exact": [0.0, 1.0, -1.0, -1.0],
        "old_f1": [0.0, 0.0, -1.0, -1.0],
        "old_exact": [0.0, 0.0, -1.0, -1.0],
    }


def test_other_articles_and_other_fields() -> None:
    row = {**sample("das Auto", "", "", None), "truth": "ein Auto", "alt": "das Auto da"}
    found = measure(matcher(gold="truth", articles=("das", "ein"), styles=("short",), old_caption="alt"), [row])
    assert found == {"short_f1": [1.0], "short_exact": [1.0], "old_f1": [pytest.approx(2 / 3)], "old_exact": [0.0]}


def test_the_contract_names_rivals() -> None:
    contract = matcher(styles=("short",)).writes()
    assert contract.rivals == (("short_f1", "old_f1"), ("short_exact", "old_exact"))
    assert contract.no_score == -1
    plain = CaptionMatch(CaptionMatchParameters(captions="said"))
    plain.inputs = {"said": text("said")}
    assert [column.name for column in plain.writes().columns] == ["caption_match_text_f1", "caption_match_text_exact"]
    assert plain.writes().rivals is None


def test_which_columns_are_texts() -> None:
    assert texts_of(CAPTIONS).styles == {"short": "caption_short_text", "long": "caption_long_text"}
    assert texts_of(CAPTIONS).old == "caption_old"
    assert texts_of(text("said", "summary")).styles == {"summary": "said_summary"}
    assert texts_of(text("said")).old is None


def test_it_keeps_the_rules() -> None:
    rows = [sample("a red car", "a dog", "", f"a {word} car") for word in ("red", "blue", "dog", "red car")]
    check_labeler(matcher(), rows, compute_batch=3)
    check_labeler(matcher(old_caption="alt"), [{**row, "alt": b"a red dog"} for row in rows], compute_batch=2)
