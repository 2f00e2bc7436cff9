"""Many objects: scenes of several cut-outs over photographs, labelled as ImageNet is, with one thing that they show.

A scene is a function of (seed, split, index). Splits share neither compositions nor photographs; `new` also has
cut-outs that no other split shows. Cut-outs are Tux Paint's (see `pipelines.stamps`), photographs those of `photos`.
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from photos import more_files
from PIL import Image, ImageFilter

from pipelines.demo import PHOTOS, write_if_changed
from pipelines.scenes import Draw
from pipelines.stamps import SOLID
from pipelines.tars import tar_bytes
from relabel.digests import canonical_json, digest
from relabel.errors import UsageError

Split = Literal["train", "valid", "test", "new"]
SPLITS: Sequence[Split] = ("train", "valid", "test", "new")
Picture = UInt8[np.ndarray, "_ _ 3"]

SIZE = 96
"""Of a scene, in pixels."""
NUM_OBJECTS = (2, 4)
"""Of a scene, each of another class: least, most."""
LONGER_SIDE = (26, 52)
"""Of a cut-out in a scene, in pixels: from, below."""
ALONE = (26, 110)
"""Of the one cut-out in a picture for the teacher; larger ones are cut off, as by a crop of a scene."""
OVERLAP = 0.15
"""Most of the smaller of two boxes that the larger may cover."""
TURN = 25
"""Degrees, either way."""
BLUR = 1.5
"""Of the background, in pixels."""
QUALITY = 90
NEW_SHARE = 4
"""One in so many cut-outs of a class is new in the split of that name."""
CLASSES: Mapping[str, Sequence[str]] = {
    "ball": ("sports/**/*ball", "sports/soccer"),
    "bird": ("animals/birds/*",),
    "building": ("town/houses/cartoon/*",),
    "clothes": ("clothes/t_[!b]*",),
    "flag": ("town/flags/*",),
    "flower": ("plants/flowers/*",),
    "fruit": ("food/fruit/**/*",),
    "grazing animal": ("animals/mammals/bovines/*", "animals/mammals/deer/*", "animals/mammals/equines/*",
                       "animals/mammals/camel/*"),
    "hat": ("clothes/hats/*",),
    "instrument": ("hobbies/music/**/*",),
    "insect or snail": ("animals/insects/**/*",),
    "kitchen ware": ("household/dishes/**/*",),
    "monument": ("town/monuments/**/*",),
    "predator": ("animals/mammals/cats/*", "animals/mammals/bears/*", "animals/mammals/dogs/*"),
    "road sign": ("town/roadsigns/*",),
    "rodent": ("animals/mammals/rodents/*",),
    "sea animal": ("animals/fish/*", "animals/mammals/aquatic/*"),
    "tool": ("household/tools/*",),
    "train": ("vehicles/locomotive/cartoon/box*", "vehicles/locomotive/cartoon/ca*",
              "vehicles/locomotive/cartoon/t[aeo]*"),
    "vegetable": ("food/vegetables/*",),
}  # fmt: skip
"""Patterns of files below the collection's folder, without the suffix; mirrored twins are left out."""
NAMES = tuple(CLASSES)
UNFIT = {
    "imagenet_00_243", "imagenet_02_438", "imagenet_03_990", "imagenet_04_949", "imagenet_08_915", "imagenet_10_541",
    "imagenet_14_129", "imagenet_15_99", "imagenet_16_251", "imagenet_17_22", "imagenet_18_317", "imagenet_19_305",
    "chelsea", "coffee", "china", "flower",
}  # fmt: skip
"""Photographs that show something of a class."""


class Thing(NamedTuple):
    """One cut-out in a scene."""

    kind: int
    """Index into NAMES."""
    stamp: str
    longer: int
    """Pixels."""
    turn: int
    mirror: bool


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a scene shows."""

    split: Split
    index: int
    photo: int
    things: Sequence[Thing]
    label: int
    """Of one of the things, drawn in proportion to the area of their boxes: what an annotator would name."""

    @property
    def key(self) -> str:
        return f"{self.split}-{self.index:05d}"

    @property
    def there(self) -> Float[np.ndarray, " classes"]:
        """1 for every class that the scene shows."""
        found = np.zeros(len(NAMES), np.float32)
        found[[thing.kind for thing in self.things]] = 1
        return found


class Box(NamedTuple):
    """Pixels; left and top may be negative."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        return max(0, self.right - self.left) * max(0, self.bottom - self.top)

    def common(self, other: "Box") -> int:
        """The area of both."""
        return Box(
            max(self.left, other.left), max(self.top, other.top), min(self.right, other.right),
            min(self.bottom, other.bottom),
        ).area  # fmt: skip

    def covers(self, other: "Box") -> float:
        """Share of the smaller of the two that they have in common."""
        return self.common(other) / min(self.area, other.area)


