"""Captions from recipe to release: styles, old captions, dead letters, what is fused, compared, shown and verified."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from releases_of_photos import open_release, write_tar

import relabel
from pipelines import run
from pipelines.loading import load
from pipelines.plan import make_job
from pipelines.trying import try_recipe
from relabel.errors import UsageError
from relabel.labelers.engine_labeler import seed_of
from relabel.labels.caption import Caption, count_flags
from relabel.reasons import Reason
from relabel.releases.verify import verify
from relabel.storage.opening import open_store

COLOURS = {"red": (200, 30, 30), "blue": (30, 60, 200), "green": (30, 160, 60), "grey": (128, 128, 128)}
OLD = {
    "000": "IMG_2034.jpg",
    "001": "Anna Weber at Lake Garda",
    "002": "plant refusal until 0.5",
    "003": "plant markup",
    "004": "plant over_budget",
    "005": "fail",
    "006": "",
    "007": "a grey square of 60 by 40 px",
}
ENGINE = {"kind": "endpoint", "url": "http://127.0.0.1:1/v1", "model": "m"}


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 60, 3), colour, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of eight images of one colour each, with an old caption as text, and as a member of their JSON."""
    members: dict[str, bytes] = {}
    for row, (key, old) in enumerate(OLD.items()):
        members[f"{key}.png"] = png(list(COLOURS.values())[row % 4])
        if old:
            members[f"{key}.txt"] = old.encode()
        members[f"{key}.json"] = json.dumps({"alt": old or None, "width": 60}).encode()
    return write_tar(tmp_path_factory.mktemp("images") / "a.tar", members)


def recipe(images: Path, store: Path | str, fields: str = "txt", **parameters: Any) -> dict[str, Any]:
    styles = {"short": {"prompt": 'Say it. It was "{{ old }}".'}, "long": {"prompt": "Say more of it."}}
    step = {"old_caption": True, "styles": styles, **parameters}
    return {
        "source": {"path": str(images), "fields": {"old_caption": fields}},
        "steps": [{"scripted_caption": step, "as": "caption"}],
        "store": str(store),
        "resources": {"actors": 1, "part_rows": 3},
        "plugins": ["relabel.testing.captioner"],
        "dead_letters": {"max_fraction": 0.5},
    }


