"""Contracts: what a label column means, declared once and carried in every file and release.

The contract travels as JSON in Parquet field metadata under the key `relabel` and in the release; two labels with
different contracts are never pooled or joined.
"""

import math
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

FORMAT_KEY = b"relabel"


class Declaration(BaseModel):
    """Frozen, keyword-only, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(Declaration):
    """One Parquet column of a label."""

    name: str
    dtype: str
    """numpy spelling with byte order (`<u2`, `<f2`, `<i4`), or `string`, or `bytes`."""
    shape: tuple[int, ...] = ()
    """Per row, C order; () is a scalar."""
    axes: tuple[str, ...] = ()
    """One name per dimension, e.g. ("y", "x", "k")."""

    @property
    def size_bytes(self) -> int:
        """Of one row; dense columns only."""
        return int(self.dtype[2:]) * math.prod(self.shape)

    def arrow_type(self) -> pa.DataType:
        """fixed_size_binary where there is a shape, else the plain scalar type."""
        if self.shape:
            return pa.binary(self.size_bytes)
        scalars = {
            "string": pa.string(),
            "bytes": pa.large_binary(),
            "<i4": pa.int32(),
            "<i2": pa.int16(),
            "<i8": pa.int64(),
            "<f4": pa.float32(),
            "<f2": pa.float16(),
            "|u1": pa.uint8(),
            "|b1": pa.bool_(),
        }
        return scalars[self.dtype]


class Classes(Declaration):
    """The class list that ids point into."""

    digest: str
    """Of the class map's names in order (see `labels.class_map`)."""
    count: int


class Geometry(Declaration):
    """How the teacher saw the image: from stored pixels to model input."""

    resize: Literal["square"] = "square"
    """square: height and width are stretched to `size`, nothing is cropped, so fractions map linearly."""
    size: int
    """Pixels of the model input's side."""
    crop: Literal["none"] = "none"
    interpolation: Literal["bilinear", "bicubic"]
    antialias: bool = True
    orientation: Literal["exif", "stored"]
    """exif: the EXIF rotation was applied before labelling; height and width are after it."""
    box_order: Literal["y1, x1, y2, x2"] = "y1, x1, y2, x2"
    """Boxes that address this label are fractions of the oriented image, in this order."""


class Quantiser(Declaration):
    """How stored scores differ from computed ones."""

    dtype: str
    max_relative_error: float


class LabelContract(Declaration):
    """One label: a group of columns that are read together. Equal contracts mean comparable labels."""

    name: str
    """The label's name in the recipe; column names start with it."""
    kind: Literal["label_map", "mask", "caption", "classes", "score"]
    columns: tuple[Column, ...]
    classes: Classes | None = None
    score_domain: Literal["logit", "probability", "log_probability"] | None = None
    top_k: int | None = None
    residual: Literal["logsumexp_of_the_rest"] | None = None
    quantiser: Quantiser | None = None
    ignore_index: int | None = None
    geometry: Geometry | None = None

    def column(self, suffix: str) -> Column:
        """The column `<name>_<suffix>`."""
        return next(column for column in self.columns if column.name == f"{self.name}_{suffix}")
