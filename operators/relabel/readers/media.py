"""Media: where the samples of a release lie, at their own place or as a copy elsewhere, and what a sample's fields are.

A shard keeps its name wherever it lies: the path below the source's root. What it is called by a copy's root is looked
for there, and nothing else is.
"""

import dataclasses
import functools
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ..digests import Json
from ..errors import BadSample, Refused, UsageError
from ..labels.contract import LabelContract
from ..reasons import Reason
from ..shards.listing import MAGIC, absolute, find_named, join
from ..shards.parquet import ParquetSource, is_readable
from ..shards.shard import Shard, Source
from ..shards.source import SourceConfig, kind_of, open_source
from ..shards.webdataset import codec_of
from ..storage.filesystems import is_local, local_path
from .wanted import Pinned, source_config

Paths = str | os.PathLike[str] | Sequence[str] | None
Orientation = Literal["exif", "stored"]

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "ICO", "JPEG2000", "AVIF")
"""That labelling reads, too; others (EPS, PDF) run programs or carry no pixels."""
TURNED = range(2, 9)
"""EXIF orientations in which pixels are not stored upright."""


@dataclasses.dataclass(frozen=True)
class Media:
    """The shards of a source by name, and how to read a sample."""

    config: SourceConfig
    source: Source
    shards: Mapping[str, Shard]

    def jumpable(self, shard: Shard) -> bool:
        """Whether a tar's members can be reached without reading what lies before them."""
        return self.config.kind == "webdataset" and codec_of(shard.name) is None


def media_of(pinned: Pinned, source: Paths, storage_options: Mapping[str, Json] | None) -> Media:
    """The media of a release, listed; raises UsageError where they are not said or not there."""
    known = source_config(pinned.base)
    if source is None:
        if known is None:
            raise UsageError(
                f"release {pinned.base.number} of {pinned.base.objects.url} does not say where its media lie; give "
                "dataset(source=...)."
            )
        config = known if storage_options is None else known.model_copy(update={"storage_options": storage_options})
        return listed(config)
    paths = os.fspath(source) if isinstance(source, str | os.PathLike) else [os.fspath(each) for each in source]
    config = moved(known, paths, storage_options)
    if isinstance(paths, str) and config.kind not in ("images", "texts") and is_folder(paths):
        return below(config, paths, [name for name, entry in pinned.base.entries.items() if entry.data is not None])
    return listed(config)


def moved(
    known: SourceConfig | None, paths: str | list[str], storage_options: Mapping[str, Json] | None
) -> SourceConfig:
    """What the recipe says of its source, of another place."""
    update: dict[str, Any] = {"path": paths, "storage_options": dict(storage_options or {})}
    if known is None:
        return SourceConfig.model_validate(update)
    first = paths if isinstance(paths, str) else paths[0]
    if not first.startswith("@") and not is_folder(first) and (kind := kind_of(first)) != known.kind:
        raise UsageError(
            f"the release was made from {known.kind}, and source={first!r} names {kind}: a copy must have the same "
            "files."
        )
    return SourceConfig.model_validate({**known.model_dump(mode="json"), **update})


def is_folder(path: str) -> bool:
    """Whether a path means all that lies below it: a folder on disk, or a name without a suffix."""
    if path.startswith("@") or MAGIC.search(path):
        return False
    return "." not in path.rstrip("/").rpartition("/")[2] or (is_local(path) and Path(local_path(path)).is_dir())


class WholeRows(ParquetSource):
    """Parquet of which every column is read whose values are scalars or media."""

    def select(self, schema: pa.Schema) -> list[str]:
        """The columns to read; raises UnknownColumn where the key or a need has none."""
        super().select(schema)
        return [field.name for field in schema if is_readable(field.type)]


def opened(config: SourceConfig) -> Source:
    source = open_source(config)
    if isinstance(source, ParquetSource):
        files = source.files
        return WholeRows(files.given, files.options, source.key, source.needs, source.columns, source.choices)
    return source


def listed(config: SourceConfig) -> Media:
    source = opened(config)
    return Media(config, source, {shard.name: shard for shard in source.shards()})


def below(config: SourceConfig, folder: str, names: Sequence[str]) -> Media:
    """The shards of these names below a folder, as far as they are there."""
    root = absolute(folder)
    urls = {join(root, name): name for name in names}
    found = find_named(list(urls), config.storage_options)
    if not found:
        shown = min(names, default="none")
        raise UsageError(f"none of the release's {len(names)} shards lies in {root} (the first one: {shown}).")
    config = config.model_copy(update={"path": tuple(found)})
    shards = {urls[url]: Shard(urls[url], url, *state) for url, state in found.items()}
    return Media(config, opened(config), shards)


def orientation_of(contracts: Mapping[str, LabelContract]) -> Orientation:
    """How pixels must lie for these labels; raises Refused where they disagree."""
    found: dict[str, Orientation] = {
        name: contract.geometry.orientation for name, contract in contracts.items() if contract.geometry
    }
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} {each}" for name, each in found.items())
        raise Refused(f"labels disagree on how pixels lie ({said}): read them by datasets of their own.")
    return "stored" if "stored" in found.values() else "exif"


@functools.cache
def formats() -> tuple[str, ...]:
    """Of `FORMATS`, those that this Pillow reads."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_image(data: Any, orientation: Orientation, where: str) -> Any:
    """A PIL image, opened and not decoded yet; one that EXIF turns is decoded, for only then can it be turned.

    Raises BadSample, which names `where`.
    """
    from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data), formats=formats())
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, TypeError) as error:
        what = f"{where}: the image does not open ({error}); read it raw by decode=False"
        raise BadSample(Reason.NOT_AN_IMAGE, what) from error
    if orientation == "stored" or (
        image.format == "JPEG" and "exif" not in image.info and b"tiff:Orientation" not in data
    ):
        return image
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in TURNED
        return ImageOps.exif_transpose(image) if turned else image
    except (OSError, SyntaxError, ValueError, TypeError, LookupError) as error:
        raise BadSample(Reason.CORRUPT_IMAGE, f"{where}: {error}") from error
