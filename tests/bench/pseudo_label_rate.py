"""Pseudo-label rate: topics of BBC's articles by SmolLM2: how many are right, raw and with the labels' means taken off,
and documents per CPU second of the labeler against a bare loop with the same scoring, and against one that computes the
prompt anew for every label.

One thread, one model, prompts of one corpus in batches of one size. The bare loop pads every batch to its longest
prompt. The labeler gathers prompts of one padded length, so it labels all of them in one pass, and its last batches,
filled up with copies, count; the other loops label the first of them. Means need no gold labels.
"""

import copy
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from engine_rate import make_model
from measure import report, talk

from pipelines.articles import TOPICS, Article, articles
from pipelines.loading import load
from relabel.labelers.engines.transformers_engine import TransformersConfig
from relabel.labelers.pseudo_label import PseudoLabelLabeler, PseudoLabelParameters

ROWS = 8
PROMPT = load("pseudo_label").steps[0].parameters["prompts"][0]
DOCUMENTS = int(os.environ.get("DOCUMENTS", "300"))
TIMED = int(os.environ.get("TIMED", "64"))
"""Documents that the bare loop labels; a quarter of them the one without prefix."""
TEXT_TOKENS = int(os.environ.get("TEXT_TOKENS", "64"))
TARGET = 0.95
LEAST, GAIN = 0.72, 0.08
"""Centred accuracy, and how far above the raw one it must lie."""


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    name = make_model(folder)
    labeler = loaded(folder)
    found = articles(DOCUMENTS)
    batch = batch_of(labeler, found)
    begun = time.process_time()
    labels = labeler(batch)
    ours = len(found) / (time.process_time() - begun)
    likelihood = np.asarray(labels["pseudo_label_log_likelihood"], np.float64)[:, 0]
    if not name.startswith("random"):
        accuracy(name, found, likelihood, np.asarray(labels["pseudo_label_ids"]))
    rate(name, labeler, Bare(folder), batch, likelihood, ours)
    labeler.close()


def loaded(folder: Path) -> PseudoLabelLabeler:
    """With the prompt of the recipe."""
    engine = TransformersConfig(model=str(folder))
    parameters = PseudoLabelParameters(engine=engine, labels=TOPICS, prompts=(PROMPT,), text_tokens=TEXT_TOKENS)
    labeler = PseudoLabelLabeler(parameters)
    labeler.compute_batch = ROWS
    labeler.facts = labeler.inspect()
    labeler.load("cpu")
    return labeler


def accuracy(name: str, found: Sequence[Article], likelihood: np.ndarray, ids: np.ndarray) -> None:
    gold = np.array([TOPICS.index(article.topic) for article in found])
    logs = likelihood - np.logaddexp.reduce(likelihood, axis=1, keepdims=True)
    raw = float((logs.argmax(1) == gold).mean())
    centred = float(((logs - logs.mean(0)).argmax(1) == gold).mean())
    invalid = int((np.sort(ids, axis=1) != np.arange(len(TOPICS))).any(1).sum())
    what = f"{name}, {len(found)} articles, {TEXT_TOKENS} tokens of each"
    report(f"{what}: right", raw, "of them")
    report(f"{what}: right, every label's mean taken off", centred, "of them", f"raw {raw:.3f}",
           f"+{centred - raw:.3f}", f">= {LEAST} and raw + {GAIN}", centred >= max(LEAST, raw + GAIN))  # fmt: skip
    report(f"{what}: invalid labels", invalid, "rows", target="0", met=invalid == 0)


