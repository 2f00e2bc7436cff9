"""Cards: every release is described for others, by files that are checked, kept and collected like its data."""

import dataclasses
import http.server
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attr
import mlcroissant
import pytest
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    column_lineage_dataset,
    dataset_version_dataset,
    job_type_job,
    output_statistics_output_dataset,
    processing_engine_run,
    schema_dataset,
)

from pipelines.command_line import main
from relabel.digests import Json, sha256
from relabel.errors import Refused, UnknownName
from relabel.releases import commit as commits
from relabel.releases import croissant, lineage
from relabel.releases.cards import read_card
from relabel.releases.collect import apply_plan, plan_collect
from relabel.releases.commit import commit
from relabel.releases.reachable import unreachable
from relabel.releases.release import Store
from relabel.releases.segments import read_segments
from relabel.releases.verify import verify
from relabel.releases.versions import Version, read_version, version_path
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store
from relabel.testing.faults import Crash, OperatedStore, Operation
from relabel.testing.memory import MemoryStore
from relabel.testing.toy import draft, finish_shards

SOURCE = {"a.tar": "0", "b.tar": "0"}
FACETS = {
    "version": dataset_version_dataset.DatasetVersionDatasetFacet,
    "schema": schema_dataset.SchemaDatasetFacet,
    "columnLineage": column_lineage_dataset.ColumnLineageDatasetFacet,
    "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
    "processing_engine": processing_engine_run.ProcessingEngineRunFacet,
    "jobType": job_type_job.JobTypeJobFacet,
}


def publish(store: ObjectStore, run_id: str = "run", parent: int = 0, **source: str) -> Version:
    wanted = draft(run_id, parent, finish_shards(store, run_id, {**SOURCE, **source}, "small"), "small")
    recipe = {"name": "toys", "license": "CC0-1.0", "steps": ["toy"]}
    selection = {"fields": {"image": ["jpg", "png"]}}
    about = {"root": "s3://bucket/photos", "manifest": "f" * 64}
    return commit(store, dataclasses.replace(wanted, recipe=recipe, selection=selection, source=about))


def card(store: ObjectStore, version: Version, kind: str) -> dict[str, Json]:
    return dict(json.loads(read_card(store, version, kind)))


def read_croissant(path: Path) -> Any:
    """The metadata; raises where it does not validate."""
    return mlcroissant.Dataset(path).metadata


