"""Metrics: what a run exports is the list; the board and the alerts speak of nothing else, and each has its runbook."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import promql_parser
import pytest
import yaml

from pipelines import metrics
from pipelines.command_line import main
from pipelines.dashboards import ALERTS, board, expressions, files, rules
from pipelines.loading import load
from pipelines.metrics import METRICS, TAGS, Exporter, Metric
from pipelines.plan import make_job
from pipelines.progress import Tally

BUILT_IN = {"__name__"}


def selectors(node: Any) -> list[promql_parser.VectorSelector]:
    """Every metric that a query reads, wherever it stands in it."""
    if isinstance(node, promql_parser.VectorSelector):
        return [node]
    below = [getattr(node, name, None) for name in ("expr", "lhs", "rhs", "vector_selector", "param")]
    arguments = list(getattr(node, "args", ()) or ())
    return [each for one in (*below, *arguments) if one is not None for each in selectors(one)]


@pytest.fixture
def by_exported_name() -> dict[str, Metric]:
    return {metric.exported: metric for metric in METRICS}


def test_every_query_parses_and_reads_metrics_and_tags_that_there_are(by_exported_name: dict[str, Metric]) -> None:
    read: set[str] = set()
    for expr in expressions():
        found = selectors(promql_parser.parse(expr))
        assert found, expr
        for selector in found:
            metric = by_exported_name[str(selector.name)]
            tags = {matcher.name for matcher in selector.matchers.matchers} - BUILT_IN
            assert tags <= {*TAGS, *metric.tags}, expr
            read.add(metric.exported)
        for grouped in re.findall(r"(?:by|ignoring) \(([^)]*)\)", expr):
            assert set(re.split(r", *", grouped)) <= {*TAGS, "slot", "stage", "label"}, expr
    assert read == by_exported_name.keys(), "each metric is shown or watched"


def test_a_wrong_name_or_query_is_found(by_exported_name: dict[str, Metric]) -> None:
    [selector] = selectors(promql_parser.parse("sum(rate(ray_relabel_sample_total[5m]))"))
    assert selector.name not in by_exported_name
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum(rate(ray_relabel_samples_total[5m])")


def test_the_files_in_deploy_are_those_that_are_made(root: Path, tmp_path: Path) -> None:
    assert main(["metrics", "--out", str(tmp_path)]) == 0
    for name, text in files().items():
        assert (tmp_path / name).read_text() == text
        assert (root / "deploy" / name).read_text() == text, "run `python -m pipelines metrics --out deploy`"


def test_rules_are_well_formed_and_every_alert_has_its_runbook(root: Path) -> None:
    text = files()["prometheus/relabel.yaml"]
    assert yaml.safe_load(text) == rules()
    readme = (root / "README.md").read_text()
    for group in yaml.safe_load(text)["groups"]:
        for rule in group["rules"]:
            assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
            assert re.fullmatch(r"\d+[smhd]", rule["for"])
            assert rule["labels"]["severity"] in {"page", "ticket"}
            placeholders = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
            assert placeholders <= set(TAGS)
            assert f"| `{rule['alert']}`" in readme
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)
    assert "## Runbook" in readme


def test_panels_do_not_overlap() -> None:
    places = [tuple(panel["gridPos"].values()) for panel in board()["panels"]]
    assert len({(x, y) for x, y, _, _ in places}) == len(places)
    assert {panel["datasource"]["uid"] for panel in board()["panels"]} == {"${datasource}"}


class Series:
    """Stands for Ray's counters and gauges, by name."""

    values: ClassVar[dict[str, float]] = {}

    def __init__(self, name: str, *_: Any) -> None:
        self.name = name

    def set(self, value: float, tags: Any) -> None:
        self.values[self.name] = value

    def inc(self, value: float, tags: Any) -> None:
        assert value > 0
        self.values[self.name] = self.values.get(self.name, 0.0) + value


def test_a_run_that_hangs_before_its_first_part_makes_no_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(metrics, "metrics", SimpleNamespace(Counter=Series, Gauge=Series))
    monkeypatch.setattr(metrics, "time", SimpleNamespace(time=lambda: now[0]))
    monkeypatch.setattr(Series, "values", {})
    recipe = {
        "name": "words", "source": {"path": f"{tmp_path}/*.tar", "fields": {"text": "txt"}},
        "steps": [{"tell": {"stop": "stop"}}], "store": str(tmp_path / "store"), "plugins": ["relabel.testing.telling"],
    }  # fmt: skip
    tally = Tally(2)
    exporter, seen = Exporter(make_job(load(recipe), None), tally), []
    for parts in (0, 0, 1, 1):
        tally.parts = parts
        exporter.update()
        seen.append(Series.values["relabel_last_progress_timestamp"])
        now[0] += 60
    assert seen == [1000.0, 1000.0, 1120.0, 1120.0]


def test_what_may_happen_once_is_seen_by_its_alert() -> None:
    """A counter is there from its first event on: for Prometheus it did not increase then."""
    exprs = {alert.name: alert.expr for alert in ALERTS}
    assert not [name for name, expr in exprs.items() if "increase(" in expr]
    assert "rate(" not in exprs["RelabelDeadShards"]


@pytest.mark.slow
def test_a_run_exports_what_is_listed(tmp_path: Path, by_exported_name: dict[str, Metric], root: Path) -> None:
    paths = [root / "operators", root, root / "tests" / "pipelines", root / "tests"]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("scraped_run.py")), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen.keys() == by_exported_name.keys()
    for name, samples in seen.items():
        assert {*TAGS, *by_exported_name[name].tags} <= samples[0].keys()
        assert samples[0]["team"] == "vision"
        assert samples[0]["recipe"] == "scraped"
