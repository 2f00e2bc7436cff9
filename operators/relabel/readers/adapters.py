"""Adapters: crops of timm, torchvision and albumentations as crops that carry the label map along.

`relabel.adapt(transform, pool="label_map")` reads what a crop was made with and draws by the sample's seed. Read
are the attributes `size`, `scale`, `ratio`, `interpolation` and `p` as torchvision (looked up in 0.28, `transforms` and
`transforms.v2`), timm (1.0.31) and albumentations (2.0.8) name them; older ones whose interpolation is one of Pillow's
numbers are read, too. Classes are known by name and package, none of these packages is needed.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import UsageError
from .crops import CenterCrop, Crop, RandomResizedCrop, Resize
from .cutting import INTERPOLATIONS, Output
from .pooling import Mode
from .replay import ReplayedCrop

PILLOW = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By Pillow's numbers."""
OPENCV = {0: "nearest", 1: "bilinear", 2: "bicubic", 3: "box", 4: "lanczos", 6: "nearest"}
FLIPS = ("RandomHorizontalFlip", "HorizontalFlip")
SUPPORTED = (
    "timm's RandomResizedCropAndInterpolation; torchvision's RandomResizedCrop (transforms and transforms.v2), "
    "a RandomHorizontalFlip after these; for evaluation a Resize to one number and a CenterCrop, or a Resize to "
    "(height, width); albumentations' crops, and its Compose with a crop"
)


def adapt(
    transform: Any, pool: str | Sequence[str] | None = None, mode: Mode = "prob", output: Output = "tensor"
) -> Crop:
    """A crop of this package that does what a crop of timm, torchvision or albumentations does, or a list or Compose
    of a crop and a flip; `pool`, `mode` and `output` are as in `Crop`.

    Pixels are resized by Pillow with antialiasing, also for albumentations' RandomResizedCrop, whose OpenCV does not.
    An albumentations Compose of more than these runs itself, seeded by the sample, and its crop's box is pooled (see
    `replay`). Raises UsageError, naming what is supported, for anything else.
    """
    more: Any = {"pool": pool, "mode": mode, "output": output}
    if package_of(transform) == "albumentations" and hasattr(transform, "transforms"):
        steps = list(transform.transforms)
        known = {"RandomResizedCrop", *FLIPS}
        if not {type(step).__name__ for step in steps} <= known or getattr(transform, "p", 1.0) != 1:
            return ReplayedCrop(transform, **more)
    elif isinstance(transform, list | tuple):
        steps = list(transform)
    else:
        steps = list(getattr(transform, "transforms", [transform]))
    flip = chance_of_flip(steps[-1]) if len(steps) > 1 else None
    steps = steps[:-1] if flip is not None else steps
    names = tuple(type(step).__name__ for step in steps)
    if package_of(transform) == "albumentations" and names != ("RandomResizedCrop",):
        return ReplayedCrop(transform, **more)
    make = MAKERS.get(names)
    if make is None or (flip is not None and make is not random_crop):
        raise unsupported(transform)
    for step in steps:
        refuse_extras(step)
    return make(steps, flip or 0.0, more)


def random_crop(steps: Sequence[Any], flip: float, more: dict[str, Any]) -> Crop:
    [crop] = steps
    size = size_of(crop)
    interpolation = interpolations(crop)
    return RandomResizedCrop(size, crop.scale, crop.ratio, flip, interpolation=interpolation, **more)


def centre_crop(steps: Sequence[Any], flip: float, more: dict[str, Any]) -> Crop:
    resize, crop = steps
    side = shorter_side(resize)
    if side is None:
        raise UsageError("Resize before a CenterCrop must have one number (the shorter side), got (height, width).")
    return CenterCrop(size_of(crop), side, interpolation=interpolations(resize)[0], **more)


def whole_image(steps: Sequence[Any], flip: float, more: dict[str, Any]) -> Crop:
    [resize] = steps
    if shorter_side(resize) is not None:
        raise UsageError(
            f"Resize({resize.size}) keeps the aspect, so that images of a batch differ in shape. Use "
            "Resize((height, width)), or add a CenterCrop."
        )
    return Resize(size_of(resize), interpolation=interpolations(resize)[0], **more)


MAKERS: dict[tuple[str, ...], Callable[[Sequence[Any], float, dict[str, Any]], Crop]] = {
    ("RandomResizedCropAndInterpolation",): random_crop,
    ("RandomResizedCrop",): random_crop,
    ("Resize", "CenterCrop"): centre_crop,
    ("Resize",): whole_image,
}


def package_of(transform: Any) -> str:
    return type(transform).__module__.partition(".")[0]


def chance_of_flip(step: Any) -> float | None:
    """None where this is no horizontal flip."""
    return float(step.p) if type(step).__name__ in FLIPS else None


def size_of(step: Any) -> tuple[int, int]:
    size = step.size
    pair = [int(size)] if isinstance(size, int) else [int(side) for side in size]
    return pair[0], pair[-1]


def shorter_side(resize: Any) -> int | None:
    """What a Resize scales the shorter side to; None where it stretches to (height, width)."""
    size = resize.size
    if isinstance(size, int):
        return size
    return int(size[0]) if len(size) == 1 else None


def refuse_extras(step: Any) -> None:
    """Raises UsageError where a step may be left out, or limits the longer side."""
    if getattr(step, "p", 1.0) != 1:
        raise UsageError(f"{type(step).__name__} is applied with probability {step.p}; a crop here is always applied.")
    if getattr(step, "max_size", None) is not None:
        raise UsageError(f"{type(step).__name__} has max_size={step.max_size}, which is not supported. Leave it out.")


def interpolations(step: Any) -> tuple[str, ...]:
    """Pillow's names of what a step interpolates by, one or several to be drawn from."""
    found = step.interpolation
    each = found if isinstance(found, list | tuple) else (found,)
    return tuple(_interpolation(one, package_of(step)) for one in each)


def _interpolation(found: Any, package: str) -> str:
    value = getattr(found, "value", found)
    if isinstance(value, int):
        name = OPENCV.get(value, "?") if package == "albumentations" else dict(enumerate(PILLOW)).get(value, "?")
    else:
        name = {"nearest-exact": "nearest"}.get(str(value), str(value))
    if name not in INTERPOLATIONS:
        raise UsageError(f"interpolation {found!r} is not known; use one of {', '.join(INTERPOLATIONS)}.")
    return name


def unsupported(transform: Any) -> UsageError:
    steps = transform if isinstance(transform, list | tuple) else getattr(transform, "transforms", [transform])
    names = ", ".join(f"{type(step).__module__}.{type(step).__name__}" for step in steps)
    return UsageError(
        f"adapt does not know what {names or 'nothing'} does to a label map. Supported are: {SUPPORTED}. What comes "
        "after the crop (colours, erasing, normalising) is a transform of its own, relabel.on_image(...), behind it."
    )
