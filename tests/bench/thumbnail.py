"""Thumbnail: a labeler that decodes every photograph to 224 px and says how light it is; cheap, no torch."""

import numpy as np

from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, register, scores
from relabel.labelers.images import square_image

SIZE = 224


@register
class Thumbnail(Labeler[Parameters]):
    """The mean grey value of the image."""

    name, version = "thumbnail", 1

    def writes(self) -> LabelContract:
        return scores(self.label, "mean")

    def prepare(self, sample: Fields) -> Prepared:
        return {"image": square_image(sample, SIZE)}

    def __call__(self, batch: Batch) -> Labels:
        return self.columns(mean=np.asarray(batch["image"]).mean(axis=(1, 2, 3)))
