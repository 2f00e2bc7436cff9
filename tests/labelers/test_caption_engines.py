"""Captions by real engines: tiny random models of three architectures, loaded by transformers, say what they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from captioned import caption_of, loaded, png
from small_language_models import save_blip, save_captioner, save_llava

from relabel.labelers.caption import CaptionLabeler, CaptionParameters
from relabel.labelers.engines.transformers_engine import TransformersConfig
from relabel.labelers.guards import Guards
from relabel.labels.caption import Flag

FLAGGED = Guards.model_validate(dict.fromkeys(set(Guards.model_fields) - {"empty"}, "flag"))
"""Random models talk nonsense, which would be rejected."""


@pytest.mark.parametrize(
    ("save", "chat", "prompt"),
    [(save_llava, True, "a small dog"), (save_captioner, False, ""), (save_blip, False, "a")],
    ids=["llava", "vision-encoder-decoder", "blip"],
)
def test_a_captioner_of_transformers_writes_captions(
    save: Callable[[Path], Path], chat: bool, prompt: str, tmp_path: Path
) -> None:
    style: dict[str, Any] = {"prompt": prompt, "system": "", "max_tokens": 6}
    styles = {"short": style, "warm": {**style, "temperature": 2.0}}
    engine = TransformersConfig(model=str(save(tmp_path / "model")))
    parameters = CaptionParameters(engine=engine, styles=styles, chat=chat, guards=FLAGGED)
    labeler = CaptionLabeler(parameters, "caption")
    labeler.facts = labeler.inspect()
    assert labeler.writes().reproducible is True
    samples = [{"__key__": key, "image": png((40 * row, 90, 200), 30 + row)} for row, key in enumerate("abc")]
    with loaded(labeler):
        first = [caption_of(labeler, **sample) for sample in samples]
        again = [caption_of(labeler, **sample) for sample in reversed(samples)]
    assert again[::-1] == first
    assert len({caption["warm"].text for caption in first}) > 1, "each key draws its own words"
    for caption in first:
        text = caption["short"]
        assert text.text
        assert (text.mean_logprob or 0) < 0
        assert 1 <= text.num_tokens <= 6
        assert (text.finish_reason == "length") == (Flag.CUT in text.flags)
