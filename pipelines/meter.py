"""Meter: what a run costs while it holds devices. Where its budget is spent it stops as on SIGTERM: nothing is lost."""

import contextlib
import threading
import time
from collections.abc import Iterator

from relabel.errors import OverBudget

from .account import Account
from .prices import HOUR
from .recipe import Recipe
from .stopping import StopRequest

LOOK_SECONDS = 0.5


class Meter:
    """Of one run: its account, and the devices that gathered statistics before."""

    def __init__(self, recipe: Recipe, stop: StopRequest, account: Account) -> None:
        self.budget, self.price, self.stop, self.account = recipe.budget, recipe.prices.device_hour, stop, account
        self.over = ""
        """Which limit is reached, and with how much; "" while none is."""
        self._gathered = 0.0
        """Device seconds."""

    @contextlib.contextmanager
    def holding(self, devices: float = 0.0) -> Iterator[None]:
        """Inside it is measured: what the account knows, and so many `devices` that it does not know of."""
        done, begun, before = threading.Event(), time.monotonic(), self._gathered

        def measure() -> None:
            self._gathered = before + devices * (time.monotonic() - begun)

        def watch() -> None:
            while not done.wait(LOOK_SECONDS):
                measure()
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
            measure()

    @property
    def device_hours(self) -> float:
        return self._gathered / HOUR + self.account.cost().device_hours

    @property
    def usd(self) -> float:
        return self._gathered / HOUR * (self.price or 0.0) + self.account.cost().usd

    def exceeded(self) -> str:
        """The limit that is reached."""
        budget = self.budget
        if budget is None:
            return ""
        if budget.device_hours is not None and self.device_hours >= budget.device_hours:
            return f"{self.device_hours:.3g} of {budget.device_hours:g} device hours"
        if budget.usd is not None and self.usd >= budget.usd:
            return f"{self.usd:.3g} of {budget.usd:g} USD"
        return ""

    def require_within(self, what: str) -> None:
        """Raises OverBudget where the run was stopped for its budget; `what` is finished."""
        if self.over:
            raise OverBudget(
                f"the run stopped because its budget is spent ({self.over}), with {what}. Nothing is lost: what is "
                "finished is kept. Run the same command again to spend as much again, or raise `budget` in the recipe "
                "(--set budget.usd=..., --set budget.device_hours=...)."
            )
