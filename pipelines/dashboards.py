"""Dashboards: a Grafana board and Prometheus alert rules, made of the list of metrics, so that no name can be stale."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from relabel.digests import Json

from .metrics import BY_NAME, TAGS

BY = ", ".join(TAGS)
BOARD, RULES = "grafana/relabel.json", "prometheus/relabel.yaml"
RUNBOOK = "README.md#runbook"
CHOSEN = 'recipe=~"$recipe", team=~"$team"'
"""What `@` stands for in the queries of the board: what its viewer chose."""


@dataclasses.dataclass(frozen=True)
class Alert:
    """What wakes somebody."""

    name: str
    expr: str
    """PromQL in which `{relabel_...}` is a metric as it is exported. A counter is there from its first event on, so
    that `increase` and `rate` do not see that one: what may happen once is told by the counter itself.
    """
    holds: str
    """So long before it fires."""
    severity: str
    """page | ticket."""
    summary: str
    say: str
    """What it means and what to type; `$store` is the store."""


ALERTS = (
    Alert(
        "RelabelNoProgress",
        f"time() - max by ({BY}) ({{relabel_last_progress_timestamp}}) > 900",
        "5m",
        "page",
        "a run has labelled nothing for 15 minutes",
        "Since its start, or since its last part. `relabel status $store` says who is at work and what it waits for. "
        "`relabel stop $store` ends the run, and "
        "running again goes on where it stopped.",
    ),
    Alert(
        "RelabelManyDeadLetters",
        f"sum by ({BY}) (rate({{relabel_dead_letters}}[15m])) / sum by ({BY}) (rate({{relabel_samples}}[15m])) > 0.05",
        "10m",
        "page",
        "more than 5 % of the samples cannot be labelled",
        "`relabel dead $store --open` lists them with their reasons. The run stops by itself (exit code 4) where its "
        "budget cannot be kept. Mend the cause, then `relabel replay RECIPE --open`.",
    ),
    Alert(
        "RelabelDeadShards",
        f"sum by ({BY}) ({{relabel_dead_shards}}) > 0",
        "1m",
        "ticket",
        "a shard cannot be read",
        "`relabel dead $store --open` names the shard, and the byte. Restore it; a run labels it as soon as its bytes "
        "change, `relabel replay RECIPE --open` at once.",
    ),
    Alert(
        "RelabelDevicesIdle",
        f'sum by ({BY}) (rate({{relabel_stage_seconds}}{{slot="device", stage="idle"}}[30m])) '
        f'/ sum by ({BY}) (rate({{relabel_stage_seconds}}{{slot="device"}}[30m])) > 0.5',
        "30m",
        "ticket",
        "devices wait for more than half of their time",
        "`relabel status $store` says for what. Storage: nearer or larger shards, more `resources.readers`. Decoding: "
        "more CPUs and `resources.readers`. Else there are more actors than work: lower `resources.actors`.",
    ),
    Alert(
        "RelabelRetries",
        f'sum by ({BY}) (rate({{relabel_stage_seconds}}{{stage="retry"}}[30m])) '
        f'/ sum by ({BY}) (rate({{relabel_stage_seconds}}{{slot="device"}}[30m])) > 0.1',
        "15m",
        "ticket",
        "a tenth of the devices' time goes into work that is done again",
        "Processes end or batches fail: `relabel dead $store --open` shows samples that are to blame; a node that "
        "loses its actors shows in `ray list actors --filter state=DEAD`.",
    ),
    Alert(
        "RelabelLate",
        f"max by ({BY}) ({{relabel_eta_seconds}}) > 43200",
        "30m",
        "ticket",
        "the run needs more than 12 hours still",
        "`relabel status $store` names the bottleneck and the cost. A run may be stopped at any time and loses "
        "nothing; `publish: 10%` in the recipe publishes on the way; `--partition i/n` gives n drivers a share each.",
    ),
    Alert(
        "RelabelNoRun",
        f"count by ({BY}) (last_over_time({{relabel_open_shards}}[7d])) "
        f"unless count by ({BY}) (last_over_time({{relabel_open_shards}}[26h]))",
        "10m",
        "ticket",
        "a recipe that ran within a week has labelled nothing for 26 hours",
        "A night with nothing new is a success and exports nothing: `relabel status $store` shows the last run and how "
        "it ended. Where there was none, look at the scheduler.",
    ),
)  # fmt: skip


def named(expr: str) -> str:
    """PromQL with the names as Prometheus has them; raises KeyError for a metric that is not in the list."""
    for name in sorted(BY_NAME, key=len, reverse=True):
        expr = expr.replace(f"{{{name}}}", BY_NAME[name].exported)
    return expr.replace("{@", f"{{{CHOSEN}")


def rules() -> dict[str, Json]:
    """As a Prometheus rule file has them."""
    return {
        "groups": [
            {
                "name": "relabel",
                "rules": [
                    {
                        "alert": alert.name,
                        "expr": named(alert.expr),
                        "for": alert.holds,
                        "labels": {"severity": alert.severity},
                        "annotations": {
                            "summary": f"{{{{ $labels.recipe }}}}: {alert.summary}",
                            "description": alert.say.replace("$store", "{{ $labels.store }}"),
                            "runbook_url": RUNBOOK,
                        },
                    }
                    for alert in ALERTS
                ],
            }
        ]
    }


@dataclasses.dataclass(frozen=True)
class Panel:
    """One chart of the board."""

    title: str
    unit: str
    """As Grafana names it."""
    queries: Mapping[str, str]
    """Legend -> PromQL."""
    stacked: bool = False


def panels() -> list[Panel]:
    return [
        Panel("Samples per second", "short", {"{{recipe}}": "sum by (recipe) ({relabel_samples_per_second}{@})"}),
        Panel("Open shards", "short", {"{{recipe}}": "sum by (recipe) ({relabel_open_shards}{@})"}),
        Panel("Done in", "s", {"{{recipe}}": "max by (recipe) ({relabel_eta_seconds}{@}) >= 0"}),
        Panel(
            "Where devices spend their time",
            "percentunit",
            {
                "{{stage}}": 'sum by (stage) (rate({relabel_stage_seconds}{@, slot="device"}[5m])) / ignoring (stage) '
                'group_left sum (rate({relabel_stage_seconds}{@, slot="device"}[5m]))'
            },
            stacked=True,
        ),
        Panel(
            "Slots at work, by stage",
            "short",
            {"{{slot}} {{stage}}": "sum by (slot, stage) (rate({relabel_stage_seconds}{@}[5m]))"},
            stacked=True,
        ),
        Panel(
            "Dead letters and unreadable shards",
            "short",
            {
                "dead letters/s of {{recipe}}": "sum by (recipe) (rate({relabel_dead_letters}{@}[5m]))",
                "dead shards of {{recipe}} so far": "sum by (recipe) ({relabel_dead_shards}{@})",
            },
        ),
        Panel(
            "Samples and shards finished",
            "short",
            {
                "samples/s of {{recipe}}": "sum by (recipe) (rate({relabel_samples}{@}[5m]))",
                "shards/s of {{recipe}}": "sum by (recipe) (rate({relabel_shards_done}{@}[5m]))",
            },
        ),
        Panel(
            "Cost of runs at work (USD)",
            "currencyUSD",
            {
                "{{team}} {{recipe}}": "sum by (team, recipe) ({relabel_usd}{@})",
                "engines of {{recipe}}, of that": "sum by (recipe) ({relabel_engine_usd}{@})",
            },
        ),
        Panel(
            "Device-hours of runs at work",
            "h",
            {"{{team}} {{recipe}}": "sum by (team, recipe) ({relabel_device_hours}{@})"},
        ),
        Panel(
            "Seconds since the last part",
            "s",
            {"{{recipe}}": "time() - max by (recipe) ({relabel_last_progress_timestamp}{@})"},
        ),
    ]  # fmt: skip


def board() -> dict[str, Json]:
    """As Grafana imports it."""
    return {
        "title": "relabel",
        "uid": "relabel",
        "tags": ["relabel"],
        "schemaVersion": 39,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [DATASOURCE, variable("recipe"), variable("team")]},
        "panels": [panel(index, each) for index, each in enumerate(panels())],
    }


DATASOURCE: Mapping[str, Json] = {"name": "datasource", "type": "datasource", "query": "prometheus"}
SOURCE: Mapping[str, Json] = {"type": "prometheus", "uid": "${datasource}"}


def variable(name: str) -> dict[str, Json]:
    query = f"label_values({BY_NAME['relabel_open_shards'].exported}, {name})"
    return {
        "name": name, "type": "query", "datasource": SOURCE, "query": query, "refresh": 2, "multi": True,
        "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def panel(index: int, one: Panel) -> dict[str, Json]:
    custom: dict[str, Any] = {"fillOpacity": 20, "stacking": {"mode": "normal"}} if one.stacked else {"fillOpacity": 5}
    return {
        "id": index + 1,
        "title": one.title,
        "type": "timeseries",
        "datasource": SOURCE,
        "gridPos": {"x": 12 * (index % 2), "y": 8 * (index // 2), "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": one.unit, "custom": custom}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": named(expr), "legendFormat": legend}
            for number, (legend, expr) in enumerate(one.queries.items())
        ],
    }


def expressions() -> list[str]:
    """Every query of the board and the rules."""
    found = [named(expr) for each in panels() for expr in each.queries.values()]
    return found + [named(alert.expr) for alert in ALERTS]


def files() -> dict[str, str]:
    """Path below `deploy/` -> text."""
    text = yaml.safe_dump(rules(), sort_keys=False, width=110, allow_unicode=True)
    made = "# Made by `relabel metrics --out deploy`; change pipelines/dashboards.py instead.\n"
    return {BOARD: json.dumps(board(), indent=1) + "\n", RULES: made + text}


def write_dashboards(folder: Path) -> list[Path]:
    """Both files; returns where they are."""
    written = []
    for name, text in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
