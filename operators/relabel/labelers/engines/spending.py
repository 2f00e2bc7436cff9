"""Spending: what engines used, in whole numbers and exact money: any order of adding gives the same figure."""

import dataclasses
from collections.abc import Mapping
from decimal import Decimal

MILLION = 1_000_000

Spent = Mapping[str, int | str]
"""Counts as int, money as decimal text."""


@dataclasses.dataclass(slots=True)
class Spending:
    """What was used since an engine was opened. Prices are per million tokens."""

    prompt_price: Decimal = Decimal(0)
    completion_price: Decimal = Decimal(0)
    requests: int = 0
    """That have an answer."""
    attempts: int = 0
    """That were sent, probes of a server that was away included."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """As the server reported, of whatever attempts it reported them."""

    def use(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """An attempt's usage was reported; returns what it cost."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        return self.cost_of(prompt_tokens, completion_tokens)

    def cost_of(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        return (prompt_tokens * self.prompt_price + completion_tokens * self.completion_price) / MILLION

    def to_json(self) -> Spent:
        return {
            "requests": self.requests,
            "attempts": self.attempts,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": money(self.cost_of(self.prompt_tokens, self.completion_tokens)),
        }


def money(amount: Decimal) -> str:
    """`12.5`, `0.000003`: no exponent, no zeros behind."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def plus(one: Spent, other: Spent) -> Spent:
    """The sum, entry by entry; what only one of them has is kept."""
    return {name: _sum(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def minus(one: Spent, other: Spent) -> Spent:
    """What was used from `other`, an earlier state of the same engine, to `one`."""
    return {name: _sum(value, other.get(name, 0), -1) for name, value in one.items()}


def _sum(one: int | str, other: int | str, sign: int = 1) -> int | str:
    if isinstance(one, str) or isinstance(other, str):
        return money(Decimal(one) + sign * Decimal(other))
    return one + sign * other
