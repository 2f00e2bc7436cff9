"""Captioned: labelers with the scripted engine, loaded, and images of one colour, for tests of captions."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from relabel.labelers.caption_writer import CaptionWriter
from relabel.labelers.engines.protocol import Request
from relabel.labels.caption import Caption, caption_contract, decode_row
from relabel.labels.shard_file import label_columns
from relabel.testing.captioner import (
    ColourNamer,
    ScriptedCaptioner,
    ScriptedCaptionParameters,
    ScriptedFuseParameters,
    ScriptedFuser,
)

RED, BLUE = (200, 30, 30), (30, 60, 200)
QUOTING = {"short": {"prompt": 'Say it. {% if old %}It was "{{ old }}".{% endif %}'}}
"""A style whose prompt holds the old caption, so that it can make the engine misbehave."""


def png(colour: tuple[int, int, int] = RED, height: int = 40, width: int = 60) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), colour, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def captioner(**parameters: Any) -> ScriptedCaptioner:
    """With its facts, not loaded."""
    labeler = ScriptedCaptioner(ScriptedCaptionParameters(**parameters), "caption")
    labeler.facts = labeler.inspect()
    return labeler


def fuser(**parameters: Any) -> ScriptedFuser:
    """Of the style `short` of a label `caption`."""
    labeler = ScriptedFuser(ScriptedFuseParameters(**parameters), "fused")
    labeler.inputs = {"caption": caption_contract("caption", ["short"], logprobs=True, reproducible=True, old=False)}
    labeler.read_fingerprints = {"caption": "f" * 64}
    labeler.facts = labeler.inspect()
    return labeler


@contextlib.contextmanager
def loaded(labeler: CaptionWriter[Any]) -> Iterator[CaptionWriter[Any]]:
    labeler.load("cpu")
    try:
        yield labeler
    finally:
        labeler.close()


def caption_of(labeler: CaptionWriter[Any], **sample: Any) -> Caption:
    """The labels of one sample, as a release would give them; `labeler` is loaded. Labels that it reads are given."""
    fields = {"__key__": "k", "image": png(), **sample}
    batch = {name: np.array([array]) for name, array in labeler.prepare(fields).items()}
    batch |= {name: np.array([value]) for name, value in sample.items() if name.startswith("caption_")}
    [row] = label_columns(labeler.writes(), labeler(batch), 1).to_pylist()
    caption = decode_row(labeler.writes(), row)
    assert isinstance(caption, Caption)
    return caption


def asked(labeler: CaptionWriter[Any]) -> list[Request]:
    """What the engine was asked so far."""
    assert isinstance(labeler.engine, ColourNamer)
    return labeler.engine.asked


def prompt_of(request: Request) -> str:
    """The last turn's text."""
    return request.prompt if isinstance(request.prompt, str) else request.prompt[-1].text
