"""Drawn stamps: a small collection in the layout of Tux Paint's, so that tests need no package of Debian's."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipelines.scenes import SceneMaker
from pipelines.stamps import read_stamps

COLOURS = {"red": "#d22", "blue": "#22d", "green": "#2a2"}
GERMAN = {"red": "roter", "blue": "blauer", "green": "grüner"}
SHAPES = ("ball", "box")
SIDE = 96


def write_stamps(folder: Path) -> Path:
    """Six things: a red ball, a blue box ...; and four files that are no stamps."""
    room = folder / "animals" / "toys"
    room.mkdir(parents=True)
    for colour, paint in COLOURS.items():
        for shape in SHAPES:
            image = Image.new("RGBA", (SIDE, SIDE))
            pen = ImageDraw.Draw(image)
            (pen.ellipse if shape == "ball" else pen.rectangle)((10, 10, SIDE - 10, SIDE - 10), fill=paint)
            image.save(room / f"{colour}-{shape}.png")
            words = [
                f"A {colour} {shape}.",
                f"de.utf8=Ein {GERMAN[colour]} {shape}.",
                f"en_GB.utf8=A {colour} {shape}.",
            ]
            (room / f"{colour}-{shape}.txt").write_text("\n".join(words), "utf-8")
    write_rejected(room)
    return folder


def write_rejected(room: Path) -> None:
    """Too small, opaque, without a text, with a sentence for a name."""
    for name, size, mode, words in (
        ("small", (20, 20), "RGBA", "A dot."),
        ("opaque", (SIDE, SIDE), "RGB", "A wall."),
        ("nameless", (SIDE, SIDE), "RGBA", None),
        ("wordy", (SIDE, SIDE), "RGBA", "Balls are round, and boxes are not!"),
    ):
        Image.new(mode, size, "red").save(room / f"{name}.png")
        if words is not None:
            (room / f"{name}.txt").write_text(words, "utf-8")


def small_maker(folder: Path, seed: int = 0) -> SceneMaker:
    """Scenes of drawn stamps over two plain photographs."""
    random = np.random.default_rng(0)
    photos = {name: random.integers(90, 166, (240, 320, 3), np.uint8) for name in ("noise", "more noise")}
    return SceneMaker(read_stamps(write_stamps(folder), most_words=3), photos, seed)
