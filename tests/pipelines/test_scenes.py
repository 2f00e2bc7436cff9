"""Scenes: a function of seed and index, true to their captions, on two sides that share no pair; stamps as they lie."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from drawn_stamps import small_maker, write_stamps

from pipelines import stamps
from pipelines.scenes import LAYOUTS, SIZE, Scene, SceneMaker, Side, demo_photos, side_of_pair, write_scenes
from pipelines.stamps import INSTALLED, PLACE, find_stamps, read_stamps
from relabel.errors import UsageError
from relabel.metrics.caption_match import word_f1, words_of

PAINT = {"red": (221, 34, 34), "blue": (34, 34, 221), "green": (34, 170, 34)}
HALVES = {"on the left": (1, -1), "on the right": (1, 1), "at the top": (0, -1), "at the bottom": (0, 1)}
"""Place -> axis of the image, and the side of its middle."""


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> SceneMaker:
    return small_maker(tmp_path_factory.mktemp("stamps"))


def middle(maker: SceneMaker, scene: Scene, colour: str) -> np.ndarray:
    """Of the pixels of a colour, as (y, x) from the scene's middle."""
    near = (np.abs(maker.picture(scene).astype(int) - PAINT[colour]).sum(axis=2) < 12).nonzero()
    assert len(near[0]) > 1000, f"{scene.key} shows nothing {colour}"
    return np.array([axis.mean() for axis in near]) - SIZE / 2


def members(file: Path) -> list[str]:
    with tarfile.open(file) as tar:
        return tar.getnames()


def test_stamps_are_read_with_their_names_and_translations(tmp_path: Path) -> None:
    stamps = read_stamps(write_stamps(tmp_path), most_words=3)
    assert [stamp.caption for stamp in stamps] == [
        "a blue ball", "a blue box", "a green ball", "a green box", "a red ball", "a red box"
    ]  # fmt: skip
    assert stamps[0].name == "animals/toys/blue-ball"
    assert stamps[0].translations == {"de": "Ein blauer ball"}, "what says the same as the English is no translation"
    assert stamps[1].picture().shape == (77, 77, 4), "cut to what can be seen"


def test_a_folder_without_stamps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no stamps: expected NAME\.png and NAME\.txt below animals"):
        read_stamps(tmp_path)


def test_stamps_are_found_where_they_were_unpacked(tmp_path: Path) -> None:
    (tmp_path / PLACE).mkdir(parents=True)
    assert find_stamps(tmp_path, installed=tmp_path / "nowhere") == tmp_path / PLACE


def test_without_stamps_and_without_apt_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no apt-get and no dpkg-deb.*apt-get install tuxpaint-stamps-default"):
        find_stamps(tmp_path / "cache", installed=tmp_path / "nowhere")
    assert not (tmp_path / "cache").exists()


