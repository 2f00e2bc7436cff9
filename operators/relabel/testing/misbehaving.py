"""Misbehaving: a labeler of texts that say what is to go wrong at them, for proving that a run survives it.

In a recipe: `plugins: [relabel.testing.misbehaving]`, `steps: [misbehaving]`; samples are members `KEY.txt` that hold
one of the words below, after `prepare ` where it is to happen there and after `once FILE ` where it is to happen only
until FILE exists; `need FILE` raises until FILE exists. Any other text is labelled with its length.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..labelers.labeler import Batch, Fields, Labeler, Labels, Parameters, Prepared
from ..labelers.registry import register
from ..labels.contract import LabelContract
from ..labels.kinds import scores

FOREVER_SECONDS = 3600.0


class AcceleratorError(RuntimeError):
    """As torch names what a broken accelerator raises."""


def fail() -> None:
    raise ValueError("told to raise")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    time.sleep(FOREVER_SECONDS)


def hang_locked() -> None:
    """Without ever letting go of the interpreter lock."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def break_device() -> None:
    raise AcceleratorError("CUDA error: device-side assert triggered")


def fill_memory() -> None:
    raise MemoryError


WORDS: Mapping[str, Callable[[], object]] = {
    "raise": fail,
    "kill": kill,
    "leave": lambda: sys.exit(0),
    "quit": lambda: os._exit(0),
    "hang": hang,
    "hang-locked": hang_locked,
    "break-device": break_device,
    "fill-memory": fill_memory,
}


def obey(text: str) -> None:
    """Do what a text says."""
    words = text.split()
    if words[:1] == ["once"]:
        try:
            Path(words[1]).touch(exist_ok=False)
        except FileExistsError:
            return
        words = words[2:]
    if words[:1] == ["need"]:
        Path(words[1]).read_bytes()
    if words and words[0] in WORDS:
        WORDS[words[0]]()


@register
class Misbehaving(Labeler[Parameters]):
    """The length of a text, unless the text is a word of mischief."""

    name, version = "misbehaving", 1
    needs = ("txt",)
    max_batches = 4

    def writes(self) -> LabelContract:
        return scores(self.label, "length")

    def prepare(self, sample: Fields) -> Prepared:
        data = sample["txt"]
        text = data.decode() if isinstance(data, bytes) else str(data)
        if text.startswith("prepare "):
            obey(text.removeprefix("prepare "))
        return {"text": np.array(text)}

    def __call__(self, batch: Batch) -> Labels:
        texts = [str(text) for text in batch["text"]]
        for text in texts:
            obey(text)
        return self.columns(length=np.array([len(text) for text in texts], np.float32))
