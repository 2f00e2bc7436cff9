"""Joining: every sample has the label that `Release.get` gives, and what cannot be right is refused or reported."""

import importlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import make_tar
from labelled_shards import mark, members, write_parquets

import relabel
from relabel.errors import BadShard, Recalled, Refused, UnknownName, UsageError
from relabel.labels.label_map import LabelMap

wds: Any = importlib.import_module("webdataset")

Publish = Callable[..., relabel.Release]


def require_equal(sample: Mapping[str, Any], release: relabel.Release) -> None:
    expected = release.get(sample["__shard__"], sample["__key__"])
    for name, value in expected.items():
        if isinstance(value, LabelMap):
            for field in ("ids", "scores", "residual"):
                assert np.array_equal(getattr(sample[name], field), getattr(value, field))
            assert (sample[name].height, sample[name].width) == (value.height, value.width)
        else:
            assert sample[name] == value
    assert sample["mark"]["mark_value"] == np.float32(mark(sample["__key__"]))


def keys(dataset: Any) -> list[str]:
    return [sample["__key__"] for sample in dataset]


def copied(folder: Path, to: Path) -> Path:
    """A copy whose files have other times: identity is no more told by the shard."""
    shutil.copytree(folder, to)
    for file in to.iterdir():
        os.utime(file, ns=(1, 1))
    return to


def rewrite(path: Path, change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]], first: int, count: int,
            photos: list[tuple[bytes, int]]) -> None:  # fmt: skip
    path.write_bytes(make_tar(change(members(photos, first, count))))


def test_values_are_those_of_get(release: relabel.Release) -> None:
    samples = list(release.dataset())
    assert sorted(sample["__key__"] for sample in samples) == [f"{index:05d}" for index in range(51)]
    for sample in samples:
        require_equal(sample, release)
        assert sample["image"].size == (32, 32)
        assert sample["cls"].isdigit()
        assert "jpg" not in sample
        assert "__seed__" not in sample


def test_raw_bytes_where_nothing_is_to_be_decoded(release: relabel.Release) -> None:
    for sample in release.dataset(columns=["mark"], decode=False):
        assert sample["image"] is sample["jpg"]
        assert sample["image"].startswith(b"\xff\xd8")
        assert set(sample) == {"__key__", "__shard__", "jpg", "cls", "image", "mark"}


def test_an_image_is_not_decoded_before_it_is_asked_for(release: relabel.Release) -> None:
    sample = next(iter(release.dataset()))
    sample["image"].draft("RGB", (16, 16))
    assert sample["image"].size == (16, 16)


def test_chosen_fields_are_kept(release: relabel.Release) -> None:
    [sample, *_] = release.dataset(columns=[], fields=["jpg"])
    assert set(sample) == {"__key__", "__shard__", "jpg", "image"}


def test_transforms_see_a_seed_that_only_epoch_and_sample_decide(release: relabel.Release) -> None:
    seen: dict[int, dict[str, int]] = {}

    def note(sample: dict[str, Any]) -> dict[str, Any]:
        assert 0 <= sample["__seed__"] < 2**63
        assert isinstance(sample["jpg"], bytes)
        seen.setdefault(dataset.epoch, {})[sample["__key__"]] = sample["__seed__"]
        return {**sample, "noted": True}

    dataset = release.dataset(transform=[note, lambda sample: {**sample, "again": sample["noted"]}], shuffle=5)
    assert all(sample["again"] for sample in dataset)
    dataset.set_epoch(1)
    list(dataset)
    assert seen[0] != seen[1]
    assert len(set(seen[0].values()) | set(seen[1].values())) == 102
    again = release.indexed(transform=lambda sample: {"seed": sample["__seed__"], "key": sample["__key__"]})
    assert {each["key"]: each["seed"] for each in again} == seen[0]


def test_a_transform_checks_its_contracts_when_the_dataset_is_made(release: relabel.Release) -> None:
    class Picky:
        def check(self, contracts: Mapping[str, relabel.LabelContract]) -> None:
            raise Refused(f"no use for {sorted(contracts)}")

        def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
            return sample

    with pytest.raises(Refused, match=r"no use for \['mark'\]"):
        release.dataset(columns=["mark"], transform=Picky())


