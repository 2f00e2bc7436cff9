"""Draws: pure functions of seed and purpose, spread as they say."""

import numpy as np
import pytest

from relabel.errors import UsageError
from relabel.readers.draws import Draws, draws_of, picks

EXPECTED = [0.91833117396, 0.327319897205, 0.764462573142]
PICK = 2989323854690224525


def test_the_same_seed_and_purpose_draw_the_same_and_others_do_not() -> None:
    first = [Draws(7, "crop").uniform() for _ in range(2)]
    assert first[0] == first[1]
    streams = {(seed, purpose): [draws.uniform() for _ in range(20)] for seed in (7, 8) for purpose in ("crop", "mix")
               for draws in [Draws(seed, purpose)]}  # fmt: skip
    assert len({number for stream in streams.values() for number in stream}) == 80


def test_draws_outlast_versions() -> None:
    draws = Draws(123, "crop")
    assert [round(draws.uniform(), 12) for _ in range(3)] == EXPECTED
    assert picks(0, 1, ["b", "a"])("key") == PICK == picks(0, 1, ["a", "b"])("key")


def test_a_pick_depends_on_seed_epoch_labels_and_key() -> None:
    ways = [(0, 0, ["a"], "k"), (1, 0, ["a"], "k"), (0, 1, ["a"], "k"), (0, 0, ["b"], "k"), (0, 0, ["a", "b"], "k"),
            (0, 0, ["a"], "l"), (0, 0, ["a"], "bad \udcff name")]  # fmt: skip
    found = [picks(seed, epoch, labels)(key) for seed, epoch, labels, key in ways]
    assert len(set(found)) == len(ways)
    assert all(0 <= pick < 2**63 for pick in found)


def test_numbers_are_spread_evenly() -> None:
    numbers = np.array([Draws(seed, "x").uniform() for seed in range(5000)])
    counts, _ = np.histogram(numbers, 20, (0, 1))
    assert np.abs(counts - 250).max() < 5 * 250**0.5
    assert {Draws(seed, "x").below(3) for seed in range(50)} == {0, 1, 2}
    assert Draws(1, "x").below(1) == 0


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 2.0, 8.0])
def test_beta_has_the_moments_of_beta(alpha: float) -> None:
    numbers = np.array([Draws(seed, "beta").beta(alpha) for seed in range(3000)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert ((numbers >= 0) & (numbers <= 1)).all()
    assert numbers.mean() == pytest.approx(0.5, abs=5 * (variance / 3000) ** 0.5)
    assert numbers.var() == pytest.approx(variance, rel=0.12)


def test_a_tiny_alpha_is_all_or_nothing() -> None:
    numbers = [Draws(seed, "beta").beta(1e-3) for seed in range(200)]
    assert {round(number) for number in numbers} == {0, 1}


def test_a_sample_without_a_seed_is_refused() -> None:
    with pytest.raises(UsageError, match="`__seed__`"):
        draws_of({"image": 1}, "crop")
