"""vLLM engine against an engine with vLLM's interface and no model: what it is asked, and what its answers become."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake_vllm
import numpy as np
import pydantic
import pytest

from relabel.errors import DETAIL_CHARACTERS, BadSample, DeviceFailed, Refused, UsageError
from relabel.labelers.engines.protocol import Decoding, Message, Reply, Request
from relabel.labelers.engines.vllm_engine import SPEED, VllmConfig
from relabel.reasons import Reason


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that could hold a model, on a machine with two GPUs and the stand-in for vLLM."""
    fake_vllm.install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("RELABEL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return str(folder)


def asked(model: str, requests: Sequence[Request], **config: Any) -> list[Any]:
    """What became of requests that are asked at once; the engine is the last of `AsyncLLM.made`."""

    async def all_of_them() -> list[Any]:
        choice = VllmConfig(model=model, **config)
        engine = choice.open(choice.inspect(), "cuda", compute_batch=8, threads=1)
        found = await asyncio.gather(*map(engine.generate, requests), return_exceptions=True)
        await engine.close()
        return [*found, engine.spent()]

    *found, _ = asyncio.run(all_of_them())
    return list(found)


def plain(text: str, **decoding: Any) -> Request:
    return Request(prompt=text, decoding=Decoding(**decoding), seed=7)


def engine() -> fake_vllm.AsyncLLM:
    return fake_vllm.AsyncLLM.made[-1]


def test_an_answer_with_all_that_vllm_tells(model: str) -> None:
    [reply, cut] = asked(model, [plain("one three"), plain("one three", max_tokens=2)], ask_logprobs=True)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish_reason, reply.token_ids) == ("ONE THREE", "stop", (3, 5))
    assert reply.logprobs == (-1.5, -2.5, 0.0), "the end token has one, too"
    assert (reply.prompt_tokens, reply.completion_tokens) == (2, 3)
    assert (cut.text, cut.finish_reason, cut.token_ids, cut.logprobs) == ("ONE THREE", "length", (3, 5), (-1.5, -2.5))
    assert engine().ended


