"""A release as a source: what its shards are called, and what a withdrawal makes of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import plan as plans
from pipelines import running
from pipelines.loading import load
from pipelines.opening import pinned
from relabel.errors import Recalled, Refused, UsageError
from relabel.reasons import Reason
from relabel.releases.commit import commit
from relabel.releases.receipts import Receipt, Receipts
from relabel.releases.release import Store
from relabel.releases.release_source import ReleaseSource, opened, shard_of
from relabel.shards.shard import Shard
from relabel.storage.objects import ObjectStore


def tokens(store: ObjectStore) -> dict[str, str]:
    return {shard.name: shard.token for shard in ReleaseSource(store.url, {}, 1).shards()}


def test_a_shard_of_which_rows_were_withdrawn_is_another_one(make_job: Callable, store: ObjectStore) -> None:
    """So that runs over the release label it anew, without them, and states of statistics are made anew."""
    make_job({"a": 5, "b": 5, "dead": -1}).run()
    before = tokens(store)
    [dead] = [shard for shard in ReleaseSource(store.url, {}, 1).shards() if shard.name == "dead"]
    assert dead.etag.startswith("dead:")
    Store(store).withdraw({"a": ["a-2"]}, "asked for")
    after = tokens(store)
    assert {name for name, token in after.items() if token != before[name]} == {"a"}
    Store(store).withdraw({"b": None}, "asked for")
    assert {name for name, token in tokens(store).items() if token != before[name]} == {"a", "b"}
    assert tokens(store)["a"] == after["a"]


def test_a_process_that_opened_the_release_before_does_not_read_withdrawn_rows(
    make_job: Callable, store: ObjectStore
) -> None:
    make_job({"a": 5}).run()
    source = ReleaseSource(store.url, {}, 1)
    [shard] = source.shards()
    assert not any(sample.unlabelled == Reason.WITHDRAWN for sample in source.read(shard))
    held = opened(store.url, "{}", 1)
    assert held is source.release, "it stays open"
    Store(store).withdraw({"a": ["a-2"]}, "asked for")
    fresh = type(held)(held.objects, held.version, "error")
    now = shard_of(fresh, fresh.entry("a"))
    found = {sample.key: sample.unlabelled for sample in source.read(now)}
    assert found["a-2"] == Reason.WITHDRAWN
    Store(store).recall(1, "wrong")
    with pytest.raises(Recalled):
        source.shards()


def test_a_run_reads_one_release_to_its_end(
    make_job: Callable, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pass of its statistics and the labels, whatever is published meanwhile."""
    make_job({"a": 5}).run()
    seen = []

    def first_made(recipe: running.Recipe, *arguments: object) -> None:
        seen.append(recipe.source.release)
        raise UsageError("far enough")

    monkeypatch.setattr(running, "make_job", first_made)
    with pytest.raises(UsageError, match="far enough"):
        running.run({
            "source": {"path": store.url, "kind": "release"}, "steps": [{"hash_sample": {"samples": 3}}],
            "store": str(tmp_path / "derived"),
        })  # fmt: skip
    assert seen == ["1"]


def test_labels_do_not_go_into_their_own_store_by_another_name(
    make_job: Callable, store: ObjectStore, tmp_path: Path
) -> None:
    make_job({"a": 5}).run()
    (tmp_path / "link").symlink_to(store.url)
    with pytest.raises(UsageError, match="cannot go into the store that they come from"):
        pinned(load({
            "source": {"path": store.url, "kind": "release"}, "steps": [{"hash_sample": {"samples": 3}}],
            "store": str(tmp_path / "link"),
        }))  # fmt: skip


def derived(store: ObjectStore, tmp_path: Path, **source: object) -> dict[str, object]:
    return {
        "source": {"path": store.url, "kind": "release", **source}, "steps": [{"hash_sample": {"samples": 3}}],
        "store": str(tmp_path / "derived"),
    }  # fmt: skip


def test_a_partial_release_is_read_where_the_recipe_accepts_it(
    make_job: Callable, store: ObjectStore, tmp_path: Path
) -> None:
    job = make_job({"a": 5, "b": 5})
    draft = job.draft([job.label("a")])
    assert commit(store, draft).partial
    with pytest.raises(Refused, match="accept_partial: true"):
        pinned(load(derived(store, tmp_path)))
    assert pinned(load(derived(store, tmp_path, accept_partial=True))).source.release == "1"


def test_a_shard_that_changed_while_the_release_was_made_is_not_tried_every_night(
    make_job: Callable, store: ObjectStore, tmp_path: Path
) -> None:
    """Of a release it is as dead tomorrow; of a bucket it may be whole then."""
    make_job({"a": 5}).run()
    job = plans.make_job(load(derived(store, tmp_path)))
    [todo] = plans.plan(job).todo
    record(job, todo.task.shard)
    assert len(plans.plan(job).done) == 1


def record(job: plans.Job, shard: Shard) -> None:
    """That this shard cannot be read, because it changed under the reader."""
    Receipts(job.open_store(), job.fingerprint).finish(
        Receipt(shard=shard.name, size=shard.size, etag=shard.etag, token=shard.token, content_sha256="",
                fingerprint=job.fingerprint, generation=0, status="dead", reason=Reason.CHANGED_SHARD, detail="changed",
                rows=0, ok=0, dead=0, filtered=0, reasons={}, keys_sha256="", data=None, dead_letters=None,
                numerics={}, run_id="run", attempt="0" * 32)
    )  # fmt: skip
