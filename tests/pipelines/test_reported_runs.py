"""Runs that write a page about their release: before the commit, named by its content, checked and kept like a card."""

import functools
import re
from pathlib import Path
from typing import Any

import pytest
from releases_of_photos import write_tar

from pipelines import run
from pipelines.command_line import main
from pipelines.reporting import KIND, Reporter
from relabel.errors import AwaitsApproval, StorageError
from relabel.releases.approvals import decide, publish_approved
from relabel.releases.candidates import read_candidates
from relabel.releases.collect import plan_collect
from relabel.releases.release import open_label_store
from relabel.releases.verify import verify
from relabel.storage.opening import open_store
from relabel.testing.faults import OperatedStore, Operation

WORDS = ("one", "three", "stop", "eleven")


def recipe_of(folder: Path, **fields: Any) -> dict[str, Any]:
    for number in range(2):
        write_tar(folder / "in" / f"{number}.tar", {f"{row}.txt": word.encode() for row, word in enumerate(WORDS)})
    return {
        "source": {"path": f"{folder}/in/*.tar", "fields": {"text": "txt"}}, "steps": [{"tell": {"stop": "stop"}}],
        "store": str(folder / "store"), "plugins": ["relabel.testing.telling"], "gate": {}, "report": True,
        "resources": {"actors": 1, "compute_batch": 4}, "dead_letters": {"max_fraction": 1.0}, **fields,
    }  # fmt: skip


def test_a_run_writes_the_page_of_its_release(
    tmp_path: Path, ray_cluster: None, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(tmp_path)
    release = run(recipe).release
    assert release is not None
    page = release.cards[KIND]
    assert page.path == f"cards/{page.sha256}.html"
    store = open_label_store(tmp_path / "store")
    text = store.objects.get(page.path).decode()
    assert "gate passed" in text
    assert ">three<" in text
    assert "unusable_text" in text
    assert verify(store.objects, "latest", "full").problems == []
    assert page.path not in {each.path for each in plan_collect(store.objects, 0.0, force=True).objects}
    assert main(["card", str(tmp_path / "store"), "--format", "report"]) == 0
    assert capfd.readouterr().out.rstrip() == text.rstrip()
    assert run(recipe).release == release, "nothing to do, so no other page"
    store.objects.put(page.path, b"changed")
    assert [problem.object for problem in verify(store.objects, "latest", "default").problems] == [page.path]


class NoPages(OperatedStore):
    """A server that takes everything but pages."""

    def operate(self, operation: Operation) -> Any:
        if operation.kind == "create" and operation.path.endswith(".html"):
            raise StorageError("503 SlowDown, after every retry.")
        return operation.apply()


def test_what_is_approved_later_has_the_page_too(
    tmp_path: Path, ray_cluster: None, capfd: pytest.CaptureFixture[str]
) -> None:
    objects = open_store(str(tmp_path / "store"))
    recipe = recipe_of(tmp_path, gate={"approval": ["owners"]}, meta={"team": "maps"})
    with pytest.raises(AwaitsApproval):
        run(recipe)
    [candidate] = read_candidates(objects)
    said = decide(objects, candidate, "approved", "ann", "fine", None)
    assert main(["approve", str(tmp_path / "store"), candidate.run_id, "--by", "ann", "--reason", "fine"]) == 0
    [release] = open_label_store(tmp_path / "store").history()
    page = objects.get(release.cards[KIND].path).decode()
    assert "gate passed" in page
    assert ">three<" in page
    assert "page" not in capfd.readouterr().err
    assert (release.meta, release.usage) == ({"team": "maps"}, candidate.version.usage)
    assert release.usage["samples"] == 8

    # The same once more, on a server that takes no page: the release does not wait for that.
    objects.delete("versions/v0000000001.json")
    published = publish_approved(objects, candidate, {"owners": said}, functools.partial(Reporter, NoPages(objects)))
    assert published.version == 1
    assert KIND not in published.cards
    assert re.search(r"release 1 has no page.*503 SlowDown.*`relabel report .*--release 1`", capfd.readouterr().err)
