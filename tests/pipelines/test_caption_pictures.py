"""Pictures of captions: texts beside the photo, wrapped, flagged, whatever script they are in."""

import io
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8
from matplotlib.colors import to_rgb
from PIL import Image

from pipelines.caption_gallery import score
from pipelines.caption_pairs import CaptionPair
from pipelines.caption_pairs import render as render_pairs
from pipelines.caption_rows import ALERT, UNDRAWN, drawn, told, wrapped
from pipelines.comparing import leaves
from pipelines.drawing import PreviewSample
from pipelines.preview import drawable, render
from pipelines.readings import read
from relabel import scores, text
from relabel.errors import UsageError
from relabel.labels.caption import Caption, Text, caption_contract

LONG = "A harbour with eleven boats, " * 30


def said(text: str, flags: tuple[str, ...] = ()) -> Text:
    return Text(text, text, 12, "stop", -0.5, 2, flags, None)


def picture(path: Path) -> UInt8[np.ndarray, "y x 3"]:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


def sample(caption: Caption) -> PreviewSample:
    return PreviewSample(np.full((60, 90, 3), (20, 90, 160), np.uint8), caption, (), caption.old, "a-key")


def test_text_stands_beside_the_photo_and_flags_are_red(tmp_path: Path) -> None:
    caption = Caption({"short": said("a cat"), "long": said(LONG, ("over_budget",))}, "old words")
    render([sample(caption)] * 2, tmp_path / "flagged.png", "caption")
    clean = Caption({"short": said("a cat"), "long": said(LONG)}, "old words")
    render([sample(clean)] * 2, tmp_path / "clean.png", "caption")
    flagged, plain = picture(tmp_path / "flagged.png"), picture(tmp_path / "clean.png")
    red = np.abs(flagged - 255 * np.array(to_rgb(ALERT))).sum(axis=2) < 12
    assert red.any()
    assert not (np.abs(plain - 255 * np.array(to_rgb(ALERT))).sum(axis=2) < 12).any()
    inked = np.nonzero((plain < 120).all(axis=2))[1]
    assert inked.max() < 0.99 * plain.shape[1], "no line runs out of the picture"
    assert (plain[:, : plain.shape[1] // 5] == (20, 90, 160)).all(axis=2).any()


def test_what_the_font_cannot_draw_is_a_box_and_no_warning(tmp_path: Path) -> None:
    caption = Caption({"short": said("赤い自転車 \U0001f6b2 $x_1$ and é")}, "一辆红色的自行车" * 20)
    render([sample(caption)], tmp_path / "boxes.png", "caption")
    assert drawn("赤é$") == f"{UNDRAWN}é$"


def test_lines_are_wrapped_and_cut() -> None:
    lines = wrapped(LONG, 40, 3)
    assert len(lines) == 3
    assert max(map(len, lines)) <= 40
    assert lines[-1].endswith("…")
    assert len(wrapped("赤" * 60, 40, 9)[0]) <= 20, "twice as wide"
    assert wrapped("", 40, 3) == [""]
    assert told(said("a cat")) == "12 tokens · stop · log-prob -0.50 · 2 attempts"
    assert told(Text("a", "a", 1, "length", None, 1, (), ("Anna",))) == "1 tokens · length · 1 attempt · lost: Anna"


def test_many_styles_have_room(tmp_path: Path) -> None:
    caption = Caption({f"style{n}": said(LONG) for n in range(4)}, None)
    render([sample(caption)], tmp_path / "four.png", "caption")
    dark = (picture(tmp_path / "four.png") < 100).all(axis=2).sum(axis=1) > 0
    lines = np.flatnonzero(np.diff(dark.astype(np.int8)) == 1)
    assert len(lines) == 4, "one line of each"
    assert np.diff(lines).min() > 40, "none lies on another"


def test_two_captions_stand_side_by_side(tmp_path: Path) -> None:
    one, other = (Caption({"short": said(words)}, old) for words, old in (("a cat", None), ("a dog", "IMG_1")))
    pair = CaptionPair(np.zeros((30, 40, 3), np.uint8), "a-key", "old words", one, other)
    render_pairs([pair], ("warm", "cold"), "0 of 1 samples have the same captions.", tmp_path / "pair.png")
    assert picture(tmp_path / "pair.png").shape[1] == 2100
    with pytest.raises(UsageError, match="at least one sample"):
        render_pairs([], ("a", "b"), "", tmp_path / "none.png")


def test_only_captions_in_styles_are_drawn() -> None:
    contract = caption_contract("caption", ["short"], logprobs=False, reproducible=True, old=False)
    assert drawable({"told": text("told"), "light": scores("light", "mean")}) is None
    assert drawable({"told": text("told"), "caption": contract}) == "caption"


def test_a_reading_shows_the_beginning_and_compares_the_whole() -> None:
    contract = caption_contract("caption", ["short", "long"], logprobs=False, reproducible=True, old=False)
    one, other = (read(contract, (), Caption({"short": said("a cat"), "long": said(LONG + end)}, None)) for end in "ab")
    assert one.text == other.text
    assert one.text.startswith("short: a cat; long: A harbour")
    assert one.whole != other.whole
    assert read(text("told"), (), {"told_text": "a cat"}).text == "text a cat"


def test_the_head_of_a_column_names_what_differs() -> None:
    assert leaves({"a": 1, "styles": {"short": {"top_k": 3}}, "empty": {}}) == {
        "a": 1, "styles.short.top_k": 3, "empty": {}
    }  # fmt: skip


def test_a_style_is_given_the_score_of_no_other() -> None:
    labels = {"match": {"match_extra_long_f1": 0.1, "match_long_f1": 0.9}, "fit": {"fit_long": 0.3}, "caption": None}
    assert (score(labels, "long"), score(labels, "extra_long"), score(labels, "short")) == (0.9, 0.1, None)
