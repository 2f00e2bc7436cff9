"""Brightness: the mean and the spread of an image's grey values, from 0 (black) to 1 (white)."""

import numpy as np
from pydantic import Field

from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, register, scores
from relabel.labelers.images import square_image


class BrightnessParameters(Parameters):
    size: int = Field(default=64, ge=1)
    """Pixels of the square that images are stretched to before they are measured."""


@register
class Brightness(Labeler[BrightnessParameters]):
    """How light an image is, and how much that varies."""

    name, version = "brightness", 1

    def writes(self) -> LabelContract:
        return scores(self.label, "mean", "spread")

    def prepare(self, sample: Fields) -> Prepared:
        return {"image": square_image(sample, self.parameters.size)}

    def __call__(self, batch: Batch) -> Labels:
        grey = np.asarray(batch["image"]).mean(axis=3) / 255
        return self.columns(mean=grey.mean(axis=(1, 2)), spread=grey.std(axis=(1, 2)))
