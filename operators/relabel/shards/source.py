"""Source: the recipe's `source` section, and the source that it opens."""

import functools
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..digests import Json
from ..errors import BadSample
from ..reasons import Reason
from ..storage.filesystems import check_options, check_url
from .folder import BUCKETS, EXTENSIONS, FolderSource
from .metadata import MISSING, look_up
from .parquet import ParquetSource
from .shard import Sample, Source
from .webdataset import SUFFIXES as TAR_SUFFIXES
from .webdataset import WebDatasetSource
from .where import Condition, Where, rules_of

Kind = Literal["webdataset", "parquet", "images"]

PARQUET_SUFFIXES = (".parquet", ".pq")
FIELDS: Mapping[Kind, Mapping[str, str]] = {
    "webdataset": {"image": "jpg;jpeg;png;webp;tif;tiff;bmp;gif"},
    "parquet": {"image": "image"},
    "images": {"image": "image"},
}
"""What every kind offers to a labeler unless the recipe says otherwise."""


class SourceConfig(BaseModel):
    """The data set being relabeled."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    path: str | tuple[str, ...]
    """A path or URL, brace pattern (`s3://b/train-{000..127}.tar`), glob, `@listing.txt`, or a list of those; for
    images a folder."""
    kind: Kind
    """webdataset (.tar, .tar.gz, .tar.zst), parquet, or images (a folder). Default: by the path's suffix."""
    fields: dict[str, str] = Field(default_factory=dict)
    """A labeler's need to the fields that meet it, in order of preference (`image: jpg;png`); of a tar also a member
    of its JSON (`old_caption: txt;json.alt`). Added to the kind's defaults."""
    key: str | None = None
    """Parquet: the column that identifies a row. Default: the media's digest and its occurrence in the shard."""
    old_label: str | None = None
    """The field that holds the label which the data set has already, shown beside the new one in previews."""
    where: tuple[Condition, ...] = ()
    """Only samples for which all of these hold are labelled; the others are rows with status `filtered`."""
    buckets: int = Field(default=BUCKETS, ge=1, le=99_999)
    """Images: into how many shards the folder is hashed. Changing it makes all shards new."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """fsspec options (`endpoint_url`, `profile`, `anon`); secrets only as `${ENV_NAME}`."""

    @model_validator(mode="before")
    @classmethod
    def guess_kind(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"path": value}
        if not isinstance(value, dict) or value.get("kind") or not value.get("path"):
            return value
        path = value["path"]
        if not isinstance(path, str | list | tuple):
            return {**value, "kind": "webdataset"}  # the path itself is refused
        return {**value, "kind": kind_of(path if isinstance(path, str) else str(path[0]))}

    @field_validator("path")
    @classmethod
    def is_not_empty(cls, path: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not path or not all(path):
            raise ValueError("expected a path, a pattern or a list of them; it is empty")
        for each in [path] if isinstance(path, str) else path:
            check_url(each.removeprefix("@"))
        return path

    @field_validator("storage_options")
    @classmethod
    def holds_no_secret(cls, options: dict[str, Any]) -> dict[str, Any]:
        check_options(options)
        return options

    @model_validator(mode="after")
    def fits_together(self) -> "SourceConfig":
        if self.key is not None and self.kind != "parquet":
            raise ValueError(f"`key` names a Parquet column; a source of kind {self.kind} brings its own keys")
        for need, choice in self.fields.items():
            if not all(part.strip() for part in choice.split(";")):
                raise ValueError(f"fields.{need}: expected names separated by `;`, got {choice!r}")
        return self

    def choice(self, need: str) -> tuple[str, ...]:
        """The fields that meet a need, in order of preference; a need that nothing is said of names its own field."""
        return names_in(self.fields.get(need) or FIELDS[self.kind].get(need, need))

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Every need that the kind or the recipe speaks of."""
        return {need: self.choice(need) for need in {**FIELDS[self.kind], **self.fields}}

    def where_admits(self, sample: Sample) -> bool:
        """Whether `where` lets the sample be labelled; raises BadSample where its metadata cannot be read."""
        return not self.where or Where(self.where).admits(sample)


@functools.cache
def names_in(choice: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in choice.split(";"))


def kind_of(path: str) -> Kind:
    """By the suffix of a path or pattern; a folder holds images."""
    name = path.lower().rstrip("/")
    if name.endswith(tuple(TAR_SUFFIXES)):
        return "webdataset"
    if name.endswith(PARQUET_SUFFIXES):
        return "parquet"
    suffix = "." + name.rpartition("/")[2].rpartition(".")[2]
    if suffix in EXTENSIONS or ("." not in name.rpartition("/")[2] and not name.startswith("@") and name[-1:] != "*"):
        return "images"
    raise ValueError(f"the suffix of {path!r} does not tell what it is; add `kind: webdataset`, `parquet` or `images`")


def open_source(config: SourceConfig) -> Source:
    """The source that a recipe means; asks nothing of the store yet."""
    path = config.path if isinstance(config.path, str) else list(config.path)
    if config.kind == "webdataset":
        return WebDatasetSource(path, config.storage_options)
    if config.kind == "images":
        return FolderSource(path, config.storage_options, config.buckets)
    read = [part.field for condition in config.where for part in condition.parts()]
    # `json.width` may be a column of that name or a member of the column `json`.
    columns = {".".join(field.split(".")[:end]) for field in read for end in range(1, field.count(".") + 2)}
    if config.old_label is not None:
        columns.add(config.old_label)
    return ParquetSource(path, config.storage_options, config.key, tuple(config.choices.values()), sorted(columns))


def selection(config: SourceConfig) -> Json:
    """What decides which rows are labelled and from what: part of a run's fingerprint."""
    rules = rules_of(config.where)
    return {
        "fields": {need: list(choice) for need, choice in config.choices.items()},
        "key": config.key,
        "where": [condition.as_written() for condition in config.where],
        **({"rules": rules} if rules else {}),
    }


def pick(config: SourceConfig, sample: Sample, need: str) -> bytes | str:
    """The field that meets a labeler's need.

    Raises BadSample: MISSING_FIELD where the sample has none of the choices, EMPTY_FIELD where it holds no bytes.
    """
    choice, value = config.choice(need), has(config, sample, need)
    if value is None:
        present = ", ".join(sorted(name for name in sample.fields if not name.startswith("__"))) or "none"
        raise BadSample(Reason.MISSING_FIELD, f"no {need}: expected {' or '.join(choice)}; its fields are {present}")
    if not value:
        raise BadSample(Reason.EMPTY_FIELD, f"the field for {need} holds zero bytes")
    return value


def has(config: SourceConfig, sample: Sample, need: str) -> bytes | str | None:
    """The field that meets a need, or the member of its JSON (`json.caption`); it may be empty.

    None where the sample has none of the choices; raises BadSample(BAD_METADATA) where the field is not JSON.
    """
    parsed: dict[str, Any] = {}
    for name in config.choice(need):
        value = look_up(sample.fields, name, parsed)
        if value is not MISSING and value is not None and not isinstance(value, list | dict):
            return value if isinstance(value, bytes | str) else str(value)
    return None
