"""Contracts: what a label column means, declared once and carried in every file and release.

The contract travels as JSON in Parquet field metadata under the key `relabel` and in the release; two labels with
different contracts are never pooled or joined.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, model_serializer

FORMAT_KEY = b"relabel"
LIST = "list:"
SCALARS = {
    "string": pa.string(),
    "bytes": pa.large_binary(),
    "<i4": pa.int32(),
    "<i2": pa.int16(),
    "<u2": pa.uint16(),
    "<i8": pa.int64(),
    "<f4": pa.float32(),
    "<f2": pa.float16(),
    "|u1": pa.uint8(),
    "|b1": pa.bool_(),
}


class Declaration(BaseModel):
    """Frozen, keyword-only, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Varying(Declaration):
    """An array per row whose shape differs from row to row, C order, in a column of `bytes`."""

    dtype: str
    """Of its elements: numpy spelling with byte order."""
    axes: tuple[str, ...]
    """One name per dimension, e.g. ("y", "x")."""
    lengths: tuple[str, ...]
    """Per axis, the column that holds how long it is in this row."""


class Column(Declaration):
    """One Parquet column of a label."""

    name: str
    dtype: str
    """numpy spelling with byte order (`<u2`, `<f2`, `<i4`), `string`, `bytes`, or `list:` and a numpy spelling."""
    shape: tuple[int, ...] = ()
    """Per row, C order; () is a scalar."""
    axes: tuple[str, ...] = ()
    """One name per dimension, e.g. ("y", "x", "k")."""
    varying: Varying | None = None
    """What a row of `bytes` holds, where that is an array."""

    @property
    def loose(self) -> bool:
        """Arrow's layout is not numpy's: entries are Python values."""
        return self.dtype in ("string", "bytes", "|b1") or self.dtype.startswith(LIST)

    @property
    def size_bytes(self) -> int:
        """Of one row; dense columns only."""
        return int(self.dtype[2:]) * math.prod(self.shape)

    def arrow_type(self) -> pa.DataType:
        """fixed_size_binary where there is a shape, else the plain scalar or list type."""
        if self.shape:
            return pa.binary(self.size_bytes)
        if self.dtype.startswith(LIST):
            # As Parquet calls it: a list that is read back has the type that it was written with.
            return pa.list_(pa.field("element", SCALARS[self.dtype.removeprefix(LIST)]))
        return SCALARS[self.dtype]


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


class EngineError(Declaration):
    """How far logits may lie from those of the same network in torch fp32.

    Measured on fixed images when the label was planned, rounded outward, and measured again by every actor, which
    refuses to label where the error is more than twice as large or the agreement 5 points lower.
    """

    engine: str
    """What computed: `torch bf16`, `onnxruntime`, `onnxruntime-int8`, ..."""
    max_logit_error: float
    """Largest absolute difference of any logit of any cell; a power of two."""
    confident_agreement: float | None
    """Share of the cells with p > 0.3 whose most probable class is the same; None where such cells are too few."""


class LabelContract(Declaration):
    """One label: a group of columns that are read together. Equal contracts mean comparable labels."""

    ADDED_LATER: ClassVar[frozenset[str]] = frozenset({"no_score", "rivals", "styles", "reproducible", "applicable"})
    """Not written where a label has none of it, so that contracts written before mean the same as before."""

    name: str
    """The label's name in the recipe; column names start with it."""
    kind: Literal["label_map", "mask", "caption", "classes", "score", "embedding"]
    columns: tuple[Column, ...]
    classes: Classes | None = None
    score_domain: Literal["logit", "probability", "log_probability", "cosine", "vote_share"] | None = None
    """vote_share: of several answers, how many named the class; no probability of anything."""
    no_score: float | None = None
    """Scores: what stands in a float column where there was nothing to score, outside its domain; None: no such row."""
    rivals: tuple[tuple[str, str], ...] | None = None
    """Scores: pairs of columns (suffixes) of one measure, the first of something new, the second of what it may
    replace; a release says how often the first is larger."""
    top_k: int | None = None
    residual: Literal["logsumexp_of_the_rest"] | None = None
    quantiser: Quantiser | None = None
    ignore_index: int | None = None
    """The id of pixels that carry no class. Classes: all ids of a sample are it where no class was found."""
    min_confidence: float | None = None
    """Masks: a pixel whose most probable class is less probable has the ignore index."""
    geometry: Geometry | None = None
    proof: Literal["mean_of_cells", "class_token"] | None = None
    """Label maps: what was proven of the dense model (see `labelers.dense`). mean_of_cells: the mean of the logits
    over all cells is the classifier's own answer; class_token: the classifier reads a token that is no cell."""
    engine_error: EngineError | None = None
    """None where the labels were computed by torch in fp32."""
    styles: tuple[str, ...] | None = None
    """Captions: what is said of every sample, in order (see `labels.caption`); None: plain text columns."""
    reproducible: bool | None = None
    """Of labels that an engine gave: whether equal requests get bit-equal answers on equal hardware. None: no engine
    was asked."""

    applicable: Literal["others_unknown"] | None = None
    """Classes: the column `<name>_applicable` lists all classes that a sample was said to have; whether it has others
    is not known. None: a sample has one class."""

    @model_serializer(mode="wrap")
    def without_later_blanks(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """As JSON."""
        return {
            name: value for name, value in serialize(self).items() if value is not None or name not in self.ADDED_LATER
        }

    def column(self, suffix: str) -> Column:
        """The column `<name>_<suffix>`."""
        return next(column for column in self.columns if column.name == f"{self.name}_{suffix}")
