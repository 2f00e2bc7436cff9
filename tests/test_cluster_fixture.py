"""The shared Ray cluster: its workers run this checkout's code, and Ray Data works under strict warnings."""

from pathlib import Path

import pytest


@pytest.mark.usefixtures("ray_cluster")
def test_workers_import_this_checkout(root: Path) -> None:
    import ray

    @ray.remote
    def places() -> list[str]:
        import pipelines
        import relabel

        return [str(relabel.__file__), str(pipelines.__file__)]

    expected = [root / "operators" / "relabel" / "__init__.py", root / "pipelines" / "__init__.py"]
    assert ray.get(places.remote()) == [str(path) for path in expected]


@pytest.mark.usefixtures("ray_cluster")
def test_a_dataset_runs_under_strict_warnings() -> None:
    import ray

    rows = ray.data.range(100, override_num_blocks=4).map_batches(lambda batch: {"id": batch["id"] * 2})
    assert sorted(row["id"] for row in rows.take_all()) == list(range(0, 200, 2))
