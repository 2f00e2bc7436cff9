"""Gatekeeper: asks the gate before a run publishes, and keeps a candidate that it refused."""

import dataclasses
import shlex
import sys
from collections import Counter
from collections.abc import Sequence

from relabel.errors import AwaitsApproval, Refused
from relabel.releases.approvals import read_decisions, waiting, with_decisions
from relabel.releases.candidates import Candidate, keep_candidate, read_candidates
from relabel.releases.commit import Proposal
from relabel.releases.recalls import find_recall, read_recalls
from relabel.releases.release import CANDIDATE, Release
from relabel.releases.versions import Version
from relabel.storage.objects import ObjectStore

from .again import Twice
from .gate import Verdict, judge, meaning
from .gate_checks import Check
from .gate_policy import Gate
from .plan import Plan

OFF = Verdict((), None, gold=False).to_json() | {"verdict": "off"}


@dataclasses.dataclass(frozen=True)
class Gatekeeper:
    """Judges candidates of one store by one policy."""

    store: ObjectStore
    gate: Gate
    forced: str | None = None
    """Why a candidate is published also where it is refused."""
    twice: Twice | None = None
    """Samples that the run labelled twice."""

    def __call__(self, proposal: Proposal) -> Version:
        """The candidate with its verdict; raises Refused, with every failed check, where it must not be published."""
        if self.gate.off:
            return proposal.version.model_copy(update={"gate": OFF})
        verdict = self.judge(proposal)
        judged = proposal.version.model_copy(update={"gate": verdict.to_json()})
        if verdict.refused and self.forced is None:
            keep_candidate(self.store, judged)
            raise Refused(self.refusal(verdict, judged))
        if verdict.refused:
            print(f"relabel: published although the gate refused it: {self.forced}\n{verdict}", file=sys.stderr)
        return self.approved(judged) if self.gate.approval and not judged.partial else judged

    def approved(self, judged: Version) -> Version:
        """The candidate with who approved it; raises AwaitsApproval where somebody still must, and Refused where one
        said no.
        """
        asked = {"groups": list(self.gate.approval), "days": self.gate.approval_days}
        judged = judged.model_copy(update={"gate": {**judged.gate, "approval": asked}})
        waits = waiting(self.store, read_candidates(self.store), judged)
        if waits is None:
            keep_candidate(self.store, judged)
            waits = Candidate(judged)
        decisions = read_decisions(self.store, waits.run_id)
        rejected = [decision for decision in decisions.values() if decision.word == "rejected"]
        if rejected:
            raise Refused(
                f"these labels were {rejected[0]}. Nothing was published and nothing was labelled twice. A run that "
                "makes other labels makes a new candidate."
            )
        missing = [group for group in self.gate.approval if group not in decisions]
        if not missing:
            return judged.model_copy(update={"gate": with_decisions(judged.gate, decisions)})
        url = shlex.quote(self.store.url)
        raise AwaitsApproval(
            f"candidate {waits.run_id} passed the gate and waits for {', '.join(missing)}; nothing is published yet. "
            f"Look at it: `relabel diff {url} latest {CANDIDATE}{waits.run_id}`. `relabel approve "
            f'{url} {waits.run_id} --by NAME --reason "..."` publishes it, `relabel reject` does not. '
            f"It expires {self.gate.approval_days:g} days after it was made."
        )

    def judge(self, proposal: Proposal) -> Verdict:
        baseline = self.baseline(proposal.history)
        candidate = Release(self.store, proposal.version, entries=proposal.entries)
        parent = None
        if baseline is not None:
            held = proposal.held if proposal.held and baseline is proposal.history[-1] else None
            parent = Release(self.store, baseline, entries=held)
            candidate.withdrawn, candidate.redactions = parent.withdrawn, parent.redactions
        verdict = judge(candidate, parent, self.gate, self.twice.checks() if self.twice else ())
        return dataclasses.replace(verdict, forced=self.forced if verdict.refused else None)

    def baseline(self, history: Sequence[Version]) -> Version | None:
        """The newest complete release that is not recalled; None where there is none."""
        complete = [version for version in history if not version.partial]
        recalls = read_recalls(self.store) if complete else {}
        return next((version for version in reversed(complete) if version.number not in recalls), None)

    def refusal(self, verdict: Verdict, candidate: Version) -> str:
        url = shlex.quote(self.store.url)
        return (
            f"the gate refused to publish what run {candidate.run_id} made:\n{listed(verdict.refused)}\n"
            "Nothing was published, the last release stands, and the labels are kept. Look at them: "
            f"`relabel report {url} --release {CANDIDATE}{candidate.run_id} -o report.html` is a page about "
            f"them, `relabel diff {url} latest {CANDIDATE}{candidate.run_id}` what changed. Mend the cause "
            'and run again, or publish them all the same: `relabel publish RECIPE --force --reason "..."`.'
        )


def refusals(todo: Plan) -> list[str]:
    """Why a run of this plan would be refused before it labels anything."""
    found = []
    for refuse in (refuse_undeclared, refuse_recompute):
        try:
            refuse(todo)
        except Refused as error:
            found.append(str(error))
    return found


def listed(checks: Sequence[Check]) -> str:
    return "\n".join(f"  {check.name}{f' of {check.of}' if check.of else ''}: {check.text}" for check in checks)


def share_recomputed(todo: Plan) -> float:
    """Of the last release's shards (where there is none, of those that were ever finished): how many are labelled once
    more.
    """
    again = sum(entry.why != "new" for entry in todo.todo)
    known = todo.parent.counts.shards if todo.parent else len(todo.done) + again
    return again / known if known else 0.0


def refuse_recompute(todo: Plan) -> None:
    """Raises Refused where more would be labelled once more than the recipe allows."""
    most, share = todo.job.recipe.max_recompute, share_recomputed(todo)
    if most is None or share <= most:
        return
    why = Counter(entry.why for entry in todo.todo if entry.why != "new")
    raise Refused(
        f"{share:.1%} of the shards that have labels would be labelled once more "
        f"({', '.join(f'{count} {reason}' for reason, count in why.most_common())}); max_recompute allows {most:.1%}. "
        "Nothing was labelled. `relabel plan` says why for each; where it is meant, run again with --accept-recompute."
    )


def refuse_undeclared(todo: Plan) -> None:
    """Raises Refused before anything is labelled that the gate would refuse for what it means."""
    gate, parent = todo.job.recipe.gate, todo.parent
    if gate.off or parent is None or parent.partial or not todo.todo:
        return
    found = [check for check in meaning(todo.job.describe_labels(), parent, gate) if check.refuses]
    store = todo.job.open_store()
    if found and find_recall(store, parent.number) is None:
        raise Refused(
            f"the gate of {store.url} would refuse these labels, so nothing was labelled:\n{listed(found)}\n"
            "The last release stands. `relabel plan` says what would be labelled anew, `relabel compare` how the "
            "labels differ."
        )
