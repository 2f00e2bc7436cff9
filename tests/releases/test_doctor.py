"""Doctor: healthy stores pass and are left clean; a store that ignores conditions is told apart."""

from pathlib import Path

import pytest

from relabel.errors import AccessDenied
from relabel.releases.doctor import diagnose
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store
from relabel.testing.faults import UnconditionalStore, WrappedStore


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_healthy_store(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    store = open_store(str(tmp_path / "store") if kind == "local" else request.getfixturevalue("s3_root"))
    store.put("mine", b"1")
    checks = diagnose(store)
    assert len(checks) == 5
    assert [check for check in checks if not check.ok] == []
    assert [info.path for info in store.list("")] == ["mine"]


def test_ignored_conditions_are_found(store: ObjectStore) -> None:
    failed = {check.name: check.detail for check in diagnose(UnconditionalStore(store)) if not check.ok}
    assert "not honoured" in failed["create once"]
    assert "4 of 4" in failed["one winner among concurrent creates"]
    assert list(store.list("")) == []


class ReadOnlyStore(WrappedStore):
    def put(self, path: str, data: bytes) -> None:
        raise AccessDenied(f"{path}: access denied.")


def test_a_store_that_cannot_be_written(store: ObjectStore) -> None:
    checks = diagnose(ReadOnlyStore(store))
    assert [(check.name, check.ok) for check in checks] == [("write and read back", False)]
    assert "denied" in checks[0].detail


class LostDeletes(WrappedStore):
    def delete(self, path: str) -> None:
        if not path.endswith("deleted"):
            super().delete(path)


def test_deletes_that_do_nothing_are_found(store: ObjectStore) -> None:
    assert [check.name for check in diagnose(LostDeletes(store)) if not check.ok] == ["a deleted object is gone"]
