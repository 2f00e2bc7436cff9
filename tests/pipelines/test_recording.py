"""Recording: what a run says of itself decides nothing, whatever the store answers."""

from pathlib import Path

import pytest

from pipelines.loading import load
from pipelines.plan import make_job
from pipelines.progress import Tally
from pipelines.recording import Recorder
from relabel.errors import AccessDenied, StorageFull
from relabel.testing.memory import MemoryStore


class Full(MemoryStore):
    """No room, and no right to make some."""

    def put(self, path: str, data: bytes) -> None:
        raise StorageFull("no room left")

    def delete(self, path: str) -> None:
        raise AccessDenied("no right to delete")


def test_a_run_goes_on_where_its_record_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = {
        "name": "words", "source": {"path": f"{tmp_path}/*.tar", "fields": {"text": "txt"}},
        "steps": [{"tell": {"stop": "stop"}}], "store": str(tmp_path / "store"), "plugins": ["relabel.testing.telling"],
    }  # fmt: skip
    recorder = Recorder(make_job(load(recipe), None), "", Tally(1), None)
    monkeypatch.setattr(recorder, "_store", Full())
    recorder.write()
    assert "the run's record is not written (no room left)" in capfd.readouterr().err
