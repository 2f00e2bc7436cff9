"""Crops: a part of an image and, from the label map of the image, the soft label of that very part.

A crop is a callable from sample (dict) to sample. What is random comes from the sample's `__seed__` (see `draws`), so
that a sample of an epoch is cropped alike in any worker, on any rank and after a resume.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import BadSample, UsageError
from ..labels.contract import LabelContract
from .agreement import check_image, check_poolable
from .cutting import INTERPOLATIONS, OUTPUTS, Output, check_whole, cut, upright
from .draws import draws_of
from .pooling import MODES, Mode, pool
from .regions import Region, centred_region, random_region, size_pair

Sample = Mapping[str, Any]


class Cut(NamedTuple):
    """What becomes of one image."""

    region: Region
    flip: bool = False
    interpolation: str = "bilinear"


class Crop:
    """What all crops do with the region that they choose.

    `image`, a PIL image, becomes RGB of `size`: a uint8 tensor [3, height, width] (`output="tensor"`), a PIL image
    (`"pil"`), or a uint8 array [height, width, 3] (`"array"`). Every label named by `pool` becomes float32 [classes]
    probabilities (see `pooling.pool` for `mode`). With `pool=None` labels stay, and `crop` is added: float64 [4], the
    box in fractions of the upright image before any flip, for `label_pooling` on a device. The EXIF rotation is applied
    unless a contract that `check` saw says that its label lies in the stored orientation.

    Raises Refused where a label map was not made of this image as it lies here, BadSample for one that cannot be
    decoded, UsageError for a sample without image, seed or label map.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        pool: str | Sequence[str] | None = None,
        mode: Mode = "prob",
        output: Output = "tensor",
        interpolation: str | Sequence[str] = "bilinear",
    ) -> None:
        self.size = size_pair(size)
        self.pool = () if pool is None else (pool,) if isinstance(pool, str) else tuple(pool)
        self.mode: Mode = _one_of("mode", mode, MODES)
        self.output: Output = _one_of("output", output, OUTPUTS)
        names = (interpolation,) if isinstance(interpolation, str) else tuple(interpolation)
        self.interpolation = tuple(_one_of("interpolation", name, INTERPOLATIONS) for name in names)
        if not self.interpolation:
            raise UsageError(f"interpolation must name one or more of {', '.join(INTERPOLATIONS)}, got none.")
        self.orientation = "exif"

    def choose(self, sample: Sample, height: int, width: int) -> Cut:
        """The region that is taken of an image of so many pixels."""
        raise NotImplementedError

    def check(self, contracts: Mapping[str, LabelContract]) -> None:
        """Raises Refused or UnknownName where the labels cannot be pooled; takes over in which orientation they lie."""
        check_poolable(self.pool, contracts)
        geometries = (contracts[name].geometry for name in self.pool or contracts)
        self.orientation = next((geometry.orientation for geometry in geometries if geometry), "exif")

    def __call__(self, sample: Sample) -> dict[str, Any]:
        image = sample.get("image")
        if image is None:
            raise UsageError(f"a crop needs the field `image`, the sample has {', '.join(map(str, sample))}.")
        check_whole(image)
        image = upright(image) if self.orientation == "exif" else image
        width, height = image.size
        for name in self.pool:
            check_image(sample.get(name), name, height, width)
        chosen = self.choose(sample, height, width)
        box = chosen.region.fractions(height, width)
        found = {name: pool(sample[name], box, self.mode) for name in self.pool} or {"crop": np.array(box)}
        try:
            pixels = cut(image, chosen.region, self.size, chosen.interpolation, chosen.flip, self.output)
        except BadSample as error:
            raise BadSample(error.reason, f"sample {sample.get('__key__')!r}: {error.detail}") from error
        return {**sample, "image": pixels, **found}


class RandomResizedCrop(Crop):
    """A random part of the image, resized: `scale` of its area, an aspect (width / height) in `ratio`, mirrored with
    probability `flip`. Several `interpolation`s are drawn from.

    A region that leaves the image cannot be drawn. Distributed as torchvision's and timm's crop of the name; the draws
    are the sample's own.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        pool: str | Sequence[str] | None = None,
        mode: Mode = "prob",
        output: Output = "tensor",
        interpolation: str | Sequence[str] = "bilinear",
    ) -> None:
        super().__init__(size, pool, mode, output, interpolation)
        self.scale, self.ratio, self.flip = tuple(map(float, scale)), tuple(map(float, ratio)), float(flip)
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UsageError(f"scale must be (least, most) share of the area, 0 < least <= most <= 1, got {scale}.")
        if len(self.ratio) != 2 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise UsageError(f"ratio must be (least, most) width / height, 0 < least <= most, got {ratio}.")
        if not 0 <= self.flip <= 1:
            raise UsageError(f"flip must be a probability, got {flip}.")

    def choose(self, sample: Sample, height: int, width: int) -> Cut:
        draws = draws_of(sample, "crop")
        flip = draws.uniform() < self.flip
        interpolation = self.interpolation[draws.below(len(self.interpolation))]
        return Cut(random_region(draws, height, width, self.scale, self.ratio), flip, interpolation)


class CenterCrop(Crop):
    """For evaluation: the shorter side scaled to `resize`, and of that the middle, `size`; by default all of it."""

    def __init__(
        self,
        size: int | Sequence[int],
        resize: int | None = None,
        pool: str | Sequence[str] | None = None,
        mode: Mode = "prob",
        output: Output = "tensor",
        interpolation: str = "bilinear",
    ) -> None:
        super().__init__(size, pool, mode, output, interpolation)
        self.resize = max(self.size) if resize is None else resize
        if self.resize < max(self.size):
            raise UsageError(
                f"resize, the shorter side before the crop, must be at least the crop's {max(self.size)}, got {resize}."
            )

    def choose(self, sample: Sample, height: int, width: int) -> Cut:
        return Cut(centred_region(height, width, self.size, self.resize), interpolation=self.interpolation[0])


class Resize(Crop):
    """For evaluation: the whole image stretched to `size`, as a label map's teacher saw it."""

    def choose(self, sample: Sample, height: int, width: int) -> Cut:
        return Cut(Region(0, 0, height, width), interpolation=self.interpolation[0])


def _one_of(what: str, value: Any, known: Sequence[str]) -> Any:
    if value not in known:
        raise UsageError(f"{what} must be one of {', '.join(known)}, got {value!r}.")
    return value
