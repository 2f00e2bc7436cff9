"""The error budget: kept or not at the end, early where it cannot be kept any more, and never by a burst."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.budget import EVIDENCE_SHARDS, Budget, budget_of, check_budget
from pipelines.loading import load
from pipelines.recipe import DeadLetters
from relabel.errors import TooManyDeadLetters, UsageError
from relabel.releases.receipts import Receipt
from relabel.testing.memory import MemoryStore


def finished(shard: str, rows: int, dead: int, reason: str = "operator_error", size: int = 0) -> Receipt:
    reasons = {reason: dead} if dead else {}
    return Receipt(
        shard=shard, size=size or rows, etag="", token=shard, content_sha256="", fingerprint="", generation=0,
        status="ok", reason="", detail="", rows=rows, ok=rows - dead, dead=dead, filtered=0, reasons=reasons,
        keys_sha256="", data=None, dead_letters=None, numerics={}, run_id="", attempt="",
    )  # fmt: skip


def unreadable(shard: str, reason: str = "truncated_shard") -> Receipt:
    empty = finished(shard, 0, 0, size=100)
    return dataclasses.replace(empty, status="dead", reason=reason, detail="ends early", ok=0)


def limits(**fields: object) -> DeadLetters:
    return DeadLetters.model_validate(fields)


def stops_after(budget: Budget, receipts: list[Receipt]) -> int | None:
    """How many shards are finished when the run stops; None: it does not."""
    for number, receipt in enumerate(receipts, 1):
        budget.add(receipt)
        if budget.overrun() is not None:
            return number
    return None


def test_a_run_whose_every_sample_dies_stops_early() -> None:
    dying = [finished(f"{n}.tar", 1000, 1000) for n in range(100)]
    assert stops_after(Budget(limits(), 100, 100_000), dying) == 10
    assert stops_after(Budget(limits(max_fraction=0.01), 100, 100_000), dying) == EVIDENCE_SHARDS


def test_a_burst_at_the_start_of_a_long_run_does_not_stop_it() -> None:
    burst = [finished(f"{n}.tar", 1000, 1000 if n < 40 else 0) for n in range(1000)]
    assert stops_after(Budget(limits(), 1000, 1_000_000), burst) is None
    assert stops_after(Budget(limits(max_fraction=0.03), 1000, 1_000_000), burst) is not None


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50), st.floats(1, 2)), min_size=1, max_size=30),
    st.floats(0, 1),
    st.integers(0, 20),
)
def test_who_is_stopped_could_not_have_kept_it(
    shards: list[tuple[int, int, float]], fraction: float, allow: int
) -> None:
    """Bytes per sample differ by up to a factor of two; whatever the order, an early stop is no false alarm."""
    receipts = [
        finished(f"{number}", rows, min(dead, rows), size=round(100 * rows * density))
        for number, (rows, dead, density) in enumerate(shards)
    ]
    budget = Budget(limits(max_fraction=fraction, allow=allow), len(receipts), sum(each.size for each in receipts))
    stopped = stops_after(budget, receipts)
    total_dead, rows = sum(each.dead for each in receipts), sum(each.rows for each in receipts)
    kept = total_dead <= max(allow, fraction * rows)
    assert not (stopped is not None and kept)
    assert kept or stopped is not None


def test_single_reasons_have_limits_of_their_own() -> None:
    strict = limits(
        max_fraction=1.0, per_reason={"corrupt_image": {"allow": 1}, "operator_error": {"max_fraction": 0.5}}
    )
    records = [finished("a", 10, 5), finished("b", 10, 1, "corrupt_image")]
    assert budget_of(strict, [10, 10], records).overrun() is None
    found = budget_of(strict, [10, 10], [*records[:1], finished("b", 10, 2, "corrupt_image")]).overrun()
    assert found is not None
    assert (found.field, found.lost) == ("dead_letters.per_reason.corrupt_image", 2)
    found = budget_of(limits(max_fraction=1.0, per_reason={"truncated_shard": {}}), [1], [unreadable("c")]).overrun()
    assert found is not None
    assert (found.what, found.reason) == ("shards", "truncated_shard")


def test_the_message_says_which_how_many_and_what_to_do() -> None:
    records = [finished("a", 10, 0), unreadable("b.tar")]
    with pytest.raises(TooManyDeadLetters, match="1 of 4 shards cannot be read") as caught:
        check_budget(MemoryStore(), budget_of(limits(), [1, 1, 1, 1], records), records)
    message = str(caught.value)
    for words in (
        "dead_letters allows 5.0%", "Stopped early with 2 of 4 shards finished", "b.tar: truncated_shard, ends early",
        "relabel dead STORE --open", "relabel replay RECIPE --open", "raise dead_letters.max_fraction", "run again",
    ):  # fmt: skip
        assert words in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "dead_letters.per_reason.corupt_image={allow: 1}",
            "unknown reason 'corupt_image'; did you mean 'corrupt_image'",
        ),
        ("dead_letters.per_reason.where={allow: 1}", "unknown reason 'where'"),
        ("dead_letters.per_reason.corrupt_image={alow: 1}", "did you mean 'allow'"),
        ("publish=0%", "expected 1% to 100% of the shards, or at least 10m, got 0%"),
        ("publish=0.9%", "got 0.9%"),
        ("publish=110%", "got 110%"),
        ("publish=599s", "got 599s"),
        ("publish=often", "every"),
        ("publish={evry: 10%}", "did you mean 'every'"),
    ],
)
def test_mistakes_in_a_recipe_are_named(override: str, words: str) -> None:
    recipe = {"source": "s/*.tar", "steps": [{"label_map": {}}], "store": "s"}
    with pytest.raises(UsageError, match=words):
        load(recipe, [override])