def test_labels_of_several_releases_stand_side_by_side(publish: Publish, tars: Path) -> None:
    old = publish(tars / "*.tar", teacher="small")
    new = publish(tars / "*.tar", store="other", labels=["mark"],
                  statuses=lambda shard, key: "dead" if key == "00003" else "ok")  # fmt: skip
    columns = {"map": "label_map", "new_mark": (new, "mark"), "mark": "mark"}
    samples = list(old.dataset(columns=columns))
    assert len(samples) == 50
    for sample in samples:
        assert sample["new_mark"] == sample["mark"] == {"mark_value": np.float32(mark(sample["__key__"]))}
        assert isinstance(sample["map"], LabelMap)
    dataset = old.dataset(columns=columns, on_missing="none")
    found = {sample["__key__"]: sample for sample in dataset}
    assert len(found) == len(dataset) == 51
    assert found["00003"]["new_mark"] is None
    assert found["00003"]["mark"] is not None


@pytest.mark.parametrize("policy", ["skip", "error", "none"])
def test_samples_without_a_label(publish: Publish, tars: Path, policy: str) -> None:
    release = publish(tars / "*.tar", statuses=lambda shard, key: "dead" if key[-1] == "2" else "ok")
    if policy == "error":
        with pytest.raises(Refused, match="5 samples of release 1 have no label"):
            release.dataset(on_missing=policy)
        return
    dataset = release.dataset(on_missing=policy)
    samples = {sample["__key__"]: sample for sample in dataset}
    assert len(samples) == len(dataset) == (46 if policy == "skip" else 51)
    assert dataset.report().unlabelled == (5 if policy == "skip" else 0)
    assert all((sample["mark"] is None) == (key[-1] == "2") for key, sample in samples.items())


def test_a_copy_is_recognised_by_its_samples(release: relabel.Release, tars: Path, tmp_path: Path) -> None:
    copy = copied(tars, tmp_path / "copy")
    for source in (copy, str(copy / "*.tar"), [str(copy / "train-00.tar"), str(copy / "train-0[1-9].tar")]):
        dataset = release.dataset(source)
        assert len(keys(dataset)) == 51
        assert dataset.report().complete
    with pytest.raises(Refused, match="is not the shard that was labelled"):
        release.dataset(copy, check="shard")
    assert len(keys(release.dataset(check="shard"))) == 51


