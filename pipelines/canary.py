"""Canary: the shards that are labelled first, so that a gate judges them before the rest is paid for."""

import dataclasses
import math

from relabel.releases.profile import chosen

from .plan import Plan

FEWEST = 2
"""Shards of a canary, and of the rest: with fewer to label there is none."""


def canary_first(todo: Plan) -> list[Plan]:
    """The plan in one piece, or as a canary and the rest: the same shards in every run over the same ones."""
    gate = todo.job.recipe.gate
    share, names = 0.0 if gate.off else gate.canary, [entry.task.shard.name for entry in todo.todo]
    count = max(FEWEST, math.ceil(share * len(names)))
    if not share or len(names) < count + FEWEST:
        return [todo]
    first = set(chosen(names, count))
    return [
        dataclasses.replace(
            todo,
            todo=[entry for entry in todo.todo if (entry.task.shard.name in first) is canary],
            canary=canary,
            rest=not canary,
        )
        for canary in (True, False)
    ]
