"""Runs that write a page about their release: before the commit, named by its content, checked and kept like a card."""

from pathlib import Path
from typing import Any

import pytest
from releases_of_photos import write_tar

from pipelines import run
from pipelines.command_line import main
from pipelines.reporting import KIND
from relabel.releases.collect import plan_collect
from relabel.releases.release import open_label_store
from relabel.releases.verify import verify

WORDS = ("one", "three", "stop", "eleven")


def test_a_run_writes_the_page_of_its_release(
    tmp_path: Path, ray_cluster: None, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        write_tar(tmp_path / "in" / f"{number}.tar", {f"{row}.txt": word.encode() for row, word in enumerate(WORDS)})
    recipe: dict[str, Any] = {
        "source": {"path": f"{tmp_path}/in/*.tar", "fields": {"text": "txt"}}, "steps": [{"tell": {"stop": "stop"}}],
        "store": str(tmp_path / "store"), "plugins": ["relabel.testing.telling"], "gate": {}, "report": True,
        "resources": {"actors": 1, "compute_batch": 4}, "dead_letters": {"max_fraction": 1.0},
    }  # fmt: skip
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