@pytest.fixture(scope="module")
def store(images: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    """Of a run that captions, then fuses."""
    told = recipe(images, tmp_path_factory.mktemp("store") / "captions")
    told["steps"].append({"scripted_fuse": {"guards": {"markup": "flag"}}, "as": "fused"})
    run(told)
    return str(told["store"])


def test_every_style_lies_beside_the_old_caption(store: str) -> None:
    release = open_release(store)
    assert release.labels["caption"].styles == ("short", "long")
    caption = release.get("a.tar", "001")["caption"]
    assert isinstance(caption, Caption)
    assert caption.old == OLD["001"]
    assert caption["short"].text == caption["long"].text == "a blue square of 60 by 40 pixels"
    assert caption["short"].raw == " a blue square of 60 by 40 pixels\n"
    assert release.get("a.tar", "006")["caption"].old == ""


def test_what_no_attempt_could_say_is_a_dead_letter_with_its_flags(store: str) -> None:
    rows = open_release(store).table("a.tar").to_pylist()
    assert {row["key"]: row["reason"] for row in rows if row["status"] == "dead"} == {
        "003": Reason.UNUSABLE_TEXT, "005": Reason.ENGINE_ERROR
    }  # fmt: skip
    letters = {letter["key"]: letter["detail"] for letter in open_release(store).dead_letters()}
    assert letters["003"].startswith("style 'short': no answer passed the guards. attempt 1: markup (holds JSON")
    retried = open_release(store).get("a.tar", "002")["caption"]["short"]
    assert (retried.attempts, retried.flags) == (2, ())


def test_flags_are_columns_and_are_counted(store: str) -> None:
    release = open_release(store)
    counts = count_flags(release.labels["caption"], release.table("a.tar"))
    assert counts["short"] == {"over_budget": 1, "copies_old": 1, "": 6, "retried": 1}
    assert counts["long"] == {"copies_old": 1, "": 6, "retried": 0}


def test_old_and_new_are_fused_by_key(store: str) -> None:
    release = open_release(store)
    fused = release.get("a.tar", "001")["fused"]
    assert fused.old == OLD["001"]
    assert fused["fused"].text == "a blue square of 60 by 40 pixels with Anna Weber at Lake Garda"
    assert fused["fused"].names_lost == ()
    assert release.get("a.tar", "000")["fused"]["fused"].flags == ("markup",), "a file name"
    assert release.version.labels["fused"].identity["parameters"]["style"] == "short"


def test_a_release_of_captions_verifies_to_the_last_value(store: str) -> None:
    assert verify(open_store(store), level="full").problems == []


def test_captions_do_not_depend_on_parts_and_old_ones_may_lie_in_json(
    images: Path, store: str, tmp_path: Path, ray_cluster: None
) -> None:
    again = recipe(images, tmp_path / "again", fields="cap;json.alt")
    again["resources"] = {"actors": 1, "part_rows": 8}
    again["steps"][0]["scripted_caption"]["engine"] = {"at_once": 1}
    run(again)
    table = open_release(again["store"]).table("a.tar").drop_columns(["sample_digest"])
    ours = open_release(store).table("a.tar")
    assert table.to_pylist() == ours.select(table.column_names).to_pylist()


def test_a_trial_gives_what_a_run_gives(images: Path, store: str, tmp_path: Path) -> None:
    told = recipe(images, tmp_path / "none")
    told["steps"].append({"scripted_fuse": {"guards": {"markup": "flag"}}, "as": "fused"})
    tried = try_recipe(told, out=tmp_path / "try.png")
    ours = open_release(store).table("a.tar").to_pylist()
    assert [{name: row[name] for name in ours[0]} for row in tried.trial.rows] == ours
    assert tried.samples()[1]["old_label"] == OLD["001"]
    assert tried.samples()[4]["labels"]["caption"].startswith("short: A square lies on a table")
    assert "[over_budget]; long: a red square" in tried.samples()[4]["labels"]["caption"]
    assert not (tmp_path / "none").exists()


def test_releases_are_compared_by_their_texts(images: Path, store: str, tmp_path: Path, ray_cluster: None) -> None:
    store = shutil.copytree(store, str(tmp_path / "copy"))
    styles = {"short": {"prompt": 'Say it. It was "{{ old }}".', "temperature": 0.8}}
    told = recipe(images, store, seed=5, styles=styles)
    run(told, ["gate=off"])
    found = relabel.open(store).diff(1, 2)
    assert found.how["caption"].kind == "texts"
    assert "styles only in A: long" in found.how["caption"].notes
    changes = found.labels["caption"]
    texts = [
        [release.get("a.tar", key)["caption"]["short"].text for key in ("000", "001", "002", "004", "006", "007")]
        for release in (relabel.open(store).release(1), relabel.open(store).release(2))
    ]
    differing = [(one, other) for one, other in zip(*texts, strict=True) if one != other]
    assert 0 < len(differing) < 6
    assert (changes.compared, changes.changed) == (6, len(differing))
    assert [(each["before"], each["after"]) for each in changes.examples] == differing


def test_seeds_follow_key_style_and_attempt() -> None:
    seeds = {
        seed_of(0, key, style, attempt) for key in ("a", "b") for style in ("short", "long") for attempt in (1, 2, 3)
    }
    assert len(seeds) == 12


def test_a_field_that_nobody_placed_is_refused(images: Path, tmp_path: Path) -> None:
    told = recipe(images, tmp_path / "none", fields="txt")
    del told["source"]["fields"]
    with pytest.raises(UsageError, match="reads 'old_caption' where a sample has it: say where it lies"):
        make_job(load(told))
    told = recipe(images, tmp_path / "none", fields="txt")
    told["steps"] = [{"scripted_fuse": {"caption": "caption"}}]
    with pytest.raises(UsageError, match="reads the label 'caption', which neither a step before it writes"):
        make_job(load(told))
    told["steps"] = [*recipe(images, tmp_path)["steps"], {"scripted_fuse": {"style": "medium"}}]
    with pytest.raises(UsageError, match="reads the style 'medium' of the label 'caption', which has: short, long"):
        make_job(load(told))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"styles": {"short": {"promt": "x"}}}, "unknown field 'styles.short.promt'; did you mean 'prompt'?"),
        ({"styles": {"short": {"prompt": "{{ odl }}"}}, "old_caption": True}, "did you mean 'old'?"),
        (
            {"styles": {"short": {"prompt": "{% for x in y %}{% endfor %}"}}},
            "'styles.short.prompt': .*line 1.*Jinja2's For",
        ),
        ({"styles": {"poem": {}}}, "the style 'poem' needs a `prompt`"),
        ({"guards": {"refusals": "off"}}, "unknown field 'guards.refusals'; did you mean 'refusal'?"),
        ({"guards": {"refusal": "drop"}}, "'guards.refusal': Input should be 'reject', 'flag' or 'off', got 'drop'"),
        ({"lader": []}, "unknown field 'lader'; did you mean 'ladder'?"),
        ({"language": "English"}, "'language': expected the ISO 639 code .* did you mean en"),
    ],
)
def test_a_recipe_says_what_is_wrong_with_it(parameters: dict[str, Any], message: str) -> None:
    step = {"caption": {"engine": ENGINE, **parameters}}
    with pytest.raises(UsageError, match=message):
        load({"source": "a.tar", "steps": [step], "store": "labels"})
