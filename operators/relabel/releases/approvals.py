"""Approvals: what people say of a candidate that passed its gate and waits for them.

`approvals/<run id>/<group>.json` is created once: a group decides on a candidate once, and the first word stands.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from ..digests import Json
from ..errors import Refused, UsageError
from ..storage.objects import ObjectStore
from . import notices
from .candidates import Candidate, candidate_path
from .commit import Draft, Judge, Proposal, commit, moment
from .leases import server_now
from .receipts import Receipts
from .revert import receipt_of, refuse_unfit
from .segments import read_segments
from .versions import Version, read_version, version_numbers

FOLDER = "approvals"
DAY_SECONDS = 86_400.0

Word = Literal["approved", "rejected"]


@dataclasses.dataclass(frozen=True)
class Decision:
    """What one group said."""

    run_id: str
    """Of the candidate."""
    group: str
    word: Word
    by: str
    reason: str
    content_digest: str
    """Of the candidate: what it is about."""
    created: str
    """UTC, ISO 8601; for people."""

    def to_json(self) -> dict[str, Json]:
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return f"{self.word} by {self.by} ({self.group}) at {self.created}: {self.reason}"


def groups_of(candidate: Candidate) -> list[str]:
    """Who must approve it; nobody where it was refused."""
    asked = (candidate.version.gate or {}).get("approval")
    return list(asked["groups"]) if asked else []


def decision_path(run_id: str, group: str) -> str:
    return f"{FOLDER}/{run_id}/{group}.json"


def read_decisions(store: ObjectStore, run_id: str) -> dict[str, Decision]:
    """Group -> what it said of a candidate."""
    found = notices.read_all(store, f"{FOLDER}/{run_id}")
    return {str(fields["group"]): Decision(**fields) for fields in found.values()}


def expires_in(store: ObjectStore, candidate: Candidate) -> float:
    """Seconds until a candidate can be approved no more, by the server's clock; negative where that is over."""
    days = float(candidate.version.gate["approval"]["days"])
    return store.head(candidate_path(candidate.run_id)).modified + days * DAY_SECONDS - server_now(store)


def decide(store: ObjectStore, candidate: Candidate, word: Word, by: str, reason: str, group: str | None) -> Decision:
    """Record what a group says; the first word stands. `group` may be left out where there is one only.

    Raises Refused where the candidate does not wait for approval, waits no more, or the group said something else.
    """
    groups = groups_of(candidate)
    if not groups:
        raise Refused(
            f"candidate {candidate.run_id} does not wait for approval: the gate refused it. `relabel publish RECIPE "
            '--force --reason "..."` publishes it all the same.'
        )
    if not by.strip() or not reason.strip():
        raise UsageError("a decision needs --by and --reason: the release will carry them.")
    if group is None and len(groups) > 1:
        raise UsageError(f"say for whom: --group, one of {', '.join(groups)}.")
    if group is not None and group not in groups:
        raise UsageError(f"candidate {candidate.run_id} waits for {', '.join(groups)}, not for {group!r}.")
    require_current(store, candidate)
    if (left := expires_in(store, candidate)) <= 0:
        raise Refused(
            f"candidate {candidate.run_id} expired {-left / 3600:.1f} h ago and cannot be approved any more. Run the "
            "recipe again: nothing is labelled anew, and a new candidate waits."
        )
    group = group or groups[0]
    said = Decision(
        candidate.run_id, group, word, by.strip(), reason.strip(), candidate.version.content_digest, moment()
    )
    stands = Decision(**notices.post(store, decision_path(candidate.run_id, group), said.to_json()))
    if stands.word != word:
        raise Refused(f"{group} decided already: {stands}. That stands; other labels make a new candidate.")
    return stands


def approved(store: ObjectStore, candidate: Candidate) -> dict[str, Decision] | None:
    """The decisions of all groups, where every one has approved."""
    decisions = read_decisions(store, candidate.run_id)
    groups = groups_of(candidate)
    if not all(group in decisions and decisions[group].word == "approved" for group in groups):
        return None
    return {group: decisions[group] for group in groups}


def publish_approved(
    store: ObjectStore,
    candidate: Candidate,
    decisions: Mapping[str, Decision],
    around: Callable[[Judge], Judge] = lambda judge: judge,
) -> Version:
    """Publish a candidate as it was approved; nothing where it stands already.

    `around`: what else is made of it before it is published.
    Raises Refused where another release was published since, or data of it is gone.
    """
    wanted, parent = candidate.version, require_current(store, candidate)
    if parent is not None and parent.run_id == wanted.run_id:
        return parent
    entries = read_segments(store, wanted.segments)
    refuse_unfit(store, wanted, entries)
    recorded = Receipts(store, wanted.meaning).load()
    held = read_segments(store, parent.segments) if parent else {}

    def gate(proposal: Proposal) -> Version:
        if proposal.version.content_digest != wanted.content_digest:
            raise lapsed(store, candidate, proposal.history[-1])
        return proposal.version.model_copy(update={"gate": with_decisions(wanted.gate, decisions)})

    return commit(
        store,
        Draft(
            run_id=wanted.run_id,
            parent=wanted.parent,
            labels=wanted.labels,
            receipts=[receipt_of(wanted, entry, wanted.parent, recorded) for entry in entries.values()],
            num_source_shards=len(entries),
            coverage=wanted.coverage,
            removed=[shard for shard in held if shard not in entries],
            selection=wanted.selection,
            source=wanted.source,
            recipe=wanted.recipe,
            gate=around(gate),
            meta=wanted.meta,
            usage=wanted.usage,
        ),
    )


def require_current(store: ObjectStore, candidate: Candidate) -> Version | None:
    """The newest release, which the candidate follows, or is; raises Refused where another one was published since."""
    numbers = version_numbers(store)
    newest = read_version(store, numbers[-1]) if numbers else None
    wanted = candidate.version
    if (newest.number if newest else 0) != wanted.parent and (newest is None or newest.run_id != wanted.run_id):
        raise lapsed(store, candidate, newest)
    return newest


def lapsed(store: ObjectStore, candidate: Candidate, newest: Version | None) -> Refused:
    number = newest.number if newest else 0
    return Refused(
        f"candidate {candidate.run_id} follows release {candidate.version.parent}, and {number} is the newest of "
        f"{store.url} now: what was approved is not what would be published. Run the recipe again: what is labelled "
        "stays, and a new candidate waits."
    )


def with_decisions(gate: Json, decisions: Mapping[str, Decision]) -> Json:
    """A verdict that says who approved."""
    told = {group: decision.to_json() for group, decision in decisions.items()}
    return {**gate, "approval": {**gate["approval"], "decisions": told}}


def waiting(store: ObjectStore, candidates: Sequence[Candidate], like: Version) -> Candidate | None:
    """The newest candidate with the same labels on the same release that somebody may still decide on, or rejected."""
    for each in reversed(candidates):
        version = each.version
        if not groups_of(each) or (version.content_digest, version.parent) != (like.content_digest, like.parent):
            continue
        if any(decision.word == "rejected" for decision in read_decisions(store, each.run_id).values()):
            return each
        if groups_of(each) == groups_of(Candidate(like)) and expires_in(store, each) > 0:
            return each
    return None
