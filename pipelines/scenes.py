"""Scenes: cut-outs pasted on photographs, with captions by people and the poor alt texts that the web would have.

A scene is a function of (seed, side, index) and of what it is made of. The two sides share cut-outs and photographs;
new on the held-out side are the pairs (two names belong together to one side, by their digest), and every crop of a
photograph, place and size.
"""

import dataclasses
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from relabel.digests import canonical_json, digest
from relabel.errors import UsageError

from .demo import PHOTOS, write_if_changed
from .stamps import Stamp
from .tars import tar_bytes

Side = Literal["tuning", "held-out"]
Picture = UInt8[np.ndarray, "_ _ 3"]

SIZE = 224
"""Of a scene, in pixels."""
LONGER_SIDE = {1: (140, 180), 2: (112, 140)}
"""Of each of so many cut-outs, in pixels: from, below."""
JITTER = 8
"""How far a cut-out's middle may lie from where the words say, in pixels."""
LAYOUTS: Mapping[int, Sequence[Sequence[str]]] = {
    1: (("on the left",), ("in the middle",), ("on the right",)),
    2: (("on the left", "on the right"), ("at the top", "at the bottom")),
}
"""By the number of cut-outs, in reading order."""
MIDDLES: Mapping[str, tuple[float | None, float | None]] = {
    "on the left": (0.25, None), "in the middle": (0.5, 0.5), "on the right": (0.75, None),
    "at the top": (None, 0.25), "at the bottom": (None, 0.75),
}  # fmt: skip
"""Of a cut-out as fractions of the width and the height; None: anywhere."""
HELD_OUT_SHARE = 5
"""One in so many pairs is held out."""
ALONE_SHARE = 3
"""One in so many scenes shows one thing."""
BLUR = 3
"""Of the background, in pixels: as through a lens that is set on what lies before it."""
QUALITY = 90
LANGUAGES = ("de", "es", "fr", "it", "nl", "pl", "pt", "sv")


@dataclasses.dataclass(frozen=True)
class Placed:
    """One cut-out in a scene."""

    stamp: Stamp
    place: str
    """One of MIDDLES."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a scene shows and what is written about it."""

    side: Side
    index: int
    photo: str
    things: Sequence[Placed]
    """In reading order."""
    alt: str
    """What a data set from the web might say."""
    alt_kind: str
    """file name | another thing | another language | words of a page | empty"""

    @property
    def key(self) -> str:
        return f"{self.side}-{self.index:05d}"

    @property
    def short(self) -> str:
        return " and ".join(placed.stamp.caption for placed in self.things)

    @property
    def long(self) -> str:
        return " and ".join(f"{placed.place} {placed.stamp.caption}" for placed in self.things)

    def facts(self) -> dict[str, object]:
        return {"things": [placed.stamp.name for placed in self.things], "photo": self.photo, "alt_kind": self.alt_kind}


class Draw:
    """Numbers that depend on words and on how many were drawn before, on nothing else."""

    def __init__(self, *words: str | int) -> None:
        self._random = np.random.Generator(np.random.Philox(int(digest(list(words))[:32], 16)))

    def below(self, limit: int) -> int:
        return int(self._random.integers(limit))

    def between(self, first: int, end: int) -> int:
        return first + self.below(end - first)

    def order(self, count: int) -> list[int]:
        return [int(index) for index in self._random.permutation(count)]


