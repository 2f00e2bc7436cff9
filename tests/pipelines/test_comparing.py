"""`compare`: two teachers on the same samples, in one picture and a few honest figures."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import two_colours
import yaml
from PIL import Image
from releases_of_photos import write_tar

from pipelines.agreement import CellAgreement, canonical
from pipelines.command_line import main
from pipelines.comparing import Comparison, compare
from pipelines.drawing import COLOURS
from pipelines.readings import NOTHING, Classified
from pipelines.side_by_side import Pair, coloured, listed_classes, render
from relabel.errors import TooManyDeadLetters, UsageError
from relabel.labels.class_map import imagenet1k

Make = Callable[..., dict[str, Any]]
LARGER = "label_map.input_size=96"
ALL = {"equal": 1.0, "compared": 1.0}


@pytest.fixture(scope="module")
def maps(demo_shards: Path) -> dict[str, Any]:
    return {
        "name": "maps",
        "source": {"path": f"{demo_shards}/*.tar", "old_label": "cls"},
        "steps": [{"label_map": {"model": "efficientnet-lite0", "input_size": 64}}],
        "store": "nowhere",
    }


@pytest.fixture(scope="module")
def compared(maps: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """2 x 2 against 3 x 3 cells."""
    out = tmp_path_factory.mktemp("compared") / "sizes.png"
    return compare(maps, maps, (), [LARGER], limit=8, where=["cls>=0"], out=out)


def test_a_recipe_agrees_with_itself(maps: dict[str, Any], tmp_path: Path) -> None:
    same = compare(maps, maps, limit=4, where=["cls>=0"], out=tmp_path / "same.png")
    assert same.agreement() == {"both_labelled": 4, "same_text": 4, "same_best": 4, "cells": ALL}
    assert same.differences == []
    assert same.describe_side(0)["old_label"] == same.describe_side(1)["old_label"]


def test_what_differs_is_said_and_both_are_measured(compared: Comparison) -> None:
    told = compared.to_json()
    assert told["differences"] == ["input_size: 64 -> 96", "grid: [2, 2] -> [3, 3]"]
    assert told["notes"] == ["one class map of 1000 classes"]
    agreement = told["agreement"]
    assert (agreement["both_labelled"], agreement["same_text"]) == (8, 0)
    assert 0 < agreement["cells"]["equal"] < 1
    assert agreement["same_best"] == sum(sample["same_best"] for sample in told["samples"])
    first, second = told["a"], told["b"]
    assert first["fingerprint"] != second["fingerprint"]
    assert first["old_label"]["of"] == second["old_label"]["of"] == 8
    assert first["bytes_per_sample"] < second["bytes_per_sample"]
    assert 0 < first["mean_confidence"] < 1
    ratio = second["speed"]["label_ms"] / first["speed"]["label_ms"]
    assert told["cost_ratio"] == pytest.approx(ratio, rel=0.05)
    assert json.loads(json.dumps(told)) == told


def test_old_labels_count_by_class(compared: Comparison) -> None:
    agreeing = [each.old_class == each.classified[0].best for each in compared.samples if each.classified is not None]
    assert compared.describe_side(0)["old_label"] == {"agree": sum(agreeing), "of": 8}
    assert compared.samples[0].old_label == "Bullmastiff"
    assert compared.samples[0].old_class == 243


def test_the_picture(compared: Comparison) -> None:
    assert compared.picture is not None
    with Image.open(compared.picture) as picture:
        assert picture.width == 2100
        assert picture.height == round(150 * (8 * 2.7 + 1.2))


def test_teachers_of_different_classes_are_compared_by_name(maps: dict[str, Any], tmp_path: Path) -> None:
    """One teacher, whose classes the second recipe writes otherwise, and half of them in another language."""
    names = [name.upper() if index % 2 else f"n{index}" for index, name in enumerate(imagenet1k().names)]
    steps = [{"label_map": {"model": "efficientnet-lite0", "input_size": 64, "class_names": names}}]
    other = {**maps, "steps": steps, "source": {"path": "not/read/*.tar"}}
    found = compare(maps, other, limit=8, where=["cls>=0"], out=tmp_path / "both.png")
    told = found.to_json()
    assert any("different class maps (1000 and 1000 classes): compared by name" in note for note in told["notes"])
    assert "the samples are those of A's source; B's source was not read" in told["notes"]
    assert (told["a"]["old_label"], told["b"]["old_label"]) == (None, None)
    shared = {canonical(name) for name in names}
    odd = [canonical(sample["a"].rsplit(" ", 2)[0]) in shared for sample in told["samples"]]
    assert [sample["same_best"] for sample in told["samples"]] == odd
    assert 0 < sum(odd) < 8
    assert found.picture == tmp_path / "both.png"


def test_masks_against_label_maps(maps: dict[str, Any], tmp_path: Path, segmenter: Path) -> None:
    """Any two labels that give cells a class can be compared."""
    truth = np.zeros((60, 90), np.uint8)
    truth[:, 30:] = 1
    write_tar(tmp_path / "in.tar", {"scene.png": two_colours.png(two_colours.scene(truth))})
    masks = {
        **maps,
        "source": {"path": f"{tmp_path}/in.tar"},
        "steps": [{"mask": {"model": str(segmenter), "input_size": 64}}],
    }
    same = compare(masks, masks, out=tmp_path / "same.png")
    assert same.agreement() == {"both_labelled": 1, "same_text": 1, "same_best": 1, "cells": ALL}
    other = compare(masks, maps, out=tmp_path / "other.png")
    assert other.agreement()["cells"] is None, "ImageNet has neither red nor blue"
    assert other.picture == tmp_path / "other.png"
    assert [side["kind"] for side in (other.to_json()["a"], other.to_json()["b"])] == ["mask", "label_map"]


@pytest.mark.usefixtures("other_kinds")
def test_labels_without_classes_are_a_table(
    maps: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lightness", "tone"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**maps, "name": name, "steps": [name]}))
    assert main(["compare", "lightness.yaml", "lightness.yaml", "--limit", "3"]) == 0
    said = capsys.readouterr().out
    assert "3 of 3 samples have the same label" in said
    assert "picture      none" in said
    assert main(["compare", "tone.yaml", "lightness.yaml", "--limit", "3"]) == 0
    assert "0 of 3 samples have the same label" in capsys.readouterr().out
    assert list(tmp_path.glob("*.png")) == []
    assert main(["compare", "tone.yaml", "tone.yaml", "--limit", "3"]) == 0
    assert "on 3 of 3 whole images, on 100 % of the cells" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("*.png")] == ["tone-compare.png"]


def test_the_command(maps: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "maps.yaml"
    file.write_text(yaml.safe_dump(maps))
    out = tmp_path / "two.png"
    assert main(["compare", str(file), str(file), "--set-b", LARGER, "--limit", "2", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "differ       input_size: 64 -> 96" in said
    assert "agreement    on " in said
    assert "cost         B takes " in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps.yaml", "two.png"]
    assert main(["compare", str(file), str(file), "--where", "cls>5000"]) == 2
    assert main(["compare", str(file), str(tmp_path / "none.yaml")]) == 2
    write_tar(tmp_path / "bad.tar", {"x.jpg": b"nonsense"})
    assert main(["compare", str(file), str(file), "--set", f"source.path={tmp_path}/bad.tar"]) == 4


@pytest.mark.usefixtures("other_kinds")
def test_samples_that_only_one_side_labels(recipe: Make, tmp_path: Path, photos: list[tuple[bytes, int]]) -> None:
    """The limit of one labeler on the size of images makes its dead letters its own."""
    write_tar(
        tmp_path / "in.tar", {"big.jpg": photos[0][0], "small.png": two_colours.png(np.zeros((8, 8, 3), np.uint8))}
    )
    picky = [{"label_map": {"model": "efficientnet-lite0", "input_size": 64, "max_pixels": 100}}]
    all_sizes, small = (recipe(source={"path": f"{tmp_path}/in.tar"}, **steps) for steps in ({}, {"steps": picky}))
    found = compare(all_sizes, small, out=tmp_path / "a.png").to_json()
    assert (found["a"]["labelled"], found["b"]["labelled"], found["agreement"]["both_labelled"]) == (2, 1, 1)
    assert list(found["b"]["dead"]) == ["big"]
    assert [sample["b"] == "dead" for sample in found["samples"]] == [True, False]
    write_tar(tmp_path / "in.tar", {"big.jpg": photos[0][0]})
    with pytest.raises(TooManyDeadLetters, match="all 1 samples are dead letters"):
        compare(all_sizes, small)


@pytest.mark.usefixtures("other_kinds")
def test_without_a_class_in_common_nothing_is_said_to_agree(recipe: Make, tmp_path: Path) -> None:
    found = compare(recipe(), recipe(steps=["tone"]), limit=2, out=tmp_path / "a.png").to_json()
    assert found["differences"] == ["operator: label_map -> tone"]
    assert found["agreement"] == {"both_labelled": 2, "same_text": 0, "same_best": None, "cells": None}
    assert any("0 names are in both" in note for note in found["notes"])


@pytest.fixture
def pair() -> Pair:
    """Three classes; A says left 0 and right 1, B says 1 everywhere but for a cell that is nothing."""
    first = Classified(np.array([0.6, 0.4, 0.0]), np.array([[0, 1], [0, 1]]), np.full((2, 2), 0.9))
    second = Classified(np.array([0.1, 0.7, 0.2]), np.array([[1, 1], [NOTHING, 1]]), np.full((2, 2), 0.8))
    return Pair(np.full((40, 60, 3), 90, np.uint8), "a sample", "zero", first, second, CellAgreement(1 / 3, 3 / 4))


def test_classes_are_listed_by_both_and_coloured_once(pair: Pair) -> None:
    assert listed_classes(pair) == [1, 0, 2]
    maps = [coloured(side, dict(zip([1, 0, 2], COLOURS, strict=False))) for side in (pair.first, pair.second)]
    orange = [int(COLOURS[0][at : at + 2], 16) / 255 for at in (1, 3, 5)]
    assert maps[0][0, 1, :3] == pytest.approx(orange)
    assert maps[1][0, 0, :3] == pytest.approx(orange)
    assert maps[0][0, 1, 3] > maps[1][0, 1, 3] > 0
    assert maps[1][1, 0].tolist() == [0, 0, 0, 0]


def test_the_best_of_both_sides_are_always_listed() -> None:
    masses = np.linspace(0.5, 0.1, 9)
    other = masses[::-1].copy()
    other[8] = 0.9
    cells, strength = np.zeros((1, 1), np.int64), np.ones((1, 1))
    pair = Pair(np.zeros((4, 4, 3), np.uint8), "", None, Classified(masses, cells, strength),
                Classified(other, cells, strength), None)  # fmt: skip
    listed = listed_classes(pair)
    assert len(listed) == len(COLOURS)
    assert {0, 8} <= set(listed)


def test_equal_pairs_give_equal_pictures_and_odd_names_are_drawn(pair: Pair, tmp_path: Path) -> None:
    names = ["$\\frac", "long " * 30, "<b>"]
    odd = dataclasses.replace(pair, old_label=None, title="$x_1$" * 30, cells=None)
    pictures = [tmp_path / f"{number}.png" for number in range(2)]
    for picture in pictures:
        render([pair, odd], names, ("a $", "b" * 100), "A and B", picture)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    nothing = Classified(np.zeros(3), np.full((2, 2), NOTHING), np.zeros((2, 2)))
    assert listed_classes(dataclasses.replace(pair, second=nothing))[0] == 0
    empty = dataclasses.replace(pair, first=nothing, second=nothing)
    render([empty], names, ("a", "b"), "both say nothing", tmp_path / "empty.png")
    with pytest.raises(UsageError, match="at least one sample"):
        render([], names, ("a", "b"), "", tmp_path / "none.png")
