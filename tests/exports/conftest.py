"""A planted release, and exports of it by the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_releases import Planted, plant

from pipelines.command_line import main

Export = Callable[..., Path]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, photos: list[tuple[bytes, int]]) -> Planted:
    """Not to be written to."""
    return plant(tmp_path_factory.mktemp("planted"), photos)


@pytest.fixture
def export(planted: Planted, tmp_path: Path) -> Export:
    """`export("hf", "--arrays", "lists")` gives the folder; `code` is the exit code that is expected."""

    def run(kind: str, *options: str, out: Path | None = None, store: Path | None = None, code: int = 0) -> Path:
        out = out or tmp_path / kind
        assert main(["export", str(store or planted.store), str(out), "--format", kind, *options]) == code
        return out

    return run


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str]) -> Callable[[], Any]:
    """What the last command said as JSON."""

    def read() -> Any:
        said = capfd.readouterr().out
        return json.loads(said[said.rfind("\n{\n") + 1 :])

    return read
