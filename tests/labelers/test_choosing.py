"""Choosing tokens: the right distribution, by the request's numbers alone; texts as paths of tokens."""

import math

import numpy as np
import pytest
import torch

from relabel.errors import UsageError
from relabel.labelers.engines.answers import Answer, uniforms
from relabel.labelers.engines.choosing import Chooser, draw, nucleus, penalised
from relabel.labelers.engines.protocol import Decoding, Request
from relabel.labelers.engines.tries import choices_of

LOGITS = [1.0, 0.2, -0.5, 2.0, -3.0, 0.0]
SEEDS = 6000


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    kept = expected > 0
    assert counts[~kept].sum() == 0
    return float(((counts - expected)[kept] ** 2 / expected[kept]).sum())


def softmax(logits: list[float], temperature: float) -> np.ndarray:
    powers = np.exp(np.array(logits) / temperature)
    return powers / powers.sum()


@pytest.mark.parametrize(
    ("decoding", "kept"),
    [
        (Decoding(temperature=1.0), [0, 1, 2, 3, 4, 5]),
        (Decoding(temperature=0.5), [0, 1, 2, 3, 4, 5]),
        (Decoding(temperature=2.0, top_k=3), [0, 1, 3]),
        (Decoding(temperature=1.0, top_p=0.7), [0, 3]),
        (Decoding(temperature=1.0, top_k=4, top_p=0.9), [0, 1, 3]),
    ],
    ids=["plain", "cold", "top_k", "top_p", "both"],
)
def test_tokens_come_as_often_as_they_should(decoding: Decoding, kept: list[int]) -> None:
    """Pearson's statistic over seeds, of their first and of a later token: mean 5 at most, 30 is one in 100,000."""
    wanted = softmax(LOGITS, decoding.temperature)
    wanted = np.where(np.isin(np.arange(6), kept), wanted, 0)
    for step in (0, 7):
        numbers = torch.tensor([uniforms(seed, 8)[step] for seed in range(SEEDS)])
        drawn = draw(torch.tensor([LOGITS] * SEEDS), decoding, numbers)
        counts = np.bincount(drawn.numpy(), minlength=6)
        assert chi_square(counts, wanted / wanted.sum() * SEEDS) < 30
        assert chi_square(counts, softmax([0.5, *LOGITS[1:]], 1.0) * SEEDS) > 30 if len(kept) == 6 else True


def test_numbers_are_a_function_of_seed_and_step() -> None:
    assert (uniforms(5, 100)[:7] == uniforms(5, 7)).all()
    assert len({float(number) for seed in (0, 1, 2**63 - 1) for number in uniforms(seed, 50)}) == 150
    assert (uniforms(1, 1000) < 1).all()
    assert uniforms(0, 2).tolist() == [0.011546754286331562, 0.24154919656271812]


def test_a_draw_at_the_edges_is_a_possible_token() -> None:
    logits = torch.tensor([[-math.inf, 0.0, 1.0, -math.inf]] * 3)
    numbers = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits, Decoding(temperature=1.0), numbers).tolist()[::2] == [1, 2]


def test_a_nucleus_is_found_among_many_tokens_as_among_few() -> None:
    """Flat distributions need more than the sorted prefix; equal logits at its edge are all kept."""
    drawn = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0))
    logits = torch.stack([drawn[0] * 0.01, drawn[1] * 5, torch.zeros(5000)])
    for row, least in enumerate(nucleus(logits, 0.9)[:, 0]):
        kept = logits[row][logits[row] >= least].double()
        total = logits[row].double().exp().sum()
        assert kept.exp().sum() / total >= 0.9 - 1e-5
        assert (kept[kept > least].exp().sum() / total < 0.9) or row == 2
    assert int((logits[2] >= nucleus(logits, 0.9)[2]).sum()) == 5000


def test_a_row_is_drawn_alone_as_among_others() -> None:
    logits = torch.randn(7, 3001, generator=torch.Generator().manual_seed(1)) * 3
    numbers = torch.from_numpy(uniforms(3, 7))
    for decoding in (
        Decoding(temperature=0.7, top_p=0.95),
        Decoding(temperature=1.0, top_k=40),
        Decoding(temperature=2.0),
    ):
        together = draw(logits, decoding, numbers)
        assert [
            int(draw(logits[row : row + 1], decoding, numbers[row : row + 1])) for row in range(7)
        ] == together.tolist()


def test_what_occurred_is_penalised() -> None:
    seen = torch.tensor([[True, True, False]])
    assert penalised(torch.tensor([[2.0, -2.0, 2.0]]), seen, 2.0).tolist() == [[1.0, -4.0, 2.0]]


class Letters:
    """A tokenizer of which every letter is a token."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) - ord("a") + 1 for letter in text]}

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(chr(ord("a") + each - 1) for each in ids)


def asked(choices: tuple[str, ...], max_tokens: int = 5, most: int = 1) -> Request:
    return Request(prompt="", decoding=Decoding(max_tokens=max_tokens), choices=choices, most=most)


def test_choices_that_cannot_be_given_are_refused() -> None:
    ends = frozenset({0})
    for choices, most in ((("",), 5), (("abcdef",), 5), ((), 5)):
        with pytest.raises(UsageError, match="expected"):
            choices_of(asked(choices, most), Letters(), ends)
    with pytest.raises(UsageError, match="same tokens"):
        choices_of(asked(("ab", "ab")), Letters(), ends)
    with pytest.raises(UsageError, match="no end token"):
        choices_of(asked(("ab", "abc")), Letters(), frozenset())


def test_mixed_rows_are_chosen_each_by_its_own_decoding() -> None:
    logits = torch.full((4, 5), -1.0)
    logits[:, 3], logits[:, 2] = 4.0, 3.9
    decodings = [Decoding(), Decoding(repetition_penalty=2.0), Decoding(temperature=1.0, top_k=1)]
    answers = [
        Answer(Request(prompt="", decoding=decoding, choices=None), (3,), Letters(), frozenset({0}), None)
        for decoding in decodings
    ]
    chosen_among = choices_of(asked(("a", "b")), Letters(), frozenset({0}))
    answers.append(Answer(Request(prompt="", decoding=Decoding()), (3,), Letters(), frozenset({0}), chosen_among))
    chooser = Chooser(answers, 4, 5, 0, torch.device("cpu"))
    left = chooser(torch.zeros((4, 1), dtype=torch.int64), logits)
    assert left.argmax(1).tolist() == [3, 2, 3, 2]
    assert [answer.tokens for answer in answers] == [[3], [2], [3], [2]]
    assert chooser.done(torch.zeros((4, 1)), None).tolist() == [False, False, False, True]
    assert answers[3].reply(0.0).text == "b"
    assert answers[0].logprobs[0] == pytest.approx(float(logits[0].log_softmax(0)[3]), abs=1e-6)


def test_a_model_that_gives_no_numbers_is_no_answer() -> None:
    answer = Answer(Request(prompt="", decoding=Decoding()), (1,), Letters(), frozenset(), None)
    with pytest.raises(ValueError, match="finite"):
        Chooser([answer], 1, 3, 0, torch.device("cpu"))(torch.zeros((1, 1)), torch.full((1, 3), math.nan))
