"""Samples for a trial: spread over shards, the same every time, and clear words where there are none."""

import json
from pathlib import Path

import pytest
from releases_of_photos import write_tar

from pipelines.sampling import MOST_REFUSED, SPREAD, Sampling, most_shards, parse_condition, spread, take
from relabel.errors import TooManyDeadLetters, UsageError
from relabel.shards.shard import Shard
from relabel.shards.source import SourceConfig


def config(path: str) -> SourceConfig:
    return SourceConfig.model_validate(path)


@pytest.fixture
def source(tmp_path: Path) -> SourceConfig:
    """Eight shards of ten samples each, numbered 0 to 79, with their width in a JSON file."""
    for shard in range(8):
        numbers = range(10 * shard, 10 * shard + 10)
        members = {f"{number:02d}.json": json.dumps({"width": 10 * number}).encode() for number in numbers}
        write_tar(tmp_path / f"{shard}.tar", members)
    return config(f"{tmp_path}/*.tar")


def where(source: SourceConfig, *conditions: str) -> SourceConfig:
    return source.model_copy(update={"where": tuple(parse_condition(text) for text in conditions)})


def keys(sampling: Sampling) -> list[str]:
    return [found.sample.key for found in sampling.found]


def test_samples_are_the_first_of_evenly_spaced_shards(source: SourceConfig) -> None:
    sampling = take(source, 7)
    assert keys(sampling) == ["00", "01", "10", "11", "30", "40", "60"]
    assert (sampling.num_shards, sampling.refused) == (8, 0)
    assert keys(take(source, 7)) == keys(sampling)
    assert keys(take(source, 1)) == ["00"]


def test_shards_that_hold_too_few_are_made_up_for_by_the_others(source: SourceConfig) -> None:
    assert len(set(keys(take(source, 79)))) == 79
    assert len(set(keys(take(source, 500)))) == 80


def test_where_admits_and_the_rest_of_the_source_is_looked_through(source: SourceConfig) -> None:
    """Samples 25 to 27 lie in a shard that is not among those first opened."""
    sampling = take(where(source, "json.width>=250", "json.width<280"), 5)
    assert keys(sampling) == ["25", "26", "27"]
    assert sampling.refused == 77
    assert sampling.admitted == pytest.approx(3 / 80)


def test_the_number_of_samples_is_estimated_from_their_size(source: SourceConfig) -> None:
    # A shard's end-of-archive blocks and padding to 10 kB are what the estimate does not know of.
    assert 80 <= take(source, 10).samples_in_source <= 80 * 2


def test_no_sample_is_explained(source: SourceConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none of the 80 samples .* \(json.width gt 5000\).*fields are json"):
        take(where(source, "json.width>5000"), 3)
    write_tar(tmp_path / "none" / "empty.tar", {})
    with pytest.raises(UsageError, match="the 1 shards of .*none.* hold no sample"):
        take(config(f"{tmp_path}/none/*.tar"), 3)
    with pytest.raises(UsageError, match="no file matches"):
        take(config(f"{tmp_path}/nowhere/*.tar"), 3)


def test_the_search_is_given_up(source: SourceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_REFUSED >= 1000
    monkeypatch.setattr("pipelines.sampling.MOST_REFUSED", 12)
    with pytest.raises(UsageError, match="none of the 12 samples looked at"):
        take(where(source, "json.width>5000"), 3)


def test_bad_shards_are_named_and_give_no_samples(source: SourceConfig, tmp_path: Path) -> None:
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[:2200])
    sampling = take(source, 80)
    assert [name for name, _ in sampling.bad_shards] == ["0.tar"]
    assert keys(sampling) == [f"{number}" for number in range(10, 80)]
    for shard in range(8):
        (tmp_path / f"{shard}.tar").write_bytes(whole[:600])
    with pytest.raises(TooManyDeadLetters, match="none of the 8 shards can be read .first: 0.tar: truncated_shard"):
        take(source, 3)


def test_metadata_that_cannot_be_read_is_admitted_to_become_a_dead_letter(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"good.json": b'{"width": 9}', "odd.json": b"{"})
    assert keys(take(where(config(f"{tmp_path}/a.tar"), "json.width>1"), 5)) == ["good", "odd"]


def test_parquet_is_read_as_a_whole_so_fewer_shards_are() -> None:
    parquet, tars = config("p/*.parquet"), config("p/*.tar")
    small, large = ([Shard(str(index), "", size, "") for index in range(40)] for size in (1 << 20, 1 << 30))
    assert most_shards(parquet, small, 20) == SPREAD
    assert most_shards(parquet, large, 20) == 1
    assert most_shards(tars, large, 20) == SPREAD
    assert most_shards(tars, large, 2) == 2
    assert [shard.name for shard in spread(small, 4)] == ["0", "10", "20", "30"]


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("json.width>=256", {"field": "json.width", "ge": 256}),
        ("cls = 471", {"field": "cls", "eq": 471}),
        ("cls==471", {"field": "cls", "eq": 471}),
        ("a!=b c", {"field": "a", "ne": "b c"}),
        ('id="0012"', {"field": "id", "eq": "0012"}),
        ("x<1.5", {"field": "x", "lt": 1.5}),
        ("x<=-1", {"field": "x", "le": -1}),
        ("ok=true", {"field": "ok", "eq": True}),
        ("json.title~^A.*=", {"field": "json.title", "matches": "^A.*="}),
    ],
)
def test_conditions(text: str, condition: dict[str, object]) -> None:
    assert parse_condition(text).as_written() == condition


@pytest.mark.parametrize("text", ["width", ">=3", "", "a b>3", "json.title~("])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--where"):
        parse_condition(text)
