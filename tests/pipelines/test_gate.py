"""The gate: what hurts is refused with the right reason, ordinary growth never is."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_releases import Rows, publish

from pipelines.gate import Verdict, judge
from pipelines.gate_checks import most_by_chance
from pipelines.gate_policy import Gate, Gold, Slice
from pipelines.gatekeeper import Gatekeeper
from pipelines.report_facts import next_commands
from relabel.errors import StoreCorrupt
from relabel.labels.class_map import ClassMap
from relabel.labels.contract import Geometry, LabelContract
from relabel.labels.kinds import classes, scores, text
from relabel.labels.label_map import encode, label_map_contract
from relabel.labels.pseudo import answered_contract
from relabel.releases.release import Release, Store

NAMES = ("dog", "cat", "horse", "owl", "whale")
KINDS = classes("kind", NAMES)
GEOMETRY = Geometry(size=64, interpolation="bilinear", orientation="exif")
MAPS = label_map_contract("map", ClassMap(NAMES).declare(), (4, 4), 2, GEOMETRY)
SHARDS = [f"night/{number:02}.tar" for number in range(8)]


def drawn(shard: str, rows: int = 40, shares: Sequence[float] = (0.4, 0.3, 0.2, 0.07, 0.03)) -> np.ndarray:
    """Classes of a shard's rows: the same ones every time."""
    random = np.random.default_rng(sum(map(ord, shard)))
    return random.choice(len(NAMES), rows, p=shares)


def of_classes(ids: np.ndarray, sure: float = 0.9) -> Rows:
    return Rows({"kind_ids": ids.astype(np.uint16)[:, None], "kind_scores": np.full((len(ids), 1), sure, np.float32)})


def tidy(shards: Sequence[str] = SHARDS, **options: Any) -> dict[str, Rows]:
    return {shard: of_classes(drawn(shard, **options)) for shard in shards}


def two(
    tmp_path: Path,
    before: Mapping[str, Rows],
    after: Mapping[str, Rows],
    gate: Gate | None = None,
    contract: LabelContract = KINDS,
    teacher: str = "small",
) -> Verdict:
    parent = publish(tmp_path / "store", contract, before, NAMES)
    candidate = publish(tmp_path / "store", contract, after, NAMES, teacher=teacher, run_id="run-2")
    return judge(candidate, parent, gate or Gate())


def refused(verdict: Verdict) -> list[str]:
    return [f"{check.name} {check.of}".strip() for check in verdict.refused]


def test_a_first_release_says_that_it_has_no_baseline(tmp_path: Path) -> None:
    verdict = judge(publish(tmp_path, KINDS, tidy(), NAMES), None, Gate())
    assert refused(verdict) == []
    assert "the first release: there is no baseline, no gold" in str(verdict)
    assert verdict.to_json()["baseline"] is None


@pytest.mark.parametrize("night", range(10))
def test_growth_is_never_refused(tmp_path: Path, night: int) -> None:
    more = [f"more/{night}-{number}.tar" for number in range(1 + night)]
    verdict = two(tmp_path, tidy(), {**tidy(SHARDS[1:]), **tidy(more, rows=15 + 5 * night)})
    assert refused(verdict) == []
    assert {check.name for check in verdict.checks} >= {"reconciliation", "removed_shards", "classes"}


def test_growth_by_a_new_class_is_usual_where_shards_are_sorted_by_class(tmp_path: Path) -> None:
    each = {f"{index}-{number}.tar": of_classes(np.full(30, index)) for index in range(4) for number in range(2)}
    verdict = two(tmp_path, each, {**each, "4-0.tar": of_classes(np.full(30, 4))})
    assert refused(verdict) == []


def test_a_lost_half_of_the_source_is_refused(tmp_path: Path) -> None:
    verdict = two(tmp_path, tidy(), tidy(SHARDS[:4]))
    assert refused(verdict) == ["removed_shards"]
    assert verdict.refused[0].examples == ["night/04.tar", "night/05.tar", "night/06.tar"]


