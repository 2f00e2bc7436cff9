"""Report media: photographs and texts of samples, small, as they stand in a page; and labels drawn over photographs."""

import base64
import dataclasses
import io
from collections.abc import Collection, Iterator, Mapping, Sequence

import matplotlib as mpl
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from relabel.errors import BadSample, RelabelError, UsageError
from relabel.labelers.images import MAX_PIXELS
from relabel.releases.release import Release, Store
from relabel.shards.shard import Sample, Shard, Source
from relabel.shards.source import SourceConfig, has
from relabel.storage.opening import open_store

from .drawing import PNG, STYLE
from .gallery import old_label
from .opening import open_source
from .photos import photo
from .readings import Classified
from .side_by_side import OVERLAYS, draw_cells

EDGE, THUMB = 320, 200
"""Pixels of the longer side of a picture, of a dead letter's."""
MOST_BYTES = 20_000
"""Of a picture; larger ones lose quality."""
QUALITIES = (78, 60, 42, 25)
TEXT_CHARACTERS = 600
DPI = 200
"""Of overlays, which pages show at a third of their size: numbers in them must be read there, too."""

Photo = UInt8[np.ndarray, "height width 3"]


@dataclasses.dataclass(frozen=True)
class Media:
    """What a sample shows."""

    photo: Photo | None = None
    text: str | None = None
    old_label: str | None = None
    """What the data set said."""
    note: str = ""
    """Why there is nothing, or not all of it."""


class Finder:
    """Reads samples of a release's own source. What cannot be read is noted, not raised: the page says it."""

    def __init__(self, release: Release, notes: list[str]) -> None:
        self._release, self.notes = release, notes
        self._config: SourceConfig | None = None
        self._source: Source | None = None
        self._shards: Mapping[str, Shard] = {}
        try:
            self._config = media_source(release)
            self._source = open_source(self._config)
            self._shards = {shard.name: shard for shard in self._source.shards()}
        except RelabelError as error:
            notes.append(f"No media are shown: the source cannot be read from here. {error}")

    def find(self, wanted: Mapping[str, Collection[str]], names: Sequence[str] = ()) -> dict[tuple[str, str], Media]:
        """(shard, key) -> what it shows, of those that were found; a shard is read up to the last one wanted."""
        found = {}
        for shard, keys in sorted(wanted.items()):
            if not self._shards:
                break
            if (why := self._changed(shard)) is not None:
                self.notes.append(why)
                continue
            left = set(keys)
            try:
                for sample in self._read(shard):
                    if sample.key in left:
                        left.remove(sample.key)
                        found[shard, sample.key] = self._media(sample, names)
                    if not left:
                        break
            except RelabelError as error:
                self.notes.append(f"Media of shard {shard} could not all be read: {error}")
        return found

    def _changed(self, shard: str) -> str | None:
        """Why a shard is not what was labelled any more."""
        if shard not in self._shards:
            return f"Media of shard {shard} are not shown: it is no longer in the source."
        if self._shards[shard].token != self._release.entry(shard).token and self._own:
            return f"Media of shard {shard} are not shown: it changed since it was labelled."
        return None

    @property
    def _own(self) -> bool:
        """Whether the media lie where this release read from, and not where the release did that it read."""
        return SourceConfig.model_validate(self._release.recipe["source"]).kind != "release"

    def _read(self, shard: str) -> Iterator[Sample]:
        assert self._source is not None
        yield from self._source.read(self._shards[shard])

    def _media(self, sample: Sample, names: Sequence[str]) -> Media:
        assert self._config is not None
        config = self._config
        try:
            old = old_label(config, sample, names)
            if isinstance(image := has(config, sample, "image"), bytes):
                return self._picture(sample, image, old)
            text = has(config, sample, "text")
        except BadSample as error:
            return Media(note=str(error))
        if text is None:
            return Media(old_label=old, note="no image and no text")
        shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return Media(text=cut(" ".join(shown.split()), TEXT_CHARACTERS), old_label=old)

    def _picture(self, sample: Sample, image: bytes, old: str | None) -> Media:
        assert self._config is not None
        try:
            return Media(photo(self._config, sample), old_label=old)
        except BadSample as error:
            part = decodable_part(image)
            return Media(part, old_label=old, note=str(error) if part is None else "what can be decoded of it")


def media_source(release: Release) -> SourceConfig:
    """Where the media lie: a release that reads a release has its samples' keys."""
    written = (release.recipe or {}).get("source")
    if written is None:
        raise UsageError("The release does not say where its samples came from.")
    config = SourceConfig.model_validate(written)
    if config.kind != "release":
        return config
    store = Store(open_store(str(config.path), config.storage_options))
    return media_source(store.release(config.release, accept_partial=True, recalled="ignore"))


def decodable_part(data: bytes) -> Photo | None:
    """What is left of a damaged JPEG: what a decoder makes of it before it gives up; None of other formats."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > MAX_PIXELS:
            return None
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=False)
    except ValueError:
        return None
    image = Image.fromarray(pixels)
    image.thumbnail((EDGE, EDGE), Image.Resampling.BOX)
    return np.asarray(image)


def picture(pixels: Photo, edge: int = EDGE) -> str:
    """A data URI, of at most MOST_BYTES where the worst quality reaches that."""
    image = Image.fromarray(pixels)
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    data = b""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=2)
        data = buffer.getvalue()
        if len(data) <= MOST_BYTES:
            break
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def overlay(image: Photo, side: Classified, colours: Mapping[int, str]) -> UInt8[np.ndarray, "drawn_y drawn_x 3"]:
    """A label over its photo in grey, as previews draw it."""
    height, width = image.shape[:2]
    scale = EDGE / max(height, width)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width * scale / DPI, height * scale / DPI), dpi=DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        OVERLAYS.get(side.kind, draw_cells)(axes, image, side, colours)
        axes.set_aspect("auto")
        buffer = io.BytesIO()
        figure.savefig(buffer, **PNG)
    return np.asarray(Image.open(buffer).convert("RGB"))


def cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
