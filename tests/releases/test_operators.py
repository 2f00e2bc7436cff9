"""Operators' sources: one version stands for one source in a store, and a refusal names the files."""

from collections.abc import Callable

import pytest

from relabel.digests import digest
from relabel.errors import Refused, StoreCorrupt
from relabel.labels.kinds import scores
from relabel.releases.operators import changed_files, claim_source, record_path, require_source
from relabel.releases.versions import LabelIdentity
from relabel.storage.objects import ObjectStore


def source(**files: str) -> dict[str, object]:
    return {"digest": digest(files), "files": files}


OLD = source(a="1", b="2", c="3")
NEW = source(a="1", b="9", d="4")


def test_the_first_claim_stands(store: ObjectStore) -> None:
    require_source(store, "bright", 1, OLD)
    claim_source(store, "bright", 1, OLD)
    claim_source(store, "bright", 1, OLD)
    claim_source(store, "bright", 2, NEW)
    for check in (require_source, claim_source):
        check(store, "bright", 1, OLD)
        with pytest.raises(Refused, match="b was edited; c is gone; d is new. Set `version = 2` in its class"):
            check(store, "bright", 1, NEW)
        check(store, "other", 1, NEW)


def test_the_latest_release_tells_where_the_record_is_gone(store: ObjectStore, make_job: Callable) -> None:
    label = LabelIdentity(
        operator="bright", version=1, fingerprint="1" * 64, identity={"source": OLD}, contract=scores("bright", "mean")
    )
    parent = make_job({"a.tar": 3}).run().model_copy(update={"labels": {"bright": label}})
    with pytest.raises(Refused, match="b was edited"):
        require_source(store, "bright", 1, NEW, parent)
    require_source(store, "bright", 2, NEW, parent)
    require_source(store, "label_map", 1, NEW, parent)


def test_a_damaged_record_is_named(store: ObjectStore) -> None:
    claim_source(store, "bright", 1, OLD)
    path = record_path("bright", 1)
    data = store.get(path)
    store.delete(path)
    store.put(path, data.replace(b'"1"', b'"7"'))
    with pytest.raises(StoreCorrupt, match=path):
        require_source(store, "bright", 1, OLD)


def test_files_that_differ() -> None:
    assert changed_files({"a": "1"}, {"a": "1"}) == []
    assert changed_files({"a": "1", "b": "1"}, {"a": "2", "c": "1"}) == ["a was edited", "b is gone", "c is new"]
