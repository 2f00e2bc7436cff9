"""Source: the recipe's `source` section, and the source that it opens."""

import functools
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..digests import Json
from ..errors import BadSample
from ..reasons import Reason
from ..statistics.hashes import key_hashes, shares
from ..storage.filesystems import check_options, check_url
from .folder import BUCKETS, EXTENSIONS, TEXT_EXTENSIONS, FolderSource
from .json_lines import SUFFIXES as LINES_SUFFIXES
from .json_lines import JsonLinesSource
from .metadata import MISSING, look_up
from .metadata import text as as_text
from .parquet import ParquetSource
from .shard import Sample, Source
from .webdataset import SUFFIXES as TAR_SUFFIXES
from .webdataset import WebDatasetSource
from .where import Condition, Where, rules_of

Kind = Literal["webdataset", "parquet", "images", "jsonl", "texts", "release"]

PARQUET_SUFFIXES = (".parquet", ".pq")
FIELDS: Mapping[Kind, Mapping[str, str]] = {
    "webdataset": {"image": "jpg;jpeg;png;webp;tif;tiff;bmp;gif"},
    "parquet": {"image": "image"},
    "images": {"image": "image"},
    "jsonl": {"text": "text"},
    "texts": {"text": "text"},
    "release": {},
}
"""What every kind offers to a labeler unless the recipe says otherwise; part of every run's fingerprint."""
ALSO: Mapping[Kind, Mapping[str, str]] = {"webdataset": {"text": "txt;text"}}
"""What it offers as well, where a labeler asks for it; in no fingerprint, so that old ones stay what they were."""
KEYED = ("parquet", "jsonl")


class SourceConfig(BaseModel):
    """The data set being relabeled."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    path: str | tuple[str, ...]
    """A path or URL, brace pattern (`s3://b/train-{000..127}.tar`), glob, `@listing.txt`, or a list of those; for
    images and texts a folder, for a release its store."""
    kind: Kind
    """webdataset (.tar, .tar.gz, .tar.zst), parquet, jsonl (.jsonl, .ndjson, also .gz and .zst), images or texts (a
    folder of .txt), or release (the labels in another store). Default: by the path's suffix; a folder holds images."""
    release: str = "latest"
    """Of a store: the release whose labels are read: `latest`, a number or a tag. Every run finds out anew which one is
    the latest, and reads that one to its end."""
    accept_partial: bool = False
    """Of a store: whether a partial release may be read, which covers some of its own source's shards only."""
    fields: dict[str, str] = Field(default_factory=dict)
    """A labeler's need to the fields that meet it, in order of preference (`image: jpg;png`); of a tar and of JSON
    lines also a member of nested JSON (`old_caption: txt;json.alt`). Added to the kind's defaults."""
    key: str | None = None
    """Parquet, JSON lines: the column or field that identifies a row. Default: the digest of the media (the text) and
    its occurrence in the shard."""
    old_label: str | None = None
    """The field that holds the label which the data set has already, shown beside the new one in previews."""
    where: tuple[Condition, ...] = ()
    """Only samples for which all of these hold are labelled; the others are rows with status `filtered`."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Only this share of the samples is labelled, chosen by a hash of the key: the same ones in every run, and among
    those of every larger share. The others are rows with status `filtered`."""
    buckets: int = Field(default=BUCKETS, ge=1, le=99_999)
    """Images, texts: into how many shards the folder is hashed. Changing it makes all shards new."""
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

    @field_validator("release", mode="before")
    @classmethod
    def is_a_name(cls, release: Any) -> Any:
        return str(release) if isinstance(release, int) and not isinstance(release, bool) else release

    @model_validator(mode="after")
    def fits_together(self) -> "SourceConfig":
        if self.kind == "release" and not isinstance(self.path, str):
            raise ValueError("a source of kind release has one path, that of its store")
        if self.key is not None and self.kind not in KEYED:
            raise ValueError(
                f"`key` names a column of Parquet or a field of JSON lines; a source of kind {self.kind} brings its "
                "own keys"
            )
        for need, choice in self.fields.items():
            if not all(part.strip() for part in choice.split(";")):
                raise ValueError(f"fields.{need}: expected names separated by `;`, got {choice!r}")
        return self

    def choice(self, need: str) -> tuple[str, ...]:
        """The fields that meet a need, in order of preference; a need that nothing is said of names its own field."""
        known = {**ALSO.get(self.kind, {}), **FIELDS[self.kind]}
        return names_in(self.fields.get(need) or known.get(need, need))

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Every need that the kind or the recipe speaks of."""
        return {need: self.choice(need) for need in {**FIELDS[self.kind], **self.fields}}

    def where_admits(self, sample: Sample) -> bool:
        """Whether `share` and `where` let the sample be labelled; raises BadSample where metadata cannot be read."""
        if self.share < 1 and shares(key_hashes([sample.key], "share"))[0] >= self.share:
            return False
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
    if name.endswith(LINES_SUFFIXES):
        return "jsonl"
    suffix = "." + name.rpartition("/")[2].rpartition(".")[2]
    if suffix in TEXT_EXTENSIONS and not name.startswith("@"):
        return "texts"
    if suffix in EXTENSIONS or ("." not in name.rpartition("/")[2] and not name.startswith("@") and name[-1:] != "*"):
        return "images"
    raise ValueError(f"the suffix of {path!r} does not tell what it is; add `kind: {'`, `'.join(FIELDS)}`")


def open_source(config: SourceConfig) -> Source:
    """The source that a recipe means, unless it is a release; asks nothing of the store yet."""
    assert config.kind != "release", "a release is opened by who knows releases"
    path = config.path if isinstance(config.path, str) else list(config.path)
    if config.kind == "webdataset":
        return WebDatasetSource(path, config.storage_options)
    if config.kind == "images":
        return FolderSource(path, config.storage_options, config.buckets)
    if config.kind == "texts":
        return FolderSource(path, config.storage_options, config.buckets, TEXT_EXTENSIONS, "text")
    if config.kind == "jsonl":
        return JsonLinesSource(path, config.storage_options, config.key, config.choice("text"))
    return parquet_source(config, path)


def parquet_source(config: SourceConfig, path: str | list[str]) -> ParquetSource:
    """Of images, of texts, or of both: a file must have what the recipe's `fields` speak of, and one of the two."""
    read = [part.field for condition in config.where for part in condition.parts()]
    # `json.width` may be a column of that name or a member of the column `json`.
    columns = {".".join(field.split(".")[:end]) for field in read for end in range(1, field.count(".") + 2)}
    if config.old_label is not None:
        columns.add(config.old_label)
    media = [config.choice(need) for need in ("image", "text")]
    needs = [config.choice(need) for need in config.fields if need != "image"]
    if "image" in config.fields:
        needs.insert(0, media[0])
    elif "text" not in config.fields:
        needs.insert(0, (*media[0], *media[1]))
    columns.update(*media)
    return ParquetSource(path, config.storage_options, config.key, needs, sorted(columns), media)


def selection(config: SourceConfig) -> Json:
    """What decides which rows are labelled and from what: part of a run's fingerprint."""
    rules = rules_of(config.where)
    return {
        "fields": {need: list(choice) for need, choice in config.choices.items()},
        "key": config.key,
        "where": [condition.as_written() for condition in config.where],
        **({"rules": rules} if rules else {}),
        **({"share": config.share} if config.share < 1 else {}),
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
            # Text is checked: JSON can spell half a character, which nothing can be made of.
            return value if isinstance(value, bytes) else str(as_text(name, value))
    return None
