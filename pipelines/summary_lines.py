"""Summary lines: what a release says on the whole, for a terminal: numbers, flags, how often new beats old."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from relabel.labels.distribution import QUANTILES, Distribution
from relabel.labels.summary import Contest, Flags, Summary

SHOWN_FLAGS = 8

V = TypeVar("V")


def tell_summary(summary: Summary | None, shards: int) -> Iterator[str]:
    """Everything, a line each; `shards`: how many the release has that could be read."""
    if summary is None:
        return
    if summary.shards < shards:
        yield f"summary   of {summary.shards} of {shards} shards: an older relabel labelled the others"
    width = max(map(len, [*summary.numbers, *summary.flags, ""]))
    for name, spread in sorted(summary.numbers.items()):
        yield f"numbers   {name:<{width}}  {tell_numbers(spread)}"
    for name, flags in sorted(summary.flags.items()):
        yield f"flags     {name:<{width}}  {tell_flags(flags)}"
    for (new, old), contest in sorted(summary.contests.items()):
        yield f"wins      {new} > {old}: {tell_contest(contest)}"


def tell_numbers(spread: Distribution) -> str:
    quantiles = ", ".join(short(spread.quantile(share)) for share in QUANTILES)
    shares = ", ".join(f"{100 * share:g}" for share in QUANTILES)
    ends = f"{short(spread.smallest)} to {short(spread.largest)}"
    return f"mean {short(spread.mean)}, {ends}; {quantiles} at {shares} % of {spread.count}"


def tell_flags(flags: Flags) -> str:
    """Most frequent first."""
    ordered = sorted(flags.counts.items(), key=lambda each: (-each[1], each[0]))
    more = f" and {len(ordered) - SHOWN_FLAGS} more" if len(ordered) > SHOWN_FLAGS else ""
    shown = ", ".join(f"{rate(number, flags.rows)} {name}" for name, number in ordered[:SHOWN_FLAGS])
    return f"{shown or 'none'}{more}; of {flags.rows}"


def tell_contest(contest: Contest) -> str:
    equal = f", {rate(contest.equal, contest.rows)} equal" if contest.equal else ""
    return f"{rate(contest.larger, contest.rows)} of {contest.rows}{equal}" if contest.rows else "no row has both"


def tell_briefly(summary: Summary | None) -> str:
    """How often new beats old, on one line; empty where nothing competes."""
    wins = sorted(summary.contests.items()) if summary else []
    return ", ".join(f"{new} > {old}: {rate(each.larger, each.rows)}" for (new, old), each in wins if each.rows)


def tell_changes(before: Summary | None, after: Summary | None) -> Iterator[str]:
    """What is not the same; nothing where either release has no summary."""
    if before is None or after is None:
        return
    for name, one, other in pairs(before.numbers, after.numbers):
        if one != other:
            ends = (f"mean {short(each.mean)}, half below {short(each.quantile(0.5))}" for each in (one, other))
            yield f"numbers   {name}: {' -> '.join(ends)}"
    for name, mine, others in pairs(before.flags, after.flags):
        for flag in sorted(mine.counts.keys() | others.counts.keys()):
            shares = [rate(each.counts.get(flag, 0), each.rows) for each in (mine, others)]
            if shares[0] != shares[1]:
                yield f"flags     {name}: {shares[0]} -> {shares[1]} {flag}"
    for (new, old), was, now in pairs(before.contests, after.contests):
        if was != now:
            yield f"wins      {new} > {old}: {tell_contest(was)} -> {tell_contest(now)}"


def pairs(before: Mapping[Any, V], after: Mapping[Any, V]) -> Sequence[tuple[Any, V, V]]:
    """What both have, by name."""
    return [(name, before[name], after[name]) for name in sorted(before.keys() & after.keys())]


def short(number: float) -> str:
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def rate(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %" if whole else "0 %"
