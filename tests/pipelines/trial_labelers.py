"""Labelers whose labels are no pictures, for trials."""

import numpy as np

from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, classes, scores
from relabel.labelers.images import square_image

TONES = ("dark", "light")


class Lightness(Labeler[Parameters]):
    """How light an image is."""

    name, version = "lightness", 1

    def writes(self) -> LabelContract:
        return scores(self.label, "mean")

    def prepare(self, sample: Fields) -> Prepared:
        return {"image": square_image(sample, 32)}

    def __call__(self, batch: Batch) -> Labels:
        return self.columns(mean=np.asarray(batch["image"]).mean(axis=(1, 2, 3)) / 255)


class Tone(Lightness):
    """Light or dark, with a probability."""

    name = "tone"

    def class_names(self) -> tuple[str, ...]:
        return TONES

    def writes(self) -> LabelContract:
        return classes(self.label, TONES, top_k=2)

    def __call__(self, batch: Batch) -> Labels:
        light = np.asarray(batch["image"]).mean(axis=(1, 2, 3)) / 255
        both = np.stack([1 - light, light], axis=1).astype(np.float32)
        ids = np.argsort(-both, axis=1)
        return self.columns(ids=ids, scores=np.take_along_axis(both, ids, axis=1))
