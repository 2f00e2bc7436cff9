"""The captions experiment rests on this: retrieval counts what it says, arms give their texts, pairs are learned."""

import numpy as np
import pytest
import torch
from gains import pairing
from gains.captions import ARMS, GOLD, Slim

COLOURS = ("red", "green", "blue", "grey", "pink")


def test_equal_texts_are_each_others_hits() -> None:
    assert pairing.same_text(["a", "b", "a"], ["a", "c"]).tolist() == [[True, False], [False, False], [True, False]]


def test_words_are_numbered_without_case_and_an_empty_text_has_one_of_its_own() -> None:
    assert pairing.words_of("A Crow, a crow") == [*pairing.words_of("a crow")] * 2
    assert pairing.words_of("...") == [pairing.WORDS - 1] == pairing.words_of("")
    assert max(pairing.words_of(" ".join(map(str, range(5000))))) < pairing.WORDS - 1


class Given(pairing.Pairs):
    """Vectors as they are told."""

    def __init__(self, texts: torch.Tensor) -> None:
        super().__init__(2)
        self.given = texts

    def images(self, features: torch.Tensor) -> torch.Tensor:
        return features

    def texts(self, texts: "list[str]") -> torch.Tensor:  # type: ignore[override]
        return self.given


def test_retrieval_counts_firsts_and_fives() -> None:
    images = torch.eye(6)
    right = pairing.retrieve(Given(torch.eye(6)), images, list("abcdef"))
    assert (right.first, right.five, right.text) == (1, 1, 1)
    turned = torch.roll(torch.eye(6), 1, 0) * 2 + torch.eye(6)
    wrong = pairing.retrieve(Given(turned), images, list("abcdef"))
    assert (wrong.first, wrong.five, wrong.text) == (0, 1, 0)
    same = pairing.retrieve(Given(turned), images, ["a"] * 6)
    assert (same.first, same.text) == (1, 1), "any image with the same text is one"


def test_pairs_are_learned_and_equal_seeds_learn_equally() -> None:
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    kinds = {f"{number}": number % len(COLOURS) for number in range(100)}
    vectors = {
        key: torch.from_numpy((np.eye(8)[kind] * 3 + random.normal(0, 0.3, 8)).astype(np.float32))
        for key, kind in kinds.items()
    }

    def stream() -> "list[tuple[list[str], list[str]]]":
        draws = np.random.default_rng(1)
        keys = [[f"{number}" for number in draws.integers(0, 80, 20)] for _ in range(80)]
        return [(each, [f"a {COLOURS[kinds[key]]} thing" for key in each]) for each in keys]

    one, again, other = (pairing.train(stream(), 80, vectors, seed, 5e-3) for seed in (0, 0, 1))
    held = [f"{number}" for number in range(80, 100)]
    features = torch.stack([vectors[key] for key in held])
    texts = [f"a {COLOURS[kinds[key]]} thing" for key in held]
    assert pairing.retrieve(one, features, texts).first > 0.9
    assert torch.equal(one.words.weight, again.words.weight)
    assert not torch.equal(one.words.weight, other.words.weight)
    with pytest.raises(ValueError, match="expected 90 batches, got 80"):
        pairing.train(stream(), 90, vectors, 0, 1e-3)


def test_people_say_both_kinds_in_turn_and_training_gets_no_more_than_it_needs() -> None:
    sample = {"__key__": "7", "gold.short.txt": b"a crow", "gold.long.txt": "a crow over a lake", "jpg": b"bytes"}
    said = {Slim()(ARMS[GOLD]({**sample, "__pick__": pick << 40}))["caption"] for pick in range(4)}
    assert said == {"a crow", "a crow over a lake"}
    assert set(Slim()(ARMS[GOLD]({**sample, "__pick__": 0}))) == {"__key__", "caption"}
