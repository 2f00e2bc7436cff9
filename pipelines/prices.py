"""Prices: what the devices and CPUs of a run cost, beside what engines report of their own."""

import dataclasses
from collections.abc import Iterable
from decimal import Decimal

from pydantic import Field

from relabel.digests import Json
from relabel.labelers.engines.spending import Spent

from .section import Section

HOUR = 3600.0
MILLION = 1_000_000


class Prices(Section):
    """What the cluster costs, in USD. Nothing here changes a label, or its fingerprint."""

    device_hour: float | None = Field(default=None, ge=0)
    """Of a GPU; on a cluster without GPUs of a labeler's actor with its CPUs."""
    cpu_hour: float | None = Field(default=None, ge=0)
    """Of a CPU that reads, or drives; without GPUs and without `device_hour` also of those that label."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a run used, and what that costs."""

    device_hours: float
    cpu_hours: float
    devices_usd: float
    cpus_usd: float
    engines_usd: float
    """As services report it, or their prices in the recipe say."""
    labels: int
    """Samples that got their labels for it."""

    @property
    def usd(self) -> float:
        return self.devices_usd + self.cpus_usd + self.engines_usd

    def to_json(self) -> dict[str, Json]:
        million = MILLION / self.labels if self.labels else None
        return {
            "device_hours": round(self.device_hours, 6),
            "cpu_hours": round(self.cpu_hours, 6),
            "usd": round(self.usd, 6),
            "devices_usd": round(self.devices_usd, 6),
            "cpus_usd": round(self.cpus_usd, 6),
            "engines_usd": round(self.engines_usd, 6),
            "labels": self.labels,
            "device_hours_per_million": None if million is None else round(million * self.device_hours, 6),
            "usd_per_million": None if million is None else round(million * self.usd, 6),
        }


def cost_of(
    prices: Prices, device_seconds: float, gpus: float, cpu_seconds: float, spent: Iterable[Spent], labels: int
) -> Cost:
    """`device_seconds`: how long labelers' actors were held, with so many `gpus` each; `cpu_seconds`: other CPUs."""
    device_hours, cpu_hours = device_seconds * (gpus or 1.0) / HOUR, cpu_seconds / HOUR
    engines = sum((Decimal(each.get("cost", 0)) for each in spent), Decimal(0))
    return Cost(
        device_hours=device_hours,
        cpu_hours=cpu_hours,
        devices_usd=device_hours * (prices.device_hour or 0.0),
        cpus_usd=cpu_hours * (prices.cpu_hour or 0.0),
        engines_usd=float(engines),
        labels=labels,
    )


def tell_cost(cost: Json) -> str:
    """`0.42 device-hours, 1.3 CPU-hours, $1.05; a million labels: 2.1 device-hours, $5.25`."""
    money = f", {dollars(cost['usd'])}" if cost["usd"] else ""
    told = f"{hours(cost['device_hours'])} device-hours, {hours(cost['cpu_hours'])} CPU-hours{money}"
    if cost["device_hours_per_million"] is None:
        return told
    million = f", {dollars(cost['usd_per_million'])}" if cost["usd"] else ""
    return f"{told}; a million labels: {hours(cost['device_hours_per_million'])} device-hours{million}"


def hours(number: float) -> str:
    return f"{number:.2g}" if number < 10 else f"{number:,.0f}"


def dollars(number: float) -> str:
    return f"${number:,.2f}" if number >= 0.1 or not number else f"${number:.2g}"