def test_corrupt_images_are_refused_by_their_reason(tmp_path: Path) -> None:
    bad = {shard: Rows(rows.labels, {"corrupt_image": 2}) for shard, rows in tidy(rows=38).items()}
    verdict = two(tmp_path, tidy(), bad)
    assert refused(verdict) == ["dead_letters corrupt_image"]
    assert verdict.refused[0].value == 16
    assert verdict.refused[0].examples[0]["key"] == "night/00.tar/0038"
    assert refused(two(tmp_path / "usual", bad, {**bad, **tidy(["new.tar"])})) == []


def test_unreadable_shards_are_refused(tmp_path: Path) -> None:
    bad = {shard: Rows({}, unreadable="truncated_shard") for shard in SHARDS[:3]}
    verdict = two(tmp_path, tidy(), {**tidy(), **bad})
    assert "dead_letters truncated_shard" in refused(verdict)


def test_too_few_labels_are_refused_in_the_whole_and_in_a_slice(tmp_path: Path) -> None:
    day = {"day/0.tar": Rows(of_classes(drawn("day", 20)).labels, {"unusable_text": 20})}
    gate = Gate(dead_letters=1.0, labelled=0.8, slices={"day": Slice(shards="day/*"), "night": Slice(shards="night/*")})
    assert refused(two(tmp_path, tidy(), {**tidy(), **day}, gate)) == ["labelled day"]
    with_few = {shard: Rows(rows.labels, {"unusable_text": 40}) for shard, rows in tidy().items()}
    assert "labelled" in refused(two(tmp_path / "all", tidy(), with_few, gate))
    assert refused(two(tmp_path / "none", tidy(), tidy(), Gate(slices={"dusk": Slice(shards="dusk/*")}))) == [
        "labelled dusk"
    ]


def test_another_filter_is_refused(tmp_path: Path) -> None:
    filtered = {shard: Rows(rows.labels, filtered=30) for shard, rows in tidy().items()}
    assert "filtered" in refused(two(tmp_path, tidy(), filtered))


def test_another_teacher_is_refused_unless_it_is_declared(tmp_path: Path) -> None:
    assert refused(two(tmp_path, tidy(), tidy(), teacher="large")) == ["meaning kind"]
    verdict = two(tmp_path / "declared", tidy(), tidy(), Gate(expect_change="larger teacher"), teacher="large")
    assert refused(verdict) == []
    assert verdict.to_json()["expect_change"] == "larger teacher"


def test_a_shuffled_class_map_is_refused(tmp_path: Path) -> None:
    """Declared or not: of new shards by their classes, of the same samples by what they were."""
    turned = {shard: of_classes((drawn(shard) + 2) % len(NAMES)) for shard in SHARDS}
    new = {f"new/{shard}": rows for shard, rows in turned.items()}
    assert refused(two(tmp_path, tidy(), {**tidy(), **new})) == ["classes kind"]
    declared = two(tmp_path / "declared", tidy(), turned, Gate(expect_change="larger teacher"), teacher="large")
    assert refused(declared) == ["classes kind", "agreement kind"]


def test_scores_that_fell_are_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    contract = scores("match", "new", "old", domain="cosine").model_copy(update={"rivals": (("new", "old"),)})

    def rows(mean: float) -> Rows:
        values = random.normal([mean, 0.2], 0.03, (50, 2)).astype(np.float32)
        return Rows({"match_new": values[:, 0], "match_old": values[:, 1]})

    good = {shard: rows(0.3) for shard in SHARDS}
    assert refused(two(tmp_path, good, {**good, "x.tar": rows(0.3)}, contract=contract)) == []
    neighbours = {f"n-{shard}": rows(0.18) for shard in SHARDS}
    found = refused(two(tmp_path / "fell", good, {**good, **neighbours}, contract=contract))
    assert found == ["scores match_new", "wins match_new > match_old"]


