"""Image models: what labelers share that read a square of an image with a network whose weights were inspected.

What was chosen is the identity; the name of a model and what is kept for people are not, the digests beside them are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field

from ..digests import Json
from ..errors import BadSample, UsageError
from ..labels.class_map import ClassMap
from ..labels.contract import Classes, Geometry
from ..reasons import Reason
from ..shards.shard import Value
from .checkpoints import local_checkpoint, require_same
from .images import MAX_PIXELS, decode_image, resize_square
from .labeler import Labeler, Parameters, Prepared


class ImageModelParameters(Parameters):
    """What every image model has; a labeler says of each what it means for its labels."""

    model: str
    input_size: int
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How images are stretched to the square, antialiased."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Larger images are dead letters."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes in order, where the model does not bring them."""


P = TypeVar("P", bound=ImageModelParameters)


class ImageModel(Labeler[P]):
    """A labeler of images whose facts were inspected from weights; a subclass says what it opens and writes."""

    NAMES: ClassVar[tuple[str, ...]] = ("model", "class_names")
    """Parameters that only name what the facts hold by digest."""
    UNIDENTIFIED: ClassVar[tuple[str, ...]] = ("class_names", "revision")
    """Facts that are kept for people and for fetching; the digests beside them are the identity."""

    def __init__(self, parameters: P, label: str = "") -> None:
        super().__init__(parameters, label)
        self._numerics: dict[str, Json] = {}

    def weight_files(self) -> Sequence[Path]:
        checkpoint = local_checkpoint(self.parameters.model)
        return checkpoint.files if checkpoint else ()

    def identity(self) -> dict[str, Json]:
        parameters = self.parameters.model_dump(mode="json")
        return {
            "parameters": {name: value for name, value in parameters.items() if name not in self.NAMES},
            **{name: value for name, value in self.known_facts().items() if name not in self.UNIDENTIFIED},
        }

    def describe(self, opened: Any, grid: Sequence[int], class_map: ClassMap, num_classes: int) -> dict[str, Json]:
        """The facts of what was opened: a classifier or a segmenter of so many classes.

        Raises UsageError where the class map (`class_names`, or the model's own) has not one name for each of them.
        """
        if len(class_map.names) != num_classes:
            raise UsageError(
                f"the model tells {num_classes} classes apart, got {len(class_map.names)} class names. Give "
                "`class_names` for all of them, in order."
            )
        return {
            "weights": opened.weights,
            "revision": opened.revision,
            "architecture": opened.architecture,
            "normalisation": opened.normalisation.to_json(),
            "grid": list(grid),
            "classes": class_map.declare().model_dump(mode="json"),
            "class_names": list(class_map.names),
        }

    def geometry(self) -> Geometry:
        return Geometry(
            size=self.parameters.input_size, interpolation=self.parameters.interpolation, orientation="exif"
        )

    def classes(self) -> Classes:
        return Classes.model_validate(self.known_facts()["classes"])

    def prepare(self, sample: Mapping[str, Value]) -> Prepared:
        """The square that the model sees, and the height and width of the image."""
        data = sample["image"]
        if not isinstance(data, bytes):
            raise BadSample(Reason.NOT_AN_IMAGE, f"the image field holds {type(data).__name__}, expected bytes")
        image = decode_image(data, self.parameters.max_pixels)
        height, width, _ = image.shape
        square = resize_square(image, self.parameters.input_size, self.parameters.interpolation)
        return {"image": square, "height": np.array(height, np.int32), "width": np.array(width, np.int32)}

    def check_digest(self, what: str, found: str | None) -> None:
        """Raises Refused where it is not the one that the facts have."""
        require_same(self.parameters.model, what, found, self.facts[what])

    def numerics(self) -> dict[str, Json]:
        return self._numerics
