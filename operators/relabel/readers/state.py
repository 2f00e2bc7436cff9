"""State: how far an epoch went, as a small JSON value: written by one stream or for all, read by any number of them.

It names the release by content, the plan, the seed and how positions were dealt; nothing of it is a pickle.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import Refused, UsageError
from .dealing import Stage

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class State:
    """Stages that ended, and the one that is going on."""

    identity: Mapping[str, Any]
    """What must be the same: release, plan, seed, shuffle."""
    epoch: int
    stages: tuple[Stage, ...]
    """The last one may go on; those before it ended."""
    turn: int = 0
    """The worker whose turn it is."""
    stream: int | None = None
    """Whose state it is: only that stream's count of the last stage is known. None: all are."""

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT, **self.identity, "epoch": self.epoch, "turn": self.turn, "stream": self.stream,
            "stages": [stage.to_json() for stage in self.stages],
        }  # fmt: skip


def read_state(value: Mapping[str, Any] | Sequence[Mapping[str, Any]], identity: Mapping[str, Any]) -> State:
    """A state that `state_dict` gave, or those of several streams together.

    Raises UsageError where it is none, Refused where it is of another release, another plan or another seed.
    """
    if isinstance(value, Mapping):
        return read_one(value, identity)
    states = [read_one(each, identity) for each in value]
    if not states:
        raise UsageError("no state was given: expected what state_dict returned, or a list of that.")
    return merged(states)


def read_one(value: Mapping[str, Any], identity: Mapping[str, Any]) -> State:
    if not isinstance(value, Mapping) or value.get("format") != FORMAT:
        raise UsageError(
            f"this is not a state of format {FORMAT} that a dataset's state_dict gave. Of a StatefulDataLoader, load "
            "it into the loader, or give `relabel.stream_states(state)` to the dataset."
        )
    for name, expected in identity.items():
        if value.get(name) != expected:
            raise Refused(f"this state is of {name} {value.get(name)!r}, the dataset of {expected!r}. {ADVICE[name]}")
    stages = tuple(Stage.from_json(each) for each in value.get("stages", ()))
    return State(identity, int(value["epoch"]), stages, int(value["turn"]), value["stream"])


ADVICE = {
    "release": "Open the release that the state names, by its number; or begin a new epoch.",
    "content_digest": "Open the release that the state names; this one has other labels. Or begin a new epoch.",
    "others": "Take the columns from the same other releases, or begin a new epoch.",
    "plan": "Samples were withdrawn since, or the source has other shards: positions do not mean the same any more. "
    "Begin a new epoch with set_epoch.",
    "seed": "Make the dataset with the state's seed.",
    "shuffle": "Make the dataset with the state's shuffle.",
}


def merged(states: Sequence[State]) -> State:
    """Of the streams of one rank (all ranks are then taken to be equally far, as training in step is), or of all."""
    first = states[0]
    deal, before = (first.stages[-1].deal, first.stages[:-1]) if first.stages else (None, ())
    given: dict[int, int] = {}
    for state in states:
        same = state.stages and state.stages[-1].deal == deal and state.stages[:-1] == before
        if state.stream is None or not same or state.epoch != first.epoch:
            raise UsageError("these states are not those of streams of one loader at one moment.")
        given[state.stream] = state.stages[-1].given[state.stream]
    assert deal is not None
    ranks = {stream // deal.workers for stream in given}
    known = {stream % deal.workers: count for stream, count in given.items()}
    if len(ranks) == 1 and len(known) == deal.workers and deal.remainder != "exact":
        given = {stream: known[stream % deal.workers] for stream in range(deal.streams)}
    if len(given) != deal.streams:
        lacking = sorted(set(range(deal.streams)) - given.keys())
        raise UsageError(f"the states of streams {lacking[:8]} are missing; give those of all workers of all ranks.")
    whole = Stage(deal, tuple(given[stream] for stream in range(deal.streams)))
    return State(first.identity, first.epoch, (*before, whole))


def stream_states(loader_state: Any) -> list[dict[str, Any]]:
    """The states of all workers in the state of a torchdata StatefulDataLoader, for a dataset's `load_state_dict`."""
    found: list[dict[str, Any]] = []
    if isinstance(loader_state, Mapping):
        if loader_state.get("format") == FORMAT and "stages" in loader_state:
            return [dict(loader_state)]
        for value in loader_state.values():
            found += stream_states(value)
    return found
