"""Stamps: Tux Paint's cut-outs of things, with what each is called in many languages (Debian, GPL-2).

They are used where Debian's package is installed; else it is fetched and unpacked into a folder, which needs apt but
neither root nor any change of the system. Beside NAME.png lies NAME.txt: the English sentence ("A crow."), then one
`de.utf8=Eine Krähe.` a line.
"""

import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from relabel.errors import UsageError

PACKAGE = "tuxpaint-stamps-default"
PLACE = "usr/share/tuxpaint/stamps"
INSTALLED = Path("/") / PLACE
ROOMS = ("animals", "food", "vehicles")
"""Of things that one can name by looking."""
NAME = re.compile(r"(An?|Some) [A-Za-z' -]+")
MOST_WORDS = 2
"""Of a name, its article among them."""
LEAST_PIXELS = 80
"""Of the longer side: smaller drawings are not to be recognised."""
SOLID = 16
"""Of 255: from this opacity on a pixel belongs to the thing."""


@dataclasses.dataclass(frozen=True)
class Stamp:
    """One cut-out."""

    name: str
    """Its file, without the suffix, from the collection's folder on."""
    caption: str
    """With its article, as inside a sentence: "a crow"."""
    translations: Mapping[str, str]
    """By language, only those that differ from the English."""
    file: Path

    def picture(self) -> UInt8[np.ndarray, "height width 4"]:
        """RGBA, cut to what is not transparent."""
        pixels = np.asarray(Image.open(self.file).convert("RGBA"))
        rows, columns = (np.flatnonzero((pixels[..., 3] >= SOLID).any(axis=axis)) for axis in (1, 0))
        return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def read_stamps(folder: Path, rooms: Sequence[str] = ROOMS, most_words: int = MOST_WORDS) -> list[Stamp]:
    """The stamps that few plain words name, sorted by file; raises UsageError where there are none."""
    files = sorted(file for room in rooms for file in (folder / room).rglob("*.png"))
    stamps = [stamp for file in files if (stamp := read_stamp(folder, file, most_words)) is not None]
    if not stamps:
        raise UsageError(f"{folder} holds no stamps: expected NAME.png and NAME.txt below {', '.join(rooms)}.")
    return stamps


def read_stamp(folder: Path, file: Path, most_words: int) -> Stamp | None:
    """None where it is too small, opaque, or has no plain name."""
    described = file.with_suffix(".txt")
    if not described.is_file():
        return None
    english, *others = described.read_text("utf-8", "replace").splitlines() or [""]
    caption = english.strip().removesuffix(".")
    with Image.open(file) as image:
        visible = max(image.size) >= LEAST_PIXELS and image.has_transparency_data
    if not visible or not NAME.fullmatch(caption) or len(caption.split()) > most_words:
        return None
    caption = caption[0].lower() + caption[1:]
    return Stamp(file.relative_to(folder).with_suffix("").as_posix(), caption, translated(others, caption), file)


def translated(lines: Sequence[str], english: str) -> dict[str, str]:
    pairs = (line.strip().partition(".utf8=") for line in lines)
    names = {language: text.removesuffix(".") for language, _, text in pairs if text}
    return {language: text for language, text in names.items() if text.lower() != english}


def find_stamps(cache: Path, installed: Path = INSTALLED) -> Path:
    """The collection's folder: the installed one, or the one unpacked below `cache`, now or earlier.

    Raises UsageError, which says what to do, where the package is neither here nor to be had.
    """
    for folder in (installed, cache / PLACE):
        if folder.is_dir():
            return folder
    fetch_stamps(cache)
    return cache / PLACE


def fetch_stamps(cache: Path) -> None:
    """Debian's package (161 MB, checked by apt) unpacked into `cache`, whole or not at all."""
    if missing := [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]:
        raise UsageError(no_stamps(f"this machine has no {' and no '.join(missing)}"))
    cache = cache.absolute()  # the tools run in a folder below it
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.parent, prefix=".stamps-") as work:
        download(Path(work))
        [archive] = Path(work).glob("*.deb")
        unpacked = Path(work) / "unpacked"
        tool(["dpkg-deb", "--extract", str(archive), str(unpacked)], Path(work))
        if not cache.exists():
            unpacked.replace(cache)


def download(work: Path) -> None:
    """Where lists of packages are missing, only root can renew them."""
    fetch = ["apt-get", "--quiet", "download", PACKAGE]
    try:
        tool(fetch, work)
    except UsageError:
        if os.geteuid() != 0:
            raise
        tool(["apt-get", "--quiet", "update"], work)
        tool(fetch, work)


def tool(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise UsageError(no_stamps(f"`{' '.join(command)}` failed: {said[-1]}"))


def no_stamps(why: str) -> str:
    return (
        f"the scenes are made of Tux Paint's stamps, expected in {INSTALLED}, and {why}. On Debian or Ubuntu run "
        f"`apt-get update && apt-get install {PACKAGE}` as root."
    )