def rate(
    name: str, labeler: PseudoLabelLabeler, bare: "Bare", batch: dict[str, np.ndarray], likelihood: np.ndarray,
    ours: float,
) -> None:  # fmt: skip
    cells = [{key: values[row] for key, values in batch.items()} for row in range(TIMED)]
    prompts = [str(labeler.request(each, 0).prompt) for each in cells]
    texts = [f" {topic}\n" for topic in TOPICS]
    loops = {"prefix once": (bare.with_prefix, prompts), "no prefix": (bare.without_prefix, prompts[: TIMED // 4])}
    theirs, off = {}, 0.0
    for loop, (call, asked) in loops.items():
        begun = time.process_time()
        given = np.array(call(asked, texts))
        theirs[loop] = len(asked) / (time.process_time() - begun)
        off = max(off, float(np.abs(likelihood[: len(asked)] - given).max()))
        talk(f"{loop}: {theirs[loop]:.2f}, labeler {ours:.2f} documents/CPU s")
    spent = labeler.engine.spent()
    filled = int(spent["requests"]) / int(spent["batch_rows"])
    report(f"{name}: log-likelihoods of the loops differ by at most", off, "", target="< 0.01", met=off < 0.01)
    ratio = ours / theirs["prefix once"]
    report(f"{name}: labeler", ours, "documents/CPU s", f"bare loop {theirs['prefix once']:.2f}", f"{ratio:.3f}",
           f">= {TARGET}", ratio >= TARGET)  # fmt: skip
    report(f"{name}: labeler", ours, "documents/CPU s", f"prompt anew for every label {theirs['no prefix']:.2f}",
           f"{ours / theirs['no prefix']:.3f}")  # fmt: skip
    report(f"{name}: rows that were documents, the rest filled last batches", filled, "of them")


def batch_of(labeler: PseudoLabelLabeler, found: Sequence[Article]) -> dict[str, np.ndarray]:
    prepared = [labeler.prepare({"text": article.text, "__key__": article.key}) for article in found]
    return {name: np.array([each[name] for each in prepared]) for name in prepared[0]}


class Bare:
    """What one would write without this library."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def with_prefix(self, prompts: Sequence[str], texts: Sequence[str]) -> list[list[float]]:
        scores: list[list[float]] = []
        tokens = [self.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids for text in texts]
        for start in range(0, len(prompts), ROWS):
            inputs = self.tokenizer(list(prompts[start : start + ROWS]), padding=True, return_tensors="pt")
            mask = inputs["attention_mask"]
            places = (mask.cumsum(1) - 1).clamp(min=0)
            output = self.model(**inputs, position_ids=places, use_cache=True, logits_to_keep=1)
            first, rows = output.logits[:, -1].log_softmax(-1), []
            for ids in tokens:
                total = first[:, ids[0, 0]]
                if ids.shape[1] > 1:
                    rest = ids[:, :-1].expand(len(mask), -1)
                    after = places[:, -1:] + torch.arange(1, rest.shape[1] + 1)
                    logs = self.model(
                        input_ids=rest, attention_mask=torch.cat([mask, torch.ones_like(rest)], 1), position_ids=after,
                        past_key_values=copy.deepcopy(output.past_key_values),
                    ).logits.log_softmax(-1)  # fmt: skip
                    total = total + logs.gather(2, ids[:, 1:].expand(len(mask), -1)[..., None])[..., 0].sum(1)
                rows.append(total)
            scores += torch.stack(rows, 1).tolist()
        return scores

    @torch.inference_mode()
    def without_prefix(self, prompts: Sequence[str], texts: Sequence[str]) -> list[list[float]]:
        scores: list[list[float]] = []
        for start in range(0, len(prompts), ROWS):
            columns = []
            for text in texts:
                size = len(self.tokenizer(text, add_special_tokens=False).input_ids)
                whole = [prompt + text for prompt in prompts[start : start + ROWS]]
                inputs = self.tokenizer(whole, padding=True, return_tensors="pt")
                places = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
                logs = self.model(**inputs, position_ids=places, logits_to_keep=size + 1).logits.log_softmax(-1)
                wanted = inputs["input_ids"][:, -size:, None]
                columns.append(logs[:, :-1].gather(2, wanted)[..., 0].sum(1))
            scores += torch.stack(columns, 1).tolist()
        return scores


if __name__ == "__main__":
    main(Path(sys.argv[1]))