def test_apt_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("apt-get", "dpkg-deb"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'E: no network here' >&2\nexit 100\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(UsageError, match="failed: E: no network here"):
        find_stamps(tmp_path / "cache", installed=tmp_path / "nowhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["apt-get", "dpkg-deb"], "nothing is left behind"


def test_a_scene_is_a_function_of_seed_side_and_index(maker: SceneMaker, tmp_path: Path) -> None:
    again, other = small_maker(tmp_path / "a"), small_maker(tmp_path / "b", seed=1)
    backwards = [again.scene("tuning", index) for index in reversed(range(5))]
    for index, same in enumerate(reversed(backwards)):
        scene = maker.scene("tuning", index)
        assert (scene.long, scene.alt) == (same.long, same.alt)
        picture = maker.picture(scene)
        assert np.array_equal(picture, again.picture(same))
        assert not np.array_equal(picture, other.picture(other.scene("tuning", index)))
        assert not np.array_equal(picture, maker.picture(maker.scene("held-out", index)))


def test_captions_say_what_is_where(maker: SceneMaker) -> None:
    checked = 0
    for index in range(40):
        scene = maker.scene("tuning", index)
        assert [placed.place for placed in scene.things] in [list(layout) for layout in LAYOUTS[len(scene.things)]]
        assert scene.long == " and ".join(f"{placed.place} {placed.stamp.caption}" for placed in scene.things)
        assert scene.short == " and ".join(placed.stamp.caption for placed in scene.things)
        colours = [placed.stamp.caption.split()[1] for placed in scene.things]
        for colour, placed in zip(colours, scene.things, strict=True):
            if placed.place in HALVES and colours.count(colour) == 1:
                axis, side = HALVES[placed.place]
                assert middle(maker, scene, colour)[axis] * side > 20, scene.long
                checked += 1
    assert checked > 40


def test_the_two_sides_share_things_but_no_pair(maker: SceneMaker) -> None:
    pairs: dict[str, set[frozenset[str]]] = {}
    things: dict[str, set[str]] = {}
    for side in ("tuning", "held-out"):
        shown = [[each.stamp.caption for each in maker.scene(side, index).things] for index in range(200)]
        pairs[side] = {frozenset(names) for names in shown if len(names) == 2}
        things[side] = {name for names in shown for name in names}
    assert not pairs["tuning"] & pairs["held-out"]
    assert len(pairs["held-out"]) > 1
    assert len(pairs["tuning"]) + len(pairs["held-out"]) == 15
    assert things["tuning"] == things["held-out"] == {stamp.caption for stamp in maker.stamps}
    assert side_of_pair("a red ball", "a blue box") == side_of_pair("a blue box", "a red ball")


def test_cut_outs_of_too_few_names_are_refused(maker: SceneMaker) -> None:
    with pytest.raises(UsageError, match="more names: of 2"):
        SceneMaker([stamp for stamp in maker.stamps if "red" in stamp.caption], maker.photos)


def test_alt_texts_are_poor_in_every_way(maker: SceneMaker) -> None:
    scenes = [maker.scene("held-out", index) for index in range(150)]
    kinds = {scene.alt_kind for scene in scenes}
    assert kinds == {"file name", "another thing", "another language", "words of a page", "empty"}
    assert np.mean([word_f1(words_of(scene.alt), words_of(scene.short)) for scene in scenes]) < 0.3
    for scene in scenes:
        shown = {placed.stamp.caption for placed in scene.things}
        if scene.alt_kind == "another thing":
            assert scene.alt in {stamp.caption for stamp in maker.stamps} - shown
        if scene.alt_kind == "another language":
            assert scene.alt.startswith("Ein ")
        assert (scene.alt == "") == (scene.alt_kind == "empty")


def test_shards_hold_the_members_of_their_side(maker: SceneMaker, tmp_path: Path) -> None:
    sides: dict[Side, set[str]] = {
        "tuning": {"jpg", "json", "long.txt", "short.txt"},
        "held-out": {"gold.long.txt", "gold.short.txt", "jpg", "json", "txt"},
    }
    for side, wanted in sides.items():
        files = sorted(write_scenes(maker, side, 5, tmp_path / side, shards=2).iterdir())
        names = [name for file in files for name in members(file)]
        assert len({name.partition(".")[0] for name in names}) == 5
        assert {name.partition(".")[2] for name in names} == wanted
        stamped = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
        write_scenes(maker, side, 5, tmp_path / side, shards=2)
        assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in files] == stamped
    assert [file.name for file in write_scenes(maker, "tuning", 5, tmp_path / "tuning", shards=1).iterdir()] == [
        "tuning-000.tar"
    ], "no scene lies there twice"


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_package_is_unpacked_below_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    write_stamps(package / PLACE)
    (package / "DEBIAN").mkdir()
    (package / "DEBIAN" / "control").write_text(
        "Package: stamps\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: stamps\n"
    )

    def build(work: Path) -> None:
        """The archive that `apt-get download` would leave."""
        subprocess.run(["dpkg-deb", "--build", str(package), str(work.absolute() / "stamps_1_all.deb")], check=True)

    monkeypatch.setattr(stamps, "download", build)
    monkeypatch.chdir(tmp_path)
    found = find_stamps(Path("demo/stamps"), installed=tmp_path / "none")
    assert found == Path("demo/stamps") / PLACE
    assert len(read_stamps(found, most_words=3)) == 6
    assert [path.name for path in Path("demo").iterdir()] == ["stamps"], "nothing else is left"


@pytest.mark.skipif(not INSTALLED.is_dir(), reason="Debian's package tuxpaint-stamps-default is not installed")
def test_tux_paints_own_stamps() -> None:
    maker = SceneMaker(read_stamps(INSTALLED), demo_photos())
    assert len({stamp.caption for stamp in maker.stamps}) >= 80
    scenes = [maker.scene("held-out", index) for index in range(40)]
    assert {scene.alt_kind for scene in scenes} >= {"file name", "another thing", "another language"}
    assert np.mean([word_f1(words_of(scene.alt), words_of(scene.short)) for scene in scenes]) < 0.2