class Alone(NamedTuple):
    """A picture of one thing."""

    picture: Picture
    kind: int
    """Index into NAMES."""
    box: Box
    """Of what is seen of it."""


class World:
    """The cut-outs and photographs, shared out over the splits."""

    def __init__(self, stamps: Path, seed: int = 0) -> None:
        self.seed = seed
        self.kinds = [stamps_of(stamps, name) for name in NAMES]
        self.cut_outs = {name: cut_out(stamps / f"{name}.png") for kind in self.kinds for name in kind}
        self.photos = [small(Image.open(io.BytesIO(data)).convert("RGB")) for data in backgrounds()]

    def stamps(self, kind: int, split: Split) -> Sequence[str]:
        """Of a class, those that the split may show."""
        ordered = sorted(self.kinds[kind], key=lambda name: digest(["new cut-out", name]))
        new = max(1, len(ordered) // NEW_SHARE)
        return ordered[:new] if split == "new" else ordered[new:]

    def photos_of(self, split: Split) -> Sequence[int]:
        """Of six photographs, four are for training, one for validation, one for both tests."""
        part = {"train": (0, 1, 2, 3), "valid": (4,), "test": (5,), "new": (5,)}[split]
        return [number for number in range(len(self.photos)) if number % 6 in part]

    def scene(self, split: Split, index: int) -> Scene:
        """Number `index` of a split."""
        draw = Draw("many objects", self.seed, split, index)
        kinds = draw.order(len(NAMES))[: draw.between(NUM_OBJECTS[0], NUM_OBJECTS[1] + 1)]
        things = [self.thing(draw, kind, split, LONGER_SIDE) for kind in kinds]
        photos = self.photos_of(split)
        areas = np.cumsum([float(np.prod(self.pasted(thing).size)) for thing in things])
        label = int(np.searchsorted(areas, draw.below(1_000_000) / 1_000_000 * areas[-1], side="right"))
        return Scene(split, index, photos[draw.below(len(photos))], things, things[label].kind)

    def alone(self, index: int) -> Alone:
        """A picture of one thing from what the training scenes are made of."""
        draw = Draw("alone", self.seed, index)
        thing = self.thing(draw, draw.below(len(NAMES)), "train", ALONE)
        pasted = self.pasted(thing)
        photos = self.photos_of("train")
        canvas = background(draw, self.photos[photos[draw.below(len(photos))]])
        left, top = (corner(draw, side) for side in pasted.size)
        canvas.paste(pasted, (left, top), pasted)
        right, bottom = min(left + pasted.width, SIZE), min(top + pasted.height, SIZE)
        return Alone(np.asarray(canvas), thing.kind, Box(max(left, 0), max(top, 0), right, bottom))

    def thing(self, draw: Draw, kind: int, split: Split, longer: tuple[int, int]) -> Thing:
        names = self.stamps(kind, split)
        return Thing(
            kind,
            names[draw.below(len(names))],
            draw.between(*longer),
            draw.between(-TURN, TURN + 1),
            draw.below(2) == 1,
        )

    def pasted(self, thing: Thing) -> Image.Image:
        """RGBA as it is pasted."""
        image = self.cut_outs[thing.stamp]
        if thing.mirror:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        scale = thing.longer / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        return small.rotate(thing.turn, Image.Resampling.BILINEAR, expand=True)

    def boxes(self, scene: Scene) -> list[Box]:
        """Of its things, in pixels."""
        return places(Draw("places", self.seed, scene.split, scene.index), [self.pasted(t).size for t in scene.things])

    def picture(self, scene: Scene) -> Picture:
        """The scene as it looks."""
        canvas = background(Draw("background", self.seed, scene.split, scene.index), self.photos[scene.photo])
        for thing, box in zip(scene.things, self.boxes(scene), strict=True):
            image = self.pasted(thing)
            canvas.paste(image, (box.left, box.top), image)
        return np.asarray(canvas)


def stamps_of(folder: Path, name: str) -> list[str]:
    """The cut-outs of one class, sorted; raises UsageError where there are fewer than four."""
    files = {file for pattern in CLASSES[name] for file in folder.glob(f"{pattern}.png")}
    found = sorted(file.relative_to(folder).with_suffix("").as_posix() for file in files if kept(file))
    if len(found) < NEW_SHARE:
        raise UsageError(f"{folder} was expected to hold at least {NEW_SHARE} cut-outs of class {name!r}, got {found}.")
    return found


def kept(file: Path) -> bool:
    with Image.open(file) as image:
        return image.has_transparency_data and not file.stem.endswith("_mirror")


def cut_out(file: Path) -> Image.Image:
    """RGBA, cut to what is not transparent, at most 128 pixels long."""
    image = Image.open(file).convert("RGBA")
    solid = image.getchannel("A").point(lambda opacity: 255 * (opacity >= SOLID))  # pyright: ignore[reportOperatorIssue]
    found = image.crop(solid.getbbox())
    found.thumbnail((128, 128), Image.Resampling.BILINEAR)
    return found


def backgrounds() -> list[bytes]:
    """Encoded photographs that show nothing of any class."""
    return [photo.read() for photo in PHOTOS if photo.key not in UNFIT] + [file.read_bytes() for file in more_files()]


def small(photo: Image.Image) -> Image.Image:
    """Its shorter side at most 256 pixels."""
    scale = min(1.0, 256 / min(photo.size))
    return photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BOX)


