"""Other crops: classes with the attributes of timm's (1.0.31) and torchvision's (0.28), which no CPU build of theirs is
there to be tested with. Adapters know them by the name of class and package.
"""

import enum
from typing import Any


class InterpolationMode(enum.Enum):
    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


def like(package: str, name: str, **attributes: Any) -> Any:
    """An instance of a class of that name in that package, with these attributes."""
    made = type(name, (), {"__module__": package})()
    vars(made).update(attributes)
    return made


def v1(name: str, **attributes: Any) -> Any:
    return like("torchvision.transforms.transforms", name, **attributes)


def v2(name: str, **attributes: Any) -> Any:
    return like("torchvision.transforms.v2._geometry", name, **attributes)


def timm(name: str, **attributes: Any) -> Any:
    return like("timm.data.transforms", name, **attributes)


CROP = {"size": (24, 24), "scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3), "interpolation": InterpolationMode.BILINEAR}