def test_what_vllm_is_asked(model: str) -> None:
    decoding = {"max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "repetition_penalty": 1.5}
    schema, choices = {"type": "object"}, ("yes", "no")
    asked(
        model,
        [
            Request(prompt="a", decoding=Decoding(**decoding, stop=("x",)), seed=11, schema=schema),
            Request(prompt="a", decoding=Decoding(), choices=choices),
        ],
    )
    [(prompt, params, one), (_, other, two)] = engine().asked
    assert prompt == {"prompt": "a"}
    assert {name: getattr(params, name) for name in decoding} == decoding
    assert (params.stop, params.seed, params.logprobs) == (["x"], 11, None)
    assert params.output_kind is fake_vllm.RequestOutputKind.FINAL_ONLY
    assert params.structured_outputs.json == schema
    assert other.structured_outputs.choice == ["yes", "no"]
    assert one != two


def test_images_come_before_the_text_of_their_message(model: str) -> None:
    image = np.full((4, 6, 3), 9, np.uint8)
    chat = Request(prompt=(Message("system", "brief"), Message("user", "say", (image,))), decoding=Decoding())
    [reply, _] = asked(model, [chat, Request(prompt="<image> say", decoding=Decoding(), images=(image,))])
    assert reply.text == "BRIEF SAY"
    for prompt, _, _ in engine().asked:
        [picture] = prompt["multi_modal_data"]["image"]
        assert np.array_equal(np.asarray(picture), image)


def test_all_gpus_of_the_actor_hold_one_model(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(model, [], engine_args={"gpu_memory_utilization": 0.5})
    args = engine().args.__dict__
    assert args == {
        "model": model, "disable_log_stats": True, "tensor_parallel_size": 2, "distributed_executor_backend": "mp",
        "gpu_memory_utilization": 0.5,
    }  # fmt: skip
    asked(model, [], engine_args={"tensor_parallel_size": 1})
    assert engine().args.tensor_parallel_size == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    asked(model, [])
    assert "tensor_parallel_size" not in engine().args.__dict__


def test_a_request_fails_alone(model: str) -> None:
    outcomes = asked(model, [plain(word) for word in ("fine", "too-long", "refuse", "fail", "good")])
    assert [outcome.text for outcome in (outcomes[0], outcomes[4])] == ["FINE", "GOOD"]
    reasons = [outcome.reason for outcome in outcomes[1:4] if isinstance(outcome, BadSample)]
    assert reasons == [Reason.PROMPT_TOO_LONG, Reason.ENGINE_ERROR, Reason.ENGINE_ERROR]
    assert "a kernel did not like it" in outcomes[3].detail


def test_what_vllm_says_of_a_request_is_cut(model: str) -> None:
    [outcome] = asked(model, [plain("ramble")])
    assert isinstance(outcome, BadSample)
    assert outcome.detail.startswith("vLLM: not like this.")
    assert len(outcome.detail) == DETAIL_CHARACTERS


def test_when_the_engine_dies_every_open_request_says_so(model: str) -> None:
    outcomes = asked(model, [plain("wait:20 slow"), plain("wait:20 slow"), plain("wait:0.05 die now"), plain("quick")])
    assert [type(outcome) for outcome in outcomes] == [DeviceFailed, DeviceFailed, DeviceFailed, Reply]


def test_requests_are_open_together(model: str) -> None:
    asked(model, [plain("wait:0.05 x") for _ in range(40)])
    assert engine().peak == 40


def test_who_is_no_longer_waited_for_is_taken_out_of_the_engine(model: str) -> None:
    async def give_up() -> None:
        config = VllmConfig(model=model)
        opened = config.open(config.inspect(), "cuda", compute_batch=8, threads=1)
        task = asyncio.ensure_future(opened.generate(plain("wait:20 slow")))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(give_up())
    assert engine().aborted == ["0"]


def test_a_model_without_a_chat_template_ends_the_run(model: str) -> None:
    [outcome] = asked(model, [Request(prompt=(Message("user", "no template"),), decoding=Decoding())])
    assert isinstance(outcome, UsageError)
    assert "no chat template" in str(outcome)


def test_without_vllm_or_a_gpu_it_says_what_to_do(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = VllmConfig(model=model)
    facts = config.inspect()
    with pytest.raises(UsageError, match=r"resources\.gpus"):
        config.open(facts, "cpu", compute_batch=8, threads=1)
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match="constraints-vllm.txt"):
        config.open(facts, "cuda", compute_batch=8, threads=1)


def test_weights_that_changed_since_the_plan_are_refused(model: str) -> None:
    config = VllmConfig(model=model)
    facts = config.inspect()
    (Path(model) / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(Refused, match="holds other bytes"):
        config.open(facts, "cuda", compute_batch=8, threads=1)


@pytest.mark.parametrize(
    "name",
    [
        "dtype", "quantization", "max_model_len", "seed", "mm_processor_kwargs", "brand_new", "load_format",
        "model_loader_extra_config", "worker_cls",
    ],
)  # fmt: skip
def test_arguments_that_change_labels_or_are_unknown_are_part_of_the_identity(name: str) -> None:
    assert VllmConfig(model="m", engine_args={name: 1}).identity() != VllmConfig(model="m").identity()


@pytest.mark.parametrize("name", ["gpu_memory_utilization", "max_num_seqs", "tensor_parallel_size", "enforce_eager"])
def test_arguments_of_speed_are_not_and_are_told_as_numerics(model: str, name: str) -> None:
    given = VllmConfig(model=model, engine_args={name: 1}, at_once=3)
    assert given.identity() == VllmConfig(model="elsewhere").identity()
    assert name in SPEED


def test_numerics_name_version_and_arguments(model: str) -> None:
    config = VllmConfig(model=model)
    opened = config.open(config.inspect(), "cuda", compute_batch=8, threads=1)
    numerics = opened.numerics()
    assert numerics["engine"] == "vllm 0.33.0"
    assert numerics["engine_args"]["tensor_parallel_size"] == 2
    assert not opened.reproducible
    assert opened.in_process


def test_what_names_the_model_is_no_engine_argument() -> None:
    with pytest.raises(pydantic.ValidationError, match="must not name revision"):
        VllmConfig(model="m", engine_args={"revision": "x"})


def test_a_token_of_the_hub_is_no_engine_argument() -> None:
    with pytest.raises(pydantic.ValidationError, match="HF_TOKEN"):
        VllmConfig(model="m", engine_args={"hf_token": "x"})
