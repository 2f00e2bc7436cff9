"""Meter: what a run costs while it holds devices. Where its budget is spent it stops as on SIGTERM: nothing is lost."""

import contextlib
import threading
from collections.abc import Iterator

from relabel.errors import OverBudget

from .account import Account
from .recipe import Recipe
from .stopping import StopRequest

LOOK_SECONDS = 0.5


class Meter:
    """Of one run."""

    def __init__(self, recipe: Recipe, stop: StopRequest, account: Account) -> None:
        self.budget, self.stop, self.account = recipe.budget, stop, account
        self.over = ""
        """Which limit is reached, and with how much; "" while none is."""

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Inside the account is looked at from time to time."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(LOOK_SECONDS):
                if not self.over and (found := self.exceeded()):
                    self.over = found
                    self.stop.make(f"its budget ({found})")

        thread = threading.Thread(target=watch, daemon=True, name="meter")
        if self.budget is not None:
            thread.start()
        try:
            yield
        finally:
            done.set()
            if thread.is_alive():
                thread.join()

    def exceeded(self) -> str:
        """The limit that is reached."""
        budget = self.budget
        if budget is None:
            return ""
        cost = self.account.cost()
        if budget.device_hours is not None and cost.device_hours >= budget.device_hours:
            return f"{cost.device_hours:.3g} of {budget.device_hours:g} device hours"
        if budget.usd is not None and cost.usd >= budget.usd:
            return f"{cost.usd:.3g} of {budget.usd:g} USD"
        return ""

    def require_within(self, what: str) -> None:
        """Raises OverBudget where the run was stopped for its budget; `what` is finished."""
        if self.over:
            raise OverBudget(
                f"the run stopped because its budget is spent ({self.over}), with {what}. Nothing is lost: what is "
                "finished is kept. Run the same command again to spend as much again, or raise `budget` in the recipe "
                "(--set budget.usd=..., --set budget.device_hours=...)."
            )
