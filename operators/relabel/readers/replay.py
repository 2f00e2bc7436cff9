"""Replay: an albumentations pipeline that runs as it is, seeded by the sample; the box of its crop is pooled.

albumentations tells after a run which of its steps did what (`save_applied_params`, or a ReplayCompose). One crop and
horizontal flips are understood; a run in which another step moved pixels about is refused. Tested with 2.0.8.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import Refused, UsageError
from .agreement import check_image
from .crops import Crop, Sample
from .cutting import Output, as_rgb, check_whole, convert, decoded, upright
from .draws import draws_of
from .pooling import Mode, pool
from .regions import Region

CROPS = frozenset(
    {
        "RandomResizedCrop", "RandomSizedCrop", "RandomCrop", "CenterCrop", "Crop", "RandomCropFromBorders",
        "AtLeastOneBBoxRandomCrop",
    }
)  # fmt: skip
STILL = frozenset({"CoarseDropout", "Erasing", "GridDropout", "NoOp", "PixelDropout", "Resize", "XYMasking"})
"""Steps that albumentations counts as geometric, after which the same part of the image is seen."""


class ReplayedCrop(Crop):
    """An albumentations crop or Compose (see `adapters.adapt`).

    The image is decoded whole, and resized by albumentations. All its randomness is seeded by the sample.
    """

    def __init__(
        self, transform: Any, pool: str | Sequence[str] | None, mode: Mode = "prob", output: Output = "tensor"
    ) -> None:
        import albumentations

        super().__init__(1, pool, mode, output)
        steps = list(getattr(transform, "transforms", [transform]))
        if not any(type(step).__name__ in CROPS for step in walk(steps)):
            raise UsageError(
                f"albumentations' {type(transform).__name__} holds no crop; known are {', '.join(sorted(CROPS))}."
            )
        chance = transform.p if hasattr(transform, "transforms") else 1.0
        self.pipeline = albumentations.ReplayCompose(steps, p=chance)
        self.moving = {
            step.get_class_fullname() for step in walk(steps) if isinstance(step, albumentations.DualTransform)
        }

    def __call__(self, sample: Sample) -> dict[str, Any]:
        image = sample.get("image")
        check_whole(image)
        image = as_rgb(decoded(upright(image) if self.orientation == "exif" else image))
        width, height = image.size
        for name in self.pool:
            check_image(sample.get(name), name, height, width)
        self.pipeline.set_random_seed(draws_of(sample, "albumentations").below(2**32))
        found = self.pipeline(image=np.asarray(image))
        box = self.region(found["replay"], height, width).fractions(height, width)
        labels = {name: pool(sample[name], box, self.mode) for name in self.pool} or {"crop": np.array(box)}
        return {**sample, "image": self._output(found["image"]), **labels}

    def region(self, replay: Mapping[str, Any], height: int, width: int) -> Region:
        """What the run saw of the image; raises Refused where that is no box of it."""
        seen, mirrored = Region(0, 0, height, width), False
        for step in applied(replay):
            name = step["__class_fullname__"].rpartition(".")[2]
            if name in CROPS:
                seen = _within(seen, step["params"], mirrored, step)
            elif name == "HorizontalFlip":
                mirrored = not mirrored
            elif step["__class_fullname__"] in self.moving and name not in STILL:
                raise Refused(
                    f"albumentations' {name} moves pixels, and no box of the label map is what is seen then. Use crops "
                    f"({', '.join(sorted(CROPS))}), HorizontalFlip, Resize and steps that change colours only."
                )
        return seen

    def _output(self, pixels: Any) -> Any:
        from PIL import Image

        if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 3:
            return pixels if self.output == "array" else convert(Image.fromarray(pixels), self.output)
        return pixels  # the pipeline itself made a tensor, or normalised


def walk(steps: Sequence[Any]) -> list[Any]:
    """All steps, also those inside OneOf, Sequential and the like."""
    return [each for step in steps for each in (walk(step.transforms) if hasattr(step, "transforms") else [step])]


def applied(replay: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The steps of a replay that ran, in order."""
    found = []
    for step in replay["transforms"]:
        if "transforms" in step:
            found += applied(step)
        elif step.get("applied"):
            found.append(step)
    return found


def _within(seen: Region, params: Mapping[str, Any], mirrored: bool, step: Mapping[str, Any]) -> Region:
    """A crop of what is seen so far."""
    height, width = params["shape"][:2]
    if "crop_coords" not in params or params.get("pad_params"):
        raise Refused(
            f"albumentations' crop padded the image, or tells no box: {step['__class_fullname__']}, {params}."
        )
    left, top, right, bottom = params["crop_coords"]
    if mirrored:
        left, right = width - right, width - left
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise Refused(f"the crop {params['crop_coords']} reaches out of the image of {width} x {height} pixels.")
    down, across = seen.height / height, seen.width / width
    return Region(seen.top + top * down, seen.left + left * across, (bottom - top) * down, (right - left) * across)