def test_texts_of_another_length_are_refused(tmp_path: Path) -> None:
    def rows(words: int, seed: int) -> Rows:
        lengths = np.random.default_rng(seed).integers(words - 2, words + 3, 50)
        return Rows({"told_text": [" ".join(["word"] * int(length)) for length in lengths]})

    good = {shard: rows(10, place) for place, shard in enumerate(SHARDS)}
    contract = text("told")
    assert refused(two(tmp_path, good, {**good, "x.tar": rows(10, 99)}, contract=contract)) == []
    found = two(tmp_path / "short", good, {**good, "x.tar": rows(3, 99)}, contract=contract)
    assert refused(found) == ["lengths told_text: words"]


def test_a_prompt_that_yields_empty_answers_is_refused(tmp_path: Path) -> None:
    """For what it means; declared, for what came of it: dead letters where a guard saw them, else the empty texts."""

    def told(*words: str, dead: int = 0) -> dict[str, Rows]:
        rows = Rows({"told_text": [*words] * (40 // len(words))}, {"unusable_text": dead} if dead else {})
        return dict.fromkeys(SHARDS, rows)

    good, contract, declared = told("a red horse", "an owl"), text("told"), Gate(expect_change="shorter prompt")
    empty = told("", "an owl", "", "a dog")
    assert "meaning told" in refused(two(tmp_path, good, empty, contract=contract, teacher="prompt"))
    found = two(tmp_path / "declared", good, empty, declared, contract, teacher="prompt")
    assert refused(found) == ["flags told_text: empty"]
    guarded = two(tmp_path / "guarded", good, told("an owl", "a dog", dead=30), declared, contract, teacher="prompt")
    assert refused(guarded) == ["dead_letters unusable_text"]
    same = two(tmp_path / "good", good, told("a dog", "an owl"), declared, contract, teacher="prompt")
    assert refused(same) == []


def test_bad_answers_and_texts_that_are_cut_are_refused(tmp_path: Path) -> None:
    contract = answered_contract("kind", NAMES, 1, reproducible=True, several=False)

    def answered(shard: str, *flags: str, truncated: bool = False) -> Rows:
        """A fifth of the rows are said to be bad."""
        ids = (drawn(shard)[:, None] + np.arange(len(NAMES))) % len(NAMES)
        count, bad = len(ids), np.arange(len(ids)) % 5 == 0
        return Rows({
            "kind_ids": ids.astype(np.uint16),
            "kind_scores": np.tile(np.eye(1, len(NAMES), dtype=np.float32), (count, 1)),
            "kind_votes": ids[:, :1].astype(np.int32), "kind_prompt_tokens": np.ones((count, 1), np.int32),
            "kind_truncated": bad & truncated, "kind_answers": [["x"]] * count,
            "kind_attempts": np.ones(count, np.uint8), "kind_completion_tokens": np.ones(count, np.int32),
            "kind_flags": [[*flags] if each else [] for each in bad],
        })  # fmt: skip

    good = {shard: answered(shard) for shard in SHARDS}
    assert refused(two(tmp_path / "same", good, {**good, "x.tar": answered("x.tar")}, contract=contract)) == []
    worse = {shard: answered(shard, "parse_error", truncated=True) for shard in SHARDS}
    found = two(tmp_path / "worse", good, worse, contract=contract)
    assert refused(found) == ["flags kind_flags: parse_error", "flags kind_truncated: truncated"]


@pytest.mark.parametrize("night", range(10))
def test_clean_reruns_are_never_refused(tmp_path: Path, night: int) -> None:
    """Every shard came anew, with other samples of the same kind."""
    random = np.random.default_rng(night)
    rows = {
        shard: of_classes(random.choice(len(NAMES), 40, p=(0.4, 0.3, 0.2, 0.07, 0.03)), 0.9 + 0.001 * night)
        for shard in SHARDS
    }
    assert refused(two(tmp_path, tidy(), rows)) == []


def maps_of(quadrants: np.ndarray) -> Rows:
    """Rows whose left half has one class and right half another."""
    logits = np.full((len(quadrants), len(NAMES), 4, 4), -4.0, np.float32)
    for row, (left, right) in enumerate(quadrants):
        logits[row, left, :, :2] = 4
        logits[row, right, :, 2:] = 4
    return as_rows(logits)


def as_rows(logits: np.ndarray) -> Rows:
    encoded = {f"map_{name}": values for name, values in encode(logits, 2).items()}
    sides = np.full(len(logits), 64, np.int32)
    return Rows({**encoded, "map_height": sides, "map_width": sides})


@pytest.fixture
def halves() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {shard: np.array([random.choice(5, 2, replace=False) for _ in range(20)]) for shard in SHARDS}


def gold_of(tmp_path: Path, halves: Mapping[str, np.ndarray]) -> Gold:
    publish(tmp_path / "gold", MAPS, {shard: maps_of(halves[shard]) for shard in SHARDS[:3]}, NAMES, teacher="people")
    return Gold(store=str(tmp_path / "gold"))


def release_of(tmp_path: Path, halves: Mapping[str, np.ndarray], wrong: float = 0.0, turned: bool = False) -> Release:
    random = np.random.default_rng(2)
    shards = {}
    for shard, pairs in halves.items():
        said = np.where(random.random(pairs.shape) < wrong, (pairs + 1) % 5, pairs)
        rows = maps_of(said)
        if turned:
            logits = np.full((len(said), len(NAMES), 4, 4), -4.0, np.float32)
            for row, (left, right) in enumerate(said):
                logits[row, left, :2], logits[row, right, 2:] = 4, 4
            rows = as_rows(logits)
        shards[shard] = rows
    return publish(tmp_path, MAPS, shards, NAMES)


def test_gold_refuses_transposed_maps_and_a_weak_teacher(tmp_path: Path, halves: Mapping[str, np.ndarray]) -> None:
    gate = Gate(gold=gold_of(tmp_path, halves))
    good = release_of(tmp_path / "good", halves, wrong=0.05)
    first = judge(good, None, gate)
    assert refused(first) == []
    assert "nothing to compare it with yet" in next(check.text for check in first.checks if check.name == "gold")
    assert refused(judge(release_of(tmp_path / "same", halves, wrong=0.05), good, gate)) == []
    weak = judge(release_of(tmp_path / "weak", halves, wrong=0.5), good, gate)
    assert "gold map" in refused(weak)
    assert "orientation map" not in refused(weak)
    turned = judge(release_of(tmp_path / "turned", halves, turned=True), good, gate)
    assert "orientation map" in refused(turned)
    assert "are transposed" in next(check.text for check in turned.refused if check.name == "orientation")


def test_gold_must_be_of_the_same_samples(tmp_path: Path, halves: Mapping[str, np.ndarray]) -> None:
    gold = gold_of(tmp_path, halves)
    others = release_of(tmp_path / "other", {f"x{shard}": pairs for shard, pairs in halves.items()})
    assert refused(judge(others, None, Gate(gold=gold))) == ["gold map"]
    least = Gate(gold=gold.model_copy(update={"least": 0.9}))
    assert refused(judge(release_of(tmp_path / "half", halves, wrong=0.5), None, least)) == ["gold map"]


@pytest.mark.parametrize("expected", [0.0, 0.4, 3.0, 900.0, 2000.0])
def test_what_comes_by_chance(expected: float) -> None:
    drawn = np.random.default_rng(0).poisson(expected, 20_000)
    most = most_by_chance(expected)
    assert (drawn > most).mean() < 0.013
    assert expected == 0 or (drawn > most - max(1, 0.1 * expected**0.5)).mean() > 0.008


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"off": True, "approval": ["owners"]}, "off asks for nothing, approval for people"),
        ({"gold": {"store": "gold", "storage_options": {"secret": "a-literal-one"}}}, "secret"),
        ({"gold": {"store": "s3:///gold"}}, "names no bucket"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(wrong: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Gate.model_validate(wrong)
    assert Gate.model_validate("off").off


def test_scores_that_are_gone_are_refused(tmp_path: Path) -> None:
    """A scorer that breaks leaves no numbers whose median could fall: how many are missing is judged."""
    contract = scores("match", "new", domain="cosine").model_copy(update={"no_score": -2.0})

    def rows(missing: int, of: int = 50) -> Rows:
        values = np.full(of, 0.3, np.float32)
        values[:missing] = -2.0
        return Rows({"match_new": values})

    good = {shard: rows(1) for shard in SHARDS}
    found = two(tmp_path, good, {**good, "x.tar": rows(50)}, contract=contract)
    assert refused(found) == ["flags match_new: missing"]
    assert refused(two(tmp_path / "few", good, {**good, "x.tar": rows(2)}, contract=contract)) == []
    other = Gate(expect_change="a scorer that is not sure of all")
    assert refused(two(tmp_path / "meant", good, {"x.tar": rows(40)}, other, contract, "large")) == ["removed_shards"]
    uneven = {shard: rows(50 if place % 2 else 0) for place, shard in enumerate(SHARDS)}
    assert refused(two(tmp_path / "uneven", uneven, {**uneven, "x.tar": rows(50)}, contract=contract)) == []


def damage(release: Release, shard: str) -> str:
    """A flipped byte in the middle of a label shard; returns its path."""
    data = release.entries[shard].data
    assert data is not None
    held = bytearray(release.objects.get(data.path))
    held[len(held) // 4] ^= 0xFF
    release.objects.put(data.path, bytes(held))
    return data.path


def test_damaged_labels_are_not_published(tmp_path: Path) -> None:
    parent = publish(tmp_path, KINDS, tidy(), NAMES)
    candidate = publish(tmp_path, KINDS, {**tidy(), "new.tar": of_classes(drawn("new"))}, NAMES, run_id="run-2")
    path = damage(candidate, "new.tar")
    with pytest.raises(StoreCorrupt, match=rf"{path}.*Delete that file, and run again") as caught:
        judge(candidate, parent, Gate())
    assert caught.value.exit_code == 3


def test_damage_in_the_last_release_does_not_hold_up_what_mends_it(
    tmp_path: Path, halves: Mapping[str, np.ndarray]
) -> None:
    gate = Gate(gold=gold_of(tmp_path, halves))
    good = release_of(tmp_path / "good", halves)
    again = release_of(tmp_path / "again", halves)
    damage(good, SHARDS[0])
    assert refused(judge(again, good, gate)) == []
    before = publish(tmp_path / "declared", KINDS, tidy(), NAMES)
    after = publish(tmp_path / "declared", KINDS, tidy(), NAMES, teacher="large", run_id="run-2")
    damage(before, SHARDS[0])
    verdict = judge(after, before, Gate(expect_change="larger teacher"))
    assert refused(verdict) == ["agreement"], "what cannot be looked at is refused, and may be forced"
    assert "cannot be compared with release 1" in verdict.refused[0].text


def test_commands_can_be_typed_as_they_are_told(tmp_path: Path) -> None:
    release = publish(tmp_path / "my store", KINDS, tidy(), NAMES)
    told = Gatekeeper(release.objects, Gate()).refusal(judge(release, None, Gate()), release.version)
    commands = re.findall(r"`(relabel (?:report|diff) [^`]*)`", told)
    commands += [command for command, _ in next_commands(Store(release.objects), release, candidate=False)]
    assert len(commands) == 3
    assert {shlex.split(command)[2] for command in commands} == {str(tmp_path / "my store")}
