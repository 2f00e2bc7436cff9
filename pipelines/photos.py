"""Photos: a sample's image at the size at which pictures show it."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from relabel.labelers.images import decode_image
from relabel.shards.shard import Sample
from relabel.shards.source import SourceConfig, pick

MOST_PIXELS = 512
"""Of a side: pictures show less, and drawing takes longer the larger an image is."""


def photo(config: SourceConfig, sample: Sample) -> UInt8[np.ndarray, "height width 3"]:
    """RGB as labelled (EXIF rotation applied), shrunk to MOST_PIXELS where larger."""
    media = pick(config, sample, "image")
    assert isinstance(media, bytes)
    image = Image.fromarray(decode_image(media))
    image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.BOX)
    return np.asarray(image)