@pytest.mark.parametrize("check", ["auto", "digest"])
def test_a_stale_sample_is_refused(
    release: relabel.Release, tars: Path, tmp_path: Path, photos: list[tuple[bytes, int]], check: str
) -> None:
    copy = copied(tars, tmp_path / "copy")

    def swapped(files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        found = dict(files)
        found["00011.jpg"], found["00012.jpg"] = found["00012.jpg"], found["00011.jpg"]
        return list(found.items())

    rewrite(copy / "train-01.tar", swapped, 10, 3, photos)
    with pytest.raises(Refused, match=r"sample '0001[12]' of 'train-01.tar' is not what release 1 labelled"):
        keys(release.dataset(copy, check=check))
    dataset = release.dataset(copy, check=check, on_mismatch="skip")
    with pytest.warns(relabel.JoinWarning, match="2 mismatched"):
        found = keys(dataset)
    assert sorted(found) == [f"{index:05d}" for index in range(51) if index not in (11, 12)]
    assert dataset.report().mismatched == 2
    assert len(keys(release.dataset(copy, check="none"))) == 51


def test_missing_and_extra_samples_are_told(
    release: relabel.Release, tars: Path, tmp_path: Path, photos: list[tuple[bytes, int]]
) -> None:
    copy = copied(tars, tmp_path / "copy")
    extra = [("new.jpg", members(photos, 90, 1)[0][1])]
    rewrite(copy / "train-02.tar", lambda files: files[4:20] + extra + files[20:], 13, 23, photos)
    dataset = release.dataset(copy)
    with pytest.warns(relabel.JoinWarning, match="2 missing, 1 extra"):
        found = keys(dataset)
    assert sorted(found) == [f"{index:05d}" for index in range(51) if index not in (13, 14)]
    report = dataset.report()
    assert (report.missing, report.extra, report.delivered, report.complete) == (2, 1, 49, False)
    with pytest.raises(Refused, match="sample '0001[34]' of 'train-02.tar' is in the release and not in"):
        keys(release.dataset(copy, on_missing="error"))
    with pytest.raises(Refused, match="1 samples of 'train-02.tar' are not in the release, the first is 'new'"):
        keys(release.dataset(copy, on_extra="error"))


def test_a_copy_in_another_order_is_joined_by_key(
    release: relabel.Release, tars: Path, tmp_path: Path, photos: list[tuple[bytes, int]]
) -> None:
    copy = copied(tars, tmp_path / "copy")

    def backwards(files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        return [file for index in range(len(files) - 2, -1, -2) for file in files[index : index + 2]]

    rewrite(copy / "train-02.tar", backwards, 13, 23, photos)
    for rank in range(3):
        for sample in release.dataset(copy, rank=rank, world=3):
            require_equal(sample, release)
    dataset = release.dataset(copy, shuffle=0)
    assert keys(dataset) == [f"{index:05d}" for index in range(51)]
    assert dataset.report().complete


def test_a_key_that_comes_twice_is_refused(
    release: relabel.Release, tars: Path, tmp_path: Path, photos: list[tuple[bytes, int]]
) -> None:
    copy = copied(tars, tmp_path / "copy")
    rewrite(copy / "train-00.tar", lambda files: files + files[:2], 0, 10, photos)
    with pytest.raises(BadShard, match="duplicate_keys"):
        keys(release.dataset(copy))


def test_missing_extra_and_dead_shards_are_told(
    release: relabel.Release, tars: Path, tmp_path: Path, photos: list[tuple[bytes, int]]
) -> None:
    copy = copied(tars, tmp_path / "copy")
    (copy / "train-01.tar").rename(copy / "train-77.tar")
    with pytest.warns(
        relabel.JoinWarning, match=r"1 shards of release 1 are not in .*1 shards of .* are not in release 1"
    ):
        dataset = release.dataset(str(copy / "*.tar"))
    assert len(keys(dataset)) == len(dataset) == 48
    assert dataset.report().missing_shards == ("train-01.tar",)
    assert dataset.report().extra_shards == ("train-77.tar",)
    with pytest.raises(Refused, match="on_missing='skip'"):
        release.dataset(str(copy / "*.tar"), on_missing="error")
    with pytest.raises(Refused, match="on_extra='skip'"):
        release.dataset(str(copy / "*.tar"), on_extra="error")
    with pytest.raises(UsageError, match="none of the release's 5 shards lies in"):
        release.dataset(tmp_path)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_withdrawn_samples_never_appear(publish: Publish, tmp_path: Path, tars: Path) -> None:
    release = publish(tars / "*.tar")
    before = release.dataset()
    indexed = release.indexed()
    assert indexed[0]["__key__"] == "00000"
    store = relabel.open(tmp_path / "store")
    store.withdraw({"train-00.tar": ["00000", "00004"], "train-03.tar": None}, "asked for")
    for policy in ("skip", "none"):
        dataset = store.release().dataset(on_missing=policy)
        assert len(dataset) == 48
        assert not {"00000", "00004", "00036"} & set(keys(dataset))
        assert dataset.report().withdrawn == 3
    assert len(before) == 51, "its plan is older"
    assert sorted(keys(before)) == [f"{index:05d}" for index in range(51) if index not in (0, 4, 36)]
    assert before.report().withdrawn == 3
    indexed.set_epoch(1)
    with pytest.raises(relabel.errors.BadSample, match="withdrawn"):
        indexed[0]
    url = f"{tars}/train-{{00..04}}.tar"
    attached = store.release().attach(wds.WebDataset(url, shardshuffle=False), on_missing="none")
    assert not {"00000", "00004", "00036"} & set(keys(attached))
    assert attached.report().withdrawn == 3


def test_a_recall_is_seen_when_a_dataset_is_made_and_in_every_epoch(
    publish: Publish, tars: Path, tmp_path: Path
) -> None:
    publish(tars / "*.tar")
    store = relabel.open(tmp_path / "store")
    release = store.release(recalled="error")
    dataset = release.dataset()
    assert len(keys(dataset)) == 51
    store.recall(1, "wrong teacher")
    with pytest.raises(Recalled, match="wrong teacher"):
        iter(dataset)
    with pytest.raises(Recalled, match="wrong teacher"):
        release.dataset()


def test_a_truncated_copy_is_refused(release: relabel.Release, tars: Path, tmp_path: Path) -> None:
    copy = copied(tars, tmp_path / "copy")
    path = copy / "train-02.tar"
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(BadShard, match="truncated_shard"):
        keys(release.dataset(copy))


def test_a_shard_that_changes_while_it_is_used_is_refused(release: relabel.Release, tars: Path, tmp_path: Path) -> None:
    copy = copied(tars, tmp_path / "copy")
    dataset = release.dataset(copy)
    for file in copy.iterdir():
        file.write_bytes(file.read_bytes() + bytes(512))
    with pytest.raises(BadShard, match="changed_shard"):
        keys(dataset)


def test_wrong_arguments_say_what_is_right(release: relabel.Release, tars: Path) -> None:
    for given, error, said in (
        ({"columns": "mark"}, UsageError, r"write \['mark'\]"),
        ({"columns": ["marks"]}, UnknownName, "did you mean 'mark'"),
        ({"columns": {"image": "mark"}}, UsageError, "no label can be called 'image'"),
        ({"seeds": 3}, UnknownName, "did you mean 'seed'"),
        ({"check": "maybe"}, UsageError, "check must be one of auto"),
        ({"shuffle": -1}, UsageError, "at least 0, got -1"),
        ({"rank": 0}, UsageError, "give rank and world together"),
        ({"rank": 3, "world": 3}, UsageError, "rank must lie in 0 to world - 1"),
        ({"source": str(tars / "*.parquet")}, UsageError, "made from webdataset"),
        ({"fields": "jpg"}, UsageError, "fields must be a list"),
    ):  # fmt: skip
        with pytest.raises(error, match=said):
            release.dataset(**given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'cls' names a label and a field"):
        keys(release.dataset(columns={"cls": "mark"}))


def test_a_folder_of_images_joins_by_relative_path(
    publish: Publish, tmp_path: Path, photos: list[tuple[bytes, int]]
) -> None:
    folder = tmp_path / "images"
    for name, data in members(photos, 0, 20):
        if name.endswith(".jpg"):
            path = folder / str(int(name[:5]) % 3) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    release = publish(folder, source={"buckets": 3})
    dataset = release.dataset()
    samples = list(dataset)
    assert sorted(sample["__key__"] for sample in samples) == sorted(f"{i % 3}/{i:05d}.jpg" for i in range(20))
    for sample in samples:
        require_equal(sample, release)
        assert sample["image"].size == (32, 32)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    (copy / "0" / "extra.jpg").write_bytes(b"never opened")
    (copy / "1" / "00001.jpg").unlink()
    dataset = release.dataset(copy)
    with pytest.warns(relabel.JoinWarning, match="1 missing, 1 extra"):
        assert len(keys(dataset)) == 19
    assert len(list(release.indexed(folder))) == 20


@pytest.mark.parametrize("key", [None, "id"])
def test_parquet_is_joined(publish: Publish, tmp_path: Path, photos: list[tuple[bytes, int]], key: str | None) -> None:
    write_parquets(str(tmp_path / "media"), photos, [20, 5, 30])
    release = publish(tmp_path / "media" / "*.parquet", source={"key": key})
    found: list[str] = []
    for rank in range(4):
        for sample in release.dataset(rank=rank, world=4, remainder="exact", shuffle=3):
            require_equal(sample, release)
            assert sample["image"].size == (32, 32)
            assert isinstance(sample["label"], int)
            found.append(sample["id"])
    assert sorted(found) == [f"{index:05d}" for index in range(55)]
    copy = copied(tmp_path / "media", tmp_path / "copy")
    assert len(keys(release.dataset(copy))) == 55
    assert [sample["id"] for sample in release.indexed(copy)] == sorted(found)


def test_digests_may_be_over_several_fields(publish: Publish, tars: Path, tmp_path: Path) -> None:
    release = publish(tars / "*.tar", needs=["image", "old"], source={"fields": {"old": "cls"}})
    assert len(keys(release.dataset(check="digest"))) == 51
    assert len(keys(release.dataset(copied(tars, tmp_path / "copy")))) == 51


def test_indexed_gives_the_same_samples(release: relabel.Release, tars: Path, tmp_path: Path) -> None:
    indexed = release.indexed(columns=["mark"])
    assert len(indexed) == 51
    assert [sample["__key__"] for sample in indexed] == [f"{index:05d}" for index in range(51)]
    assert indexed[-1]["__key__"] == "00050"
    assert indexed[33]["mark"] == release.get("train-02.tar", "00033")["mark"]
    for index in (51, -52):
        with pytest.raises(IndexError):
            indexed[index]
    with pytest.raises(UsageError):
        indexed["00000"]
    assert len(list(release.indexed(copied(tars, tmp_path / "copy")))) == 51


# webdataset leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
class TestAttach:
    """Labels for webdataset pipelines."""

    def pipeline(self, folder: Path, **options: Any) -> Any:
        return wds.WebDataset(sorted(map(str, folder.glob("*.tar"))), shardshuffle=False, **options)

    def test_samples_have_their_labels(self, release: relabel.Release, tars: Path) -> None:
        attached = release.attach(self.pipeline(tars), columns=["label_map", "mark"]).decode("pil", partial=True)
        samples = list(attached)
        assert [sample["__key__"] for sample in samples] == [f"{index:05d}" for index in range(51)]
        for sample in samples:
            require_equal({**sample, "__shard__": Path(sample["__url__"]).name}, release)
            assert sample["jpg"].size == (32, 32)

    def test_a_shuffled_pipeline_is_joined_by_key(self, release: relabel.Release, tars: Path) -> None:
        attached = release.attach(self.pipeline(tars).shuffle(20))
        for sample in attached:
            require_equal({**sample, "__shard__": Path(sample["__url__"]).name}, release)
        assert attached.report().delivered == 51
        assert attached.report().complete

    def test_a_pipeline_without_webdataset(self, release: relabel.Release, tars: Path) -> None:
        samples = [{"__key__": "00000", "__url__": f"{tars}/train-00.tar"}]
        attached = release.attach(samples, check="none", columns=["mark"])
        with pytest.warns(relabel.JoinWarning, match="9 missing"):
            [sample] = attached
        assert sample["mark"] == release.get("train-00.tar", "00000")["mark"]

    def test_copies_missing_and_extra_samples(
        self, release: relabel.Release, tars: Path, tmp_path: Path, photos: list[tuple[bytes, int]]
    ) -> None:
        copy = copied(tars, tmp_path / "copy")
        extra = [("new.jpg", members(photos, 90, 1)[0][1])]
        rewrite(copy / "train-02.tar", lambda files: files[4:20] + extra + files[20:], 13, 23, photos)
        attached = release.attach(self.pipeline(copy))
        with pytest.warns(relabel.JoinWarning, match="2 missing, 1 extra"):
            assert len(keys(attached)) == 49
        with pytest.raises(Refused, match="sample 'new' of 'train-02.tar' is not in release 1"):
            keys(release.attach(self.pipeline(copy), on_extra="error"))
        with pytest.raises(Refused, match="did not come"):
            keys(release.attach(self.pipeline(copy), on_missing="error"))

    def test_a_stale_sample_is_refused(
        self, release: relabel.Release, tars: Path, tmp_path: Path, photos: list[tuple[bytes, int]]
    ) -> None:
        copy = copied(tars, tmp_path / "copy")
        rewrite(copy / "train-01.tar", lambda files: [files[0], ("00011.jpg", files[0][1]), *files[3:]], 10, 3, photos)
        with pytest.raises(Refused, match="sample '00011' of 'train-01.tar' is not what release 1 labelled"):
            keys(release.attach(self.pipeline(copy)))

    def test_decoded_samples_of_a_copy_cannot_be_compared(
        self, release: relabel.Release, tars: Path, tmp_path: Path
    ) -> None:
        copy = copied(tars, tmp_path / "copy")
        pipeline = self.pipeline(copy).decode("pil").map(lambda sample: {**sample, "cls": 1})
        with pytest.raises(UsageError, match="attach labels before decoding"):
            keys(release.attach(pipeline))

    def test_what_is_no_sample_is_refused(self, release: relabel.Release, tars: Path) -> None:
        with pytest.raises(UsageError, match="before samples become tuples"):
            list(release.attach(self.pipeline(tars).to_tuple("jpg", "cls")))