class SceneMaker:
    """Scenes of these cut-outs over these photographs, given by name.

    Raises UsageError where the cut-outs have so few names that a side has no pair of them.
    """

    def __init__(self, stamps: Sequence[Stamp], photos: Mapping[str, Picture], seed: int = 0) -> None:
        names = sorted({stamp.caption for stamp in stamps})
        if len({side_of_pair(*pair) for pair in itertools.combinations(names, 2)}) < 2 or len(names) < 3:
            raise UsageError(f"scenes need cut-outs of more names: of {len(names)}, a side has no pair.")
        self.stamps, self.seed = stamps, seed
        self.cut_outs = {stamp.name: Image.fromarray(stamp.picture()) for stamp in stamps}
        self.photos = {name: photos[name] for name in sorted(photos)}

    def scene(self, side: Side, index: int) -> Scene:
        """Number `index` of a side."""
        draw = Draw("scene", self.seed, side, index)
        stamps = self.choose(draw, side)
        layouts = LAYOUTS[len(stamps)]
        things = [Placed(*pair) for pair in zip(stamps, layouts[draw.below(len(layouts))], strict=True)]
        photo = list(self.photos)[draw.below(len(self.photos))]
        alt_kind, alt = self.poor_text(Draw("alt", self.seed, side, index), things)
        return Scene(side, index, photo, things, alt, alt_kind)

    def choose(self, draw: Draw, side: Side) -> list[Stamp]:
        """One or two cut-outs with two names, whose pair belongs to the side."""
        if draw.below(ALONE_SHARE) == 0:
            return [self.drawn(draw)]
        while True:
            first, second = self.drawn(draw), self.drawn(draw)
            if first.caption != second.caption and side_of_pair(first.caption, second.caption) == side:
                return [first, second]

    def drawn(self, draw: Draw) -> Stamp:
        return self.stamps[draw.below(len(self.stamps))]

    def picture(self, scene: Scene) -> Picture:
        """The scene as it looks."""
        draw = Draw("picture", self.seed, scene.side, scene.index)
        canvas = background(draw, self.photos[scene.photo])
        for placed in scene.things:
            cut_out = self.cut_outs[placed.stamp.name]
            scale = draw.between(*LONGER_SIDE[len(scene.things)]) / max(cut_out.size)
            size = (max(1, round(cut_out.width * scale)), max(1, round(cut_out.height * scale)))
            scaled = cut_out.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
            left, top = (start(draw, at, side) for at, side in zip(MIDDLES[placed.place], size, strict=True))
            canvas.alpha_composite(scaled, (left, top))
        return np.asarray(canvas.convert("RGB"))

    def poor_text(self, draw: Draw, things: Sequence[Placed]) -> tuple[str, str]:
        """Its kind and the text."""
        number = draw.below(10_000)
        kind = draw.below(10)
        if kind < 4:
            names = ("IMG_{:04d}.jpg", "DSC{:05d}.JPG", "photo-{:d}.png", "{:04d}_large.webp")
            return "file name", names[draw.below(len(names))].format(number)
        if kind < 6:
            shown = {placed.stamp.caption for placed in things}
            others = [stamp.caption for stamp in self.stamps if stamp.caption not in shown]
            return "another thing", others[number % len(others)]
        if kind < 8:
            language = LANGUAGES[draw.below(len(LANGUAGES))]
            texts = [placed.stamp.translations.get(language, "") for placed in things]
            if all(texts):
                return "another language", ", ".join(texts)
        words = ("image", "click to enlarge", "picture {:d} of 9999", "untitled")
        return ("empty", "") if kind == 9 else ("words of a page", words[number % len(words)].format(number))


def start(draw: Draw, middle: float | None, side: int) -> int:
    """Where a cut-out of so many pixels begins, wholly inside the scene."""
    if middle is None:
        return draw.below(SIZE - side + 1)
    begin = round(SIZE * middle) + draw.between(-JITTER, JITTER + 1) - side // 2
    return min(max(begin, 0), SIZE - side)


def background(draw: Draw, photo: Picture) -> Image.Image:
    """A square of the photo, at least 0.6 of its shorter side, mirrored or not."""
    height, width, _ = photo.shape
    side = draw.between(int(0.6 * min(height, width)), min(height, width) + 1)
    left, top = draw.below(width - side + 1), draw.below(height - side + 1)
    part = Image.fromarray(photo).resize(
        (SIZE, SIZE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side), reducing_gap=2.0
    )
    if draw.below(2):
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return part.filter(ImageFilter.GaussianBlur(BLUR)).convert("RGBA")


def side_of_pair(first: str, second: str) -> Side:
    """Whatever their order."""
    return "held-out" if int(digest(sorted((first, second)))[:8], 16) % HELD_OUT_SHARE == 0 else "tuning"


def demo_photos() -> dict[str, Picture]:
    """The demo's photographs, as they are shown."""
    return {photo.key: np.asarray(Image.open(io.BytesIO(photo.read())).convert("RGB")) for photo in PHOTOS}


def write_scenes(maker: SceneMaker, side: Side, count: int, folder: Path, shards: int = 4) -> Path:
    """Write scenes 0 .. `count` as tar shards; returns their folder, which holds no others of that side. Equal scenes
    give equal bytes.

    A tuning sample is KEY.jpg, KEY.short.txt, KEY.long.txt and KEY.json (cut-outs, photograph). A held-out one has its
    alt text in KEY.txt, and what people say in KEY.gold.short.txt and KEY.gold.long.txt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        scenes = (maker.scene(side, index) for index in range(number, count, shards))
        files = {f"{scene.key}.{name}": data for scene in scenes for name, data in members(maker, scene).items()}
        write_if_changed(folder / f"{side}-{number:03d}.tar", tar_bytes(files))
    for stale in set(folder.glob(f"{side}-*.tar")) - {folder / f"{side}-{number:03d}.tar" for number in range(shards)}:
        stale.unlink()
    return folder


def members(maker: SceneMaker, scene: Scene) -> dict[str, bytes]:
    """The files of one sample by extension."""
    tuning = scene.side == "tuning"
    gold = "" if tuning else "gold."
    return {
        "jpg": jpeg(maker.picture(scene)),
        "json": canonical_json(scene.facts()),
        f"{gold}short.txt": scene.short.encode(),
        f"{gold}long.txt": scene.long.encode(),
        **({} if tuning else {"txt": scene.alt.encode()}),
    }


def jpeg(image: Picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
