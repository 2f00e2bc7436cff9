"""Data URLs: images as a service takes them, inside a request."""

import base64
import io
from typing import Literal

import numpy as np

from .protocol import Image

ImageFormat = Literal["jpeg", "png"]


def data_url(image: Image, image_format: ImageFormat, jpeg_quality: int) -> str:
    """`data:image/jpeg;base64,...`"""
    data = _jpeg(image, jpeg_quality) if image_format == "jpeg" else _png(image)
    return f"data:image/{image_format};base64,{base64.b64encode(data).decode()}"


def _jpeg(image: Image, quality: int) -> bytes:
    import simplejpeg

    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling="444"))


def _png(image: Image) -> bytes:
    import PIL.Image

    sink = io.BytesIO()
    PIL.Image.fromarray(image).save(sink, "PNG", compress_level=1)
    return sink.getvalue()