@pytest.fixture
def folder(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_croissant_is_what_croissant_says(
    folder: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version = publish(folder)
    path = tmp_path / "store" / version.cards["croissant"].path
    found = read_croissant(path)
    assert not found.ctx.issues.errors
    assert not found.ctx.issues.warnings
    assert (found.name, found.version, found.license) == ("toys", "1.0.0", ["CC0-1.0"])
    assert version.content_digest in found.cite_as
    [manifest, shards] = found.distribution
    assert manifest.sha256 == version.segments[0].sha256
    assert sha256((path.parent / manifest.content_url).read_bytes()) == manifest.sha256
    data = sorted(entry.data.path for entry in read_segments(folder, version.segments).values() if entry.data)
    assert shards.includes == [f"../{name}" for name in data]
    [labels] = found.record_sets
    assert [each.name for each in labels.fields] == ["key", "sample_digest", "status", "reason", "toy_value"]
    [protocol] = found.data_annotation_protocol
    assert "by machines" in protocol
    assert "toy version 1" in protocol
    assert caplog.text == ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_card_of_very_many_shards_is_small(
    folder: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(croissant, "MAX_NAMED", 1)
    version = publish(folder)
    [_, shards] = read_croissant(tmp_path / "store" / version.cards["croissant"].path).distribution
    assert shards.includes == ["../data/run/*.parquet"]
    assert "Only those that the manifests list" in shards.description


def test_the_event_is_what_openlineage_says(folder: ObjectStore) -> None:
    version = publish(folder)
    event = card(folder, version, "lineage")
    [read], [written] = event["inputs"], event["outputs"]
    RunEvent(  # its validators: times, UUIDs, URIs
        eventTime=event["eventTime"], producer=event["producer"], run=Run(event["run"]["runId"]),
        job=Job(event["job"]["namespace"], event["job"]["name"]), eventType=RunState(event["eventType"]),
        inputs=[InputDataset(read["namespace"], read["name"])],
        outputs=[OutputDataset(written["namespace"], written["name"])],
    )  # fmt: skip
    assert event["schemaURL"] == RunEvent._get_schema()
    facets = {**written["facets"], **written["outputFacets"], **event["run"]["facets"], **event["job"]["facets"]}
    assert facets.keys() - FACETS.keys() == {"relabel"}
    for name, kind in FACETS.items():
        assert facets[name]["_schemaURL"] == kind._get_schema(), name
        assert facets[name].keys() - {"_producer", "_schemaURL"} <= {each.name for each in attr.fields(kind)}, name
    assert (read["namespace"], read["name"]) == ("s3://bucket", "photos")
    assert (written["namespace"], written["name"]) == ("file", folder.url)
    assert written["facets"]["version"]["datasetVersion"] == "1"
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == version.counts.samples
    [origin] = written["facets"]["columnLineage"]["fields"]["toy_value"]["inputFields"]
    assert origin == {"namespace": "s3://bucket", "name": "photos", "field": "jpg"}


def test_a_run_has_one_uuid() -> None:
    store = MemoryStore()
    ids = [card(store, publish(store, run, parent, **more), "lineage")["run"]["runId"]
           for run, parent, more in (("one", 0, {}), ("two", 1, {"c.tar": "0"}))]  # fmt: skip
    assert len(set(ids)) == 2
    other = MemoryStore()
    assert card(other, publish(other, "one"), "lineage")["run"]["runId"] == ids[0]


def test_all_that_publishes_makes_cards() -> None:
    store = MemoryStore()
    publish(store, "one")
    publish(store, "two", 1, **{"c.tar": "0"})
    labels = Store(store)
    assert labels.revert(1).version == 3
    labels.withdraw({"a.tar": ["a.tar-2"]}, "asked by its owner")
    erased = labels.erase(apply=True).release
    assert erased is not None
    assert erased.version == 4
    for number in range(1, 5):
        version = read_version(store, number)
        assert card(store, version, "croissant")["version"] == f"{number}.0.0"
        assert card(store, version, "lineage")["outputs"][0]["facets"]["version"]["datasetVersion"] == str(number)
        assert verify(store, number, "quick").ok
    paths = [each.path for number in range(1, 5) for each in read_version(store, number).cards.values()]
    assert len(set(paths)) == 8
    assert unreachable(store).keys().isdisjoint(paths)
    assert {info.path for info in store.list("cards")} == set(paths), "erasing leaves no card behind"


def test_verify_names_a_card_that_is_damaged_or_gone() -> None:
    store = MemoryStore()
    version = publish(store)
    for kind, stored in version.cards.items():
        whole = store.get(stored.path)
        store.put(stored.path, whole.replace(b"toys", b"boys"))
        assert [problem.object for problem in verify(store, 1, "quick").problems] == [stored.path], kind
        store.delete(stored.path)
        assert [problem.object for problem in verify(store, 1, "quick").problems] == [stored.path], kind
        store.put(stored.path, whole)
    assert verify(store, 1, "full").ok


class Died(OperatedStore):
    """Its program dies instead of creating a version."""

    def operate(self, operation: Operation) -> object:
        if operation.kind == "create" and operation.path.startswith("versions/"):
            raise Crash(operation.path)
        return super().operate(operation)


def test_a_card_without_a_release_is_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(("2026-01-01T00:00:00+00:00", "2026-01-01T00:00:09+00:00"))
    monkeypatch.setattr(commits, "moment", lambda: next(moments))
    store = MemoryStore()
    with pytest.raises(Crash):
        publish(Died(store))
    orphans = {info.path for info in store.list("cards")}
    assert len(orphans) == 2
    assert orphans <= unreachable(store).keys()
    store.now += 100.0
    version = publish(store)
    kept = {each.path for each in version.cards.values()}
    store.now += 100.0
    apply_plan(store, plan_collect(store, 0.0, force=True).id, 0.0, force=True)
    assert {info.path for info in store.list("cards")} == kept
    assert verify(store, 1, "full").ok


def test_what_a_plan_to_collect_names_is_not_published_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal cards, written by a run that died and again by one that goes on, have one name."""
    monkeypatch.setattr(commits, "moment", lambda: "2026-01-01T00:00:00+00:00")
    store = MemoryStore()
    with pytest.raises(Crash):
        publish(Died(store))
    plan = plan_collect(store, 0.0, force=True)
    assert any(info.path.startswith("cards/") for info in plan.objects)
    with pytest.raises(Refused, match=f"--drop {plan.id}"):
        publish(store)


class Late(OperatedStore):
    """Somebody else publishes just before our first version is created."""

    def __init__(self, inner: ObjectStore, first: Callable[[], object]) -> None:
        super().__init__(inner)
        self.first: Callable[[], object] | None = first

    def operate(self, operation: Operation) -> object:
        if operation.kind == "create" and operation.path.startswith("versions/") and self.first is not None:
            first, self.first = self.first, None
            first()
        return super().operate(operation)


def test_a_rebased_release_has_cards_of_its_own_number() -> None:
    store = MemoryStore()
    late = Late(store, lambda: publish(store, "other", 0, **{"z.tar": "0"}))
    version = publish(late, "ours", 0, **{"c.tar": "0"})
    assert version.version == 2
    assert card(store, version, "croissant")["version"] == "2.0.0"
    assert verify(store, 2, "quick").ok
    assert len(unreachable(store).keys() & {info.path for info in store.list("cards")}) == 2


def test_releases_from_before_are_read_and_verified() -> None:
    store = MemoryStore()
    version = publish(store)
    old = version.model_copy(update={"cards": {}, "format": 3})
    store.put(version_path(1), old.sealed())
    assert b"cards" not in store.get(version_path(1))
    assert verify(store, 1, "full").ok
    release = Store(store).release()
    assert release.content_digest == version.content_digest
    with pytest.raises(UnknownName, match="before releases had cards"):
        read_card(store, release.version, "croissant")
    assert "toys" in read_card(store, release.version, "readme")
    assert publish(store, "next", 1, **{"c.tar": "0"}).cards.keys() == {"croissant", "lineage"}
    assert verify(store, 2, "full").ok


@dataclasses.dataclass
class Listener:
    """A service that takes events."""

    url: str
    events: list[tuple[str, dict[str, str], dict[str, Json]]]
    answer: int = 200
    seconds: float = 0.0


@pytest.fixture
def listener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Listener:
    found = Listener("", [])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.events.append((self.path, dict(self.headers), body))
            time.sleep(found.seconds)
            self.send_response(found.answer)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    request.addfinalizer(lambda: (server.shutdown(), thread.join(), server.server_close()))
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("OPENLINEAGE_URL", found.url)
    return found


def test_who_listens_is_told_once_per_release(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "a-secret-token")
    store = MemoryStore()
    version = publish(store)
    publish(store)  # the same run again
    [(path, headers, event)] = listener.events
    assert path == "/api/v1/lineage"
    assert headers["Authorization"] == "Bearer a-secret-token"
    assert event == card(store, version, "lineage")
    assert not any(b"a-secret-token" in store.get(info.path) for info in store.list(""))


@pytest.mark.parametrize("fault", ["refuses", "sleeps", "is gone", "is no URL", "is a file"])
def test_no_listener_can_fail_a_release(
    listener: Listener, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lineage, "SECONDS", 0.2)
    listener.answer = 500 if fault == "refuses" else 200
    listener.seconds = 0.6 if fault == "sleeps" else 0.0
    urls = {"is gone": "http://127.0.0.1:9", "is no URL": "http://[", "is a file": "file:///etc/passwd"}
    monkeypatch.setenv("OPENLINEAGE_URL", urls.get(fault, listener.url))
    store = MemoryStore()
    with caplog.at_level(logging.WARNING, "relabel"):
        assert publish(store).version == 1
    assert verify(store, 1, "full").ok
    assert "the release is published" in caplog.text


def test_nobody_is_told_where_the_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENLINEAGE_URL", raising=False)
    monkeypatch.setattr(lineage, "post", lambda *arguments: pytest.fail("it was told"))
    assert publish(MemoryStore()).version == 1


def test_the_command_prints_them(folder: ObjectStore, capfd: pytest.CaptureFixture[str]) -> None:
    version = publish(folder)

    def said(*options: str) -> str:
        capfd.readouterr()
        assert main(["card", folder.url, *options]) == 0
        return capfd.readouterr().out

    assert json.loads(said("--format", "croissant")) == card(folder, version, "croissant")
    assert json.loads(said("--format", "lineage", "--json")) == card(folder, version, "lineage")
    readme = said()
    head = readme.split("---")[1]
    assert 'license: "CC0-1.0"' in head
    assert '"scores"' in head
    assert version.content_digest in readme
    assert json.loads(said("--json"))["card"].rstrip() == readme.rstrip()
