"""check_statistic: what keeps the law passes, and whoever breaks it is told how."""

import numpy as np
import pytest
from broken_statistics import BROKEN, Good, KeepsAll

from relabel.statistics.statistic import Rows
from relabel.testing import RuleBroken, check_statistic

BATCHES: list[Rows] = [
    {"key": np.array([f"{first}-{row}" for row in range(5)]), "values": np.arange(5) ** 1.5 + first / 3}
    for first in range(4)
]


def test_what_keeps_the_law_passes() -> None:
    check_statistic(Good(), BATCHES)
    check_statistic(KeepsAll(), BATCHES, partitions=5, max_bytes=10_000)


@pytest.mark.parametrize(("cls", "lesson"), BROKEN.items(), ids=[cls.__name__ for cls in BROKEN])
def test_every_broken_law_is_told(cls: type[Good], lesson: str) -> None:
    with pytest.raises(RuleBroken) as caught:
        check_statistic(cls(), BATCHES, partitions=20)
    assert lesson in str(caught.value)


def test_lists_of_any_length_are_rows_too() -> None:
    batches: list[Rows] = [{"values": np.ones(3), "words": [["a"], [], ["b", "c"]]} for _ in range(3)]
    check_statistic(Good(), batches, partitions=5)


def test_eight_rows_are_wanted() -> None:
    with pytest.raises(RuleBroken, match="at least eight rows"):
        check_statistic(Good(), BATCHES[:1])
