"""Midway: what a run decides after each finished shard: to stop, where it cannot keep its budget; to publish so far."""

import sys
from collections.abc import Callable, Mapping

from relabel.errors import StorageError
from relabel.releases.commit import Draft, rehearse
from relabel.releases.receipts import Receipt

from .budget import budget_of, check_budget
from .milestones import MilestonePublisher
from .plan import Plan

MakeDraft = Callable[[Plan, Mapping[str, Receipt]], Draft]


class Midway:
    """Follows one run; `receipts` are those that it finishes or found, by shard token."""

    def __init__(self, todo: Plan, receipts: Mapping[str, Receipt], draft: MakeDraft) -> None:
        recipe = todo.job.recipe
        self._todo, self._receipts, self._draft = todo, receipts, draft
        self._store = todo.job.open_store()
        self._budget = budget_of(recipe.dead_letters, (shard.size for shard in todo.shards), receipts.values())
        every = recipe.publish if todo.partition.whole else None
        self.milestones = MilestonePublisher(every, len(todo.shards), len(receipts))

    def goes_on(self, receipt: Receipt) -> bool:
        """Whether to go on after this shard; a milestone that is due is published, unless the budget forbids it."""
        self._budget.add(receipt)
        if self._budget.overrun() is not None:
            return False
        finished = len(self._receipts)
        if self.milestones.due(finished) and self._budget.ok and self._budget.overrun_so_far() is None:
            try:
                self.milestones.publish(self._store, finished, lambda: self._draft(self._todo, self._receipts))
            except StorageError as error:  # the next shard tries again; the labels are safe without it
                print(f"relabel: a milestone is not published yet ({error})", file=sys.stderr, flush=True)
        return True

    def judge(self) -> None:
        """Raises Refused where the gate would refuse a release of what is finished so far."""
        rehearse(self._store, self._draft(self._todo, self._receipts))

    def check(self) -> None:
        """Raises TooManyDeadLetters where the run had to stop."""
        check_budget(self._store, self._budget, list(self._receipts.values()))
