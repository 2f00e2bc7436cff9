"""Channels: names that move, with history; recalled, partial and damaged releases."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.command_line import main
from relabel.errors import Recalled, RecallWarning, Refused, StoreCorrupt, UnknownName, UsageError
from relabel.releases import channels
from relabel.releases.collect import plan_collect
from relabel.releases.commit import commit
from relabel.releases.release import Store
from relabel.releases.versions import version_path
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store
from relabel.testing.memory import MemoryStore
from relabel.testing.toy import draft, finish_shards


def publish(store: ObjectStore, number: int) -> None:
    receipts = finish_shards(store, f"run-{number}", {f"{shard}.tar": "1" for shard in range(number)}, "teacher")
    commit(store, draft(f"run-{number}", number - 1, receipts, "teacher"))


@pytest.fixture
def store() -> Store:
    objects = MemoryStore()
    publish(objects, 1)
    publish(objects, 2)
    return Store(objects)


def test_a_channel_moves_and_remembers(store: Store) -> None:
    first = store.promote(1, "prod", "ann", "good enough")
    assert store.release("prod").number == 1
    assert store.promote(1, "prod", "bob") == first, "it is there already"
    store.promote("latest", "prod", "bob", "better")
    store.promote("prod", "canary", "bob")
    assert store.channels() == {"prod": 2, "canary": 2}
    moves = channels.read_moves(store.objects)["prod"]
    assert [(move.release, move.by, move.reason) for move in moves] == [(1, "ann", "good enough"), (2, "bob", "better")]
    assert not [info for info in plan_collect(store.objects, 0.0, force=True).objects if "channels" in info.path]


def test_names_are_not_mixed_up(store: Store) -> None:
    store.tag("golden", 1)
    with pytest.raises(UsageError, match="'golden' is a tag"):
        store.promote(2, "golden", "ann")
    store.promote(2, "prod", "ann")
    with pytest.raises(UsageError, match="'prod' is a channel"):
        store.tag("prod", 1)
    for name in ("latest", "7", "v7", "a/b", ""):
        with pytest.raises(UsageError, match="a channel is"):
            store.promote(1, name, "ann")
    with pytest.raises(UnknownName, match="did you mean 'prod'"):
        store.release("prdo")


def test_recalled_releases_warn_or_fail_by_the_readers_policy(store: Store) -> None:
    store.promote(1, "prod", "ann")
    store.recall(1, "bad teacher")
    with pytest.warns(RecallWarning, match="bad teacher"):
        assert store.release("prod").number == 1
    with pytest.raises(Recalled):
        store.release("prod", recalled="error")
    with pytest.raises(Refused, match=r"recalled \(bad teacher\); it is not promoted"):
        store.promote(1, "next", "ann")


def test_partial_releases_are_not_promoted(store: Store) -> None:
    receipts = finish_shards(store.objects, "run-3", {"0.tar": "2"}, "teacher")
    wanted = draft("run-3", 2, receipts, "teacher")
    commit(store.objects, wanted.__class__(**{**wanted.__dict__, "coverage": 0.5}))
    with pytest.raises(Refused, match="partial"):
        store.promote(3, "prod", "ann")


def test_a_release_that_was_swapped_is_not_read(store: Store) -> None:
    store.promote(1, "prod", "ann")
    store.objects.put(version_path(1), store.objects.get(version_path(2)))
    with pytest.raises(StoreCorrupt, match="promoted"):
        store.release("prod")


def test_who_loses_the_race_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    find: Callable[..., object] = channels.find_move
    monkeypatch.setattr(channels, "find_move", lambda objects, channel: None)
    store.promote(1, "prod", "ann")
    with pytest.raises(Exception, match="ann moved 'prod' to release 1 at the same time"):
        store.promote(2, "prod", "bob")
    monkeypatch.setattr(channels, "find_move", find)
    assert store.channels() == {"prod": 1}


def test_a_recall_says_which_channels_still_mean_the_release(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    url = str(tmp_path / "my store")
    publish(open_store(url), 1)
    publish(open_store(url), 2)
    for release, channel in ((2, "prod"), (1, "beta")):
        assert main(["promote", url, str(release), "--to", channel, "--by", "ann"]) == 0
    assert main(["recall", url, "2", "--reason", "bad teacher"]) == 0
    told = capfd.readouterr().out
    assert "The channel prod still means it" in told
    assert "beta" not in told.partition("is recalled")[2]
    assert main(["channels", url]) == 0
    assert "prod is release 2, which is RECALLED (bad teacher)" in capfd.readouterr().out
    [typed] = re.findall(r"`relabel (promote .*)`", told)
    assert main(shlex.split(typed)) == 0
    assert Store(open_store(url)).release("prod", recalled="error").number == 1
