"""Models for engines: where they come from, what is known of them, and what is said where they cannot be had."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from small_language_models import save_captioner, save_llama, save_llava, tokenizer

from relabel.errors import Refused, UsageError
from relabel.labelers.engines import transformers_model
from relabel.labelers.engines.protocol import Decoding, Message, Request
from relabel.labelers.engines.transformers_engine import TransformersConfig


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"))


def config(model: Path | str, **fields: Any) -> TransformersConfig:
    return TransformersConfig(model=str(model), **fields)


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_facts_are_what_decides_an_answer(llama: Path, tmp_path: Path) -> None:
    facts = config(llama).inspect()
    assert facts["family"] == "causal"
    assert facts["revision"] is None
    assert config(copied(llama, tmp_path / "same")).inspect() == facts
    changed = copied(llama, tmp_path / "template")
    (changed / "chat_template.jinja").write_text("{{ messages[0].content }},")
    other = config(changed).inspect()
    assert {name for name in facts if facts[name] != other[name]} == {"chat_template", "text"}
    edit(copied(llama, tmp_path / "rope") / "config.json", rms_norm_eps=1e-3)
    other = config(tmp_path / "rope").inspect()
    assert {name for name in facts if facts[name] != other[name]} == {"architecture"}
    other = config(save_llama(tmp_path / "other", seed=1)).inspect()
    assert {name for name in facts if facts[name] != other[name]} == {"weights"}
    edit(copied(llama, tmp_path / "saved") / "config.json", transformers_version="5.99")
    assert config(tmp_path / "saved").inspect() == facts


def test_families_are_told_apart(tmp_path: Path) -> None:
    assert config(save_llava(tmp_path / "llava")).inspect()["family"] == "image_text"
    assert config(save_captioner(tmp_path / "ved")).inspect()["family"] == "captioner"


def test_identity_is_what_was_chosen_and_changes_answers(llama: Path) -> None:
    assert config(llama).identity() == {"kind": "transformers", "dtype": "fp32", "pad_to": 8}
    assert config(llama, at_once=200, exact=False).identity() == config("elsewhere").identity()
    assert config(llama, pad_to=4).identity() != config(llama).identity()


def test_files_that_are_not_those_of_the_plan_are_refused(llama: Path, tmp_path: Path) -> None:
    facts = config(llama).inspect()
    other = config(save_llama(tmp_path / "other", seed=1))
    with pytest.raises(Refused, match=r"weights of .* plan was made with"):
        other.open(facts, "cpu", compute_batch=2, threads=1)


def test_a_queue_that_is_too_short_is_refused(llama: Path) -> None:
    with pytest.raises(UsageError, match="Set it to 16 or more"):
        config(llama, at_once=10).open({}, "cpu", compute_batch=8, threads=1)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("hf:somebody/something@abc", "the hub did not give 'somebody/something'"),
        ("no/such/folder", "no folder"),
        ("no/such/file.gguf", "no file"),
        ("timm:resnet18", "must be a folder"),
    ],
)
def test_a_model_that_is_not_there(model: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        config(model).inspect()
    if not model.startswith("timm"):
        assert config(model).weight_files() == ()


def test_pickled_weights_and_code_are_not_loaded(llama: Path, tmp_path: Path) -> None:
    pickled = copied(llama, tmp_path / "pickled")
    torch.save({}, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="pickled weights"):
        config(pickled).inspect()
    foreign = copied(llama, tmp_path / "foreign")
    edit(foreign / "config.json", model_type="own_kind", auto_map={"AutoConfig": "mine.Config"})
    (foreign / "mine.py").write_text("raise SystemExit('was run')")
    with pytest.raises(Refused, match="does not load"):
        config(foreign).inspect()


def test_a_model_that_is_no_engine_or_not_whole_is_refused(llama: Path, tmp_path: Path) -> None:
    vit = transformers.ViTModel(transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    vit.save_pretrained(tmp_path / "vit")
    with pytest.raises(UsageError, match="knows as none of these"):
        config(tmp_path / "vit").inspect()
    deeper = copied(llama, tmp_path / "deeper")
    edit(deeper / "config.json", num_hidden_layers=3)
    with pytest.raises(Refused, match="do not fill the network"):
        config(deeper).open(config(deeper).inspect(), "cpu", compute_batch=2, threads=1)
    silent = copied(llama, tmp_path / "silent")
    for path in silent.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(Refused, match="does not load"):
        config(silent).inspect()


def test_a_processor_that_needs_torchvision_says_so(tmp_path: Path) -> None:
    folder = save_captioner(tmp_path / "ved")
    edit(folder / "preprocessor_config.json", image_processor_type="ViTImageProcessorFast")
    assert config(folder).inspect()["family"] == "captioner", "there is one that does without"
    for name in ("Sam2ImageProcessor", "Sam2ImageProcessorFast"):
        edit(folder / "preprocessor_config.json", image_processor_type=name)
        with pytest.raises(
            UsageError, match=r"needs torchvision, which is not installed here\. Run `pip install torch"
        ):
            config(folder).inspect()
    video = tmp_path / "smolvlm"
    transformers.SmolVLMConfig().save_pretrained(video)
    tokenizer().save_pretrained(video)
    (video / "model.safetensors").write_bytes(b"")
    (video / "preprocessor_config.json").write_text('{"image_processor_type": "SmolVLMImageProcessor"}')
    (video / "processor_config.json").write_text('{"processor_class": "SmolVLMProcessor"}')
    with pytest.raises(UsageError, match=r"needs (torchvision|num2words), which is not installed here\. Run `pip"):
        config(video).inspect()


def test_gguf_without_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_model.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(UsageError, match="pip install gguf accelerate"):
        config(tmp_path / "a.gguf").inspect()


def write_gguf(path: Path) -> None:
    """A random model of the family of Llama with a vocabulary of bytes."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    words = ["<unk>", "<s>", "</s>", *map(chr, range(33, 127)), "Ġ", "Ċ", "ab"]
    drawn, width, ahead = np.random.default_rng(0), 32, 64
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(ahead)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // 2)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3, 3, 3] + [1] * (len(words) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    shapes = {
        "token_embd": (len(words), width), "output": (len(words), width), "output_norm": (width,),
        "blk.0.attn_norm": (width,), "blk.0.ffn_norm": (width,), "blk.0.attn_q": (width, width),
        "blk.0.attn_k": (width, width), "blk.0.attn_v": (width, width), "blk.0.attn_output": (width, width),
        "blk.0.ffn_gate": (ahead, width), "blk.0.ffn_up": (ahead, width), "blk.0.ffn_down": (width, ahead),
    }  # fmt: skip
    for name, shape in shapes.items():
        values = drawn.standard_normal(shape) / 4 if len(shape) == 2 else np.ones(shape)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_answers(tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf")
    chosen = config(tmp_path / "small.gguf")
    facts = chosen.inspect()
    assert facts["family"] == "causal"
    assert [path.name for path in chosen.weight_files()] == ["small.gguf"]
    engine = chosen.open(facts, "cpu", compute_batch=2, threads=1)
    request = Request(prompt="hello", decoding=Decoding(max_tokens=5))

    async def ask() -> tuple[Any, Any]:
        reply, (scored,) = await engine.generate(request), await engine.score(request, ["b"])
        await engine.close()
        return reply, scored

    reply, scored = asyncio.run(ask())
    assert reply.completion_tokens >= 1
    assert scored.logprob < 0


def test_a_chat_without_a_template_is_its_one_message(tmp_path: Path) -> None:
    chosen = config(save_llama(tmp_path / "plain", template=None))
    engine = chosen.open(chosen.inspect(), "cpu", compute_batch=2, threads=1)

    async def both() -> list[Any]:
        decoding = Decoding(max_tokens=4)
        chat, plain = (
            Request(prompt=(Message("user", "a cat"),), decoding=decoding),
            Request(prompt="a cat", decoding=decoding),
        )
        replies = [await engine.generate(chat), await engine.generate(plain)]
        await engine.close()
        return [reply.token_ids for reply in replies]

    first, second = asyncio.run(both())
    assert first == second
