"""Agreement: whether a label map means what a crop takes it for; what does not is refused, before or at use.

The public label maps of ReLabel were read transposed for years: square maps hide it, and the labels look plausible.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import Refused, UnknownName, UsageError
from ..labels.contract import LabelContract
from ..labels.label_map import LabelMap

AXES = {"ids": ("y", "x", "k"), "scores": ("y", "x", "k"), "residual": ("y", "x")}


def check_poolable(names: Sequence[str], contracts: Mapping[str, LabelContract]) -> None:
    """Raises UnknownName for a label that is not wanted or does not exist, Refused for one that cannot be pooled from
    crops of the whole image.
    """
    orientations = {}
    for name in names:
        if name not in contracts:
            raise UnknownName("label", name, contracts, "Name a label map among the wanted columns, or pool=None.")
        check_label_map(contracts[name])
        orientations[name] = getattr(contracts[name].geometry, "orientation", None)
    if len(set(orientations.values())) > 1:
        raise Refused(
            f"the labels to be pooled lie in different orientations ({orientations}); one image cannot have both. Pool "
            "them by two datasets."
        )


def check_label_map(contract: LabelContract) -> None:
    """Raises Refused, naming what was expected and what the contract says."""
    if contract.kind != "label_map":
        raise Refused(
            f"the label {contract.name!r} is of kind {contract.kind!r}, expected label_map. Pool a label map; classes "
            "are read by relabel.soft_labels, captions by relabel.caption_mix."
        )
    for suffix, axes in AXES.items():
        _expect(contract, f"axes of {suffix}", contract.column(suffix).axes, axes)
    _expect(contract, "score domain", contract.score_domain, "logit")
    _expect(contract, "residual", contract.residual, "logsumexp_of_the_rest")
    geometry: Any = contract.geometry
    if geometry is None:
        raise Refused(
            f"the contract of {contract.name!r} does not say what part of the image was labelled. Label again."
        )
    _expect(contract, "resize", geometry.resize, "square")
    _expect(contract, "crop", geometry.crop, "none")
    _expect(contract, "box order", geometry.box_order, "y1, x1, y2, x2")
    if geometry.orientation != "stored":
        _expect(contract, "orientation", geometry.orientation, "exif")


def _expect(contract: LabelContract, what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise Refused(
            f"{what} of {contract.name!r}: expected {expected!r}, the contract says {found!r}. What is read from it "
            "would be another part of the image, or no probability. Label again, or upgrade relabel."
        )


def check_image(label_map: Any, name: str, height: int, width: int) -> None:
    """Raises Refused where an image of so many pixels is not the labelled image, nor the same one at another size:
    then it was cropped, padded or turned since. UsageError where there is no label map.
    """
    if not isinstance(label_map, LabelMap):
        raise UsageError(
            f"sample[{name!r}] is expected to be a label map, got {type(label_map).__name__}. Want the label "
            f"{name!r} as a column; a label is pooled once."
        )
    if abs(width * label_map.height - height * label_map.width) > label_map.height + label_map.width:
        raise Refused(
            f"{name!r} was made of an image of {label_map.width} x {label_map.height} pixels, this one has "
            f"{width} x {height}: it was cropped, padded or turned since, and a label map cannot be read by it. Give "
            "the crop the image as it was labelled (the dataset applies the contract's orientation)."
        )