def background(draw: Draw, photo: Image.Image) -> Image.Image:
    """A square of the photo, at least half of its shorter side, mirrored or not."""
    shorter = min(photo.size)
    side = draw.between(shorter // 2, shorter + 1)
    left, top = draw.below(photo.width - side + 1), draw.below(photo.height - side + 1)
    part = photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR, (left, top, left + side, top + side), 2.0)
    if draw.below(2):
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return part.filter(ImageFilter.GaussianBlur(BLUR))


def corner(draw: Draw, side: int) -> int:
    """Where a thing of so many pixels begins, at least half of it seen."""
    if side > SIZE:
        return draw.between(-(side // 2), SIZE - side // 2)
    return draw.between(-(side // 4), SIZE - side + side // 4 + 1)


def places(draw: Draw, sizes: Sequence[tuple[int, int]]) -> list[Box]:
    """Inside the scene, hardly over each other: the first of 100 tries that overlaps little, or the least."""
    found: list[Box] = []
    for width, height in sizes:
        best: tuple[float, Box] | None = None
        for _ in range(100):
            left, top = draw.below(max(1, SIZE - width + 1)), draw.below(max(1, SIZE - height + 1))
            box = Box(left, top, left + width, top + height)
            overlap = max((box.covers(other) for other in found), default=0.0)
            if best is None or overlap < best[0]:
                best = (overlap, box)
            if overlap <= OVERLAP:
                break
        assert best is not None
        found.append(best[1])
    return found


def write_scenes(world: World, split: Split, count: int, folder: Path, shards: int = 4) -> str:
    """Scenes 0 .. `count` as WebDataset shards: KEY.jpg, KEY.cls (the one label) and KEY.json (the names of all classes
    that are there); returns the pattern that names the shards. Equal scenes give equal bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        scenes = [world.scene(split, index) for index in range(number, count, shards)]
        files = {name: data for scene in scenes for name, data in members(world, scene).items()}
        write_if_changed(folder / f"{split}-{number:03d}.tar", tar_bytes(files))
    return f"{folder}/{split}-*.tar"


def members(world: World, scene: Scene) -> dict[str, bytes]:
    """The files of one sample by name."""
    buffer = io.BytesIO()
    Image.fromarray(world.picture(scene)).save(buffer, "JPEG", quality=QUALITY)
    return {
        f"{scene.key}.jpg": buffer.getvalue(),
        f"{scene.key}.cls": str(scene.label).encode(),
        f"{scene.key}.json": canonical_json({"there": [NAMES[thing.kind] for thing in scene.things]}),
    }
