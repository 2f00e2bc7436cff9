"""Cost commands: where a store is now, what runs cost, and the metrics that they export."""

import argparse
import dataclasses
from pathlib import Path

import relabel

from .terminal import Add, add_store, emit, say, storage_options, table


def declare(add: Add) -> None:
    add_store(add("status", status_command, "say where a store is: owner, progress, cost, what waits, how runs ended"))
    cost = add("cost", cost_command, "sum what the runs of all stores below a prefix used and cost")
    cost.add_argument("prefix", help="a store, or a folder or URL above several")
    cost.add_argument(
        "--storage-option", action="append", default=[], metavar="NAME=VALUE", help="an fsspec option (repeatable)"
    )
    cost.add_argument(
        "--by", default="team", choices=("team", "owner", "cost_center", "store", "recipe", "run"), help="default: team"
    )
    cost.add_argument("--since", metavar="DATE", help="only runs that began then or later, such as 2026-01-31 (UTC)")
    metrics = add("metrics", metrics_command, "list the metrics of runs; write the dashboard and the alerts")
    metrics.add_argument("--out", metavar="FOLDER", help="write grafana/relabel.json and prometheus/relabel.yaml there")


def status_command(options: argparse.Namespace) -> int:
    from .standing import standing, tell_standing

    found = standing(relabel.open(options.store, **storage_options(options)).objects)
    if options.json:
        emit(found.to_json())
    else:
        say(*tell_standing(found))
    return 0


def cost_command(options: argparse.Namespace) -> int:
    from .costing import bill

    found = bill(options.prefix, storage_options(options), options.by, options.since)
    if options.json:
        emit(found.to_json())
        return 0
    table(found.rows())
    for line in found.damaged:
        say(f"warning: {line}")
    return 0


def metrics_command(options: argparse.Namespace) -> int:
    from .dashboards import write_dashboards
    from .metrics import METRICS, TAGS

    written = [] if options.out is None else write_dashboards(Path(options.out))
    if options.json:
        fields = [
            {**dataclasses.asdict(metric), "exported": metric.exported, "tags": [*TAGS, *metric.tags]}
            for metric in METRICS
        ]
        emit({"metrics": fields, "written": [str(path) for path in written]})
    elif written:
        say(*(f"wrote {path}" for path in written))
    else:
        rows = [(metric.exported, metric.kind, metric.unit, ", ".join(metric.tags), metric.help) for metric in METRICS]
        table([("metric", "kind", "unit", "tags", "what it says"), *rows])
        say(f"Every metric has the tags {', '.join(TAGS)}.")
    return 0
