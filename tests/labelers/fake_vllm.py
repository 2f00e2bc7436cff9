"""A stand-in for vLLM: its modules, its names, its asynchronous engine, and no model. What its engine is asked is kept.

As in vLLM 0.33: `AsyncLLM.from_engine_args`, `generate` (an asynchronous generator of RequestOutput), `renderer`,
`errored`, `shutdown`; EngineDeadError reaches every open request.
"""

import asyncio
import dataclasses
import enum
import sys
import types
from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import pytest


class EngineDeadError(Exception):
    """The engine's process ended."""


class EngineGenerateError(Exception):
    """A request failed."""


class VLLMClientError(Exception):
    """A request is wrong."""


class VLLMValidationError(VLLMClientError, ValueError):
    """A request's fields are wrong."""


class ChatTemplateResolutionError(ValueError):
    """The model has no chat template."""


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


class Record:
    """Takes the keywords that it is made with, if vLLM's class has them."""

    names: tuple[str, ...] = ()

    def __init__(self, **fields: Any) -> None:
        assert set(fields) <= set(self.names), fields
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        """What was not given; and what type checkers do not know of."""
        raise AttributeError(name)


class SamplingParams(Record):
    names = ("max_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "stop", "seed", "logprobs",
             "structured_outputs", "output_kind")  # fmt: skip


class StructuredOutputsParams(Record):
    names = ("json", "choice")


class ChatParams(Record):
    names = ("chat_template_kwargs",)


class AsyncEngineArgs(Record):
    names = ("model", "dtype", "max_model_len", "gpu_memory_utilization", "tensor_parallel_size",
             "distributed_executor_backend", "disable_log_stats")  # fmt: skip


@dataclasses.dataclass
class Logprob:
    logprob: float


@dataclasses.dataclass
class CompletionOutput:
    text: str
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None
    stop_reason: int | str | None = None


@dataclasses.dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]


class Renderer:
    """Chats become prompts; a model without a template says so."""

    async def render_chat_async(self, chats: list[list[dict[str, Any]]], params: Any) -> Any:
        assert params.chat_template_kwargs == {"add_generation_prompt": True}
        said = [part for turn in chats[0] for part in parts_of(turn["content"])]
        if any(part.get("text") == "no template" for part in said):
            raise ChatTemplateResolutionError("no chat template")
        images = [part["image_pil"] for part in said if part["type"] == "image_pil"]
        text = " ".join(part["text"] for part in said if part["type"] == "text")
        return chats, [{"type": "token", "prompt": text, "multi_modal_data": {"image": images} if images else {}}]


def parts_of(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class AsyncLLM:
    """Answers with the prompt in capitals, one token a word, after `wait:SECONDS`."""

    made: ClassVar[list["AsyncLLM"]] = []

    def __init__(self, args: AsyncEngineArgs) -> None:
        self.args, self.renderer, self.errored, self.ended = args, Renderer(), False, False
        self.asked: list[tuple[Any, SamplingParams, str]] = []
        self.aborted: list[str] = []
        self.open = self.peak = 0
        self._died = asyncio.Event()
        AsyncLLM.made.append(self)

    @classmethod
    def from_engine_args(cls, args: AsyncEngineArgs) -> "AsyncLLM":
        return cls(args)

    async def generate(
        self, prompt: Any, sampling_params: SamplingParams, request_id: str
    ) -> AsyncGenerator[RequestOutput, None]:
        if self.errored:
            raise EngineDeadError("EngineCore encountered an issue")
        self.asked.append((prompt, sampling_params, request_id))
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            words = [word for word in prompt["prompt"].split() if not await self._done(word)]
        except asyncio.CancelledError:
            self.aborted.append(request_id)
            raise
        finally:
            self.open -= 1
        yield answer(words, sampling_params)

    async def _done(self, word: str) -> bool:
        if word == "die":
            self.errored = True
            self._died.set()
        elif word == "too-long":
            raise VLLMValidationError("the model's context length is only 8 tokens")
        elif word == "refuse":
            raise VLLMClientError("not like this")
        elif word == "ramble":
            raise VLLMClientError("not like this. " * 10_000)
        elif word == "fail":
            raise EngineGenerateError from RuntimeError("a kernel did not like it")
        seconds = float(word.removeprefix("wait:")) if word.startswith("wait:") else 0.0
        try:
            await asyncio.wait_for(self._died.wait(), seconds + 0.001)
        except TimeoutError:
            return word.startswith("wait:")
        raise EngineDeadError("EngineCore encountered an issue")

    def shutdown(self) -> None:
        self.ended = True


def answer(words: list[str], params: SamplingParams) -> RequestOutput:
    """The end token is 0, given where there is room."""
    cut = len(words) >= params.max_tokens
    said = words[: params.max_tokens]
    tokens = [len(word) for word in said] + ([] if cut else [0])
    steps = [{token: Logprob(-0.5 * token), 99: Logprob(-9.0)} for token in tokens]
    finish, kept = ("length" if cut else "stop"), (steps if params.logprobs is not None else None)
    output = CompletionOutput(" ".join(said).upper(), tokens, kept, finish)
    return RequestOutput(list(range(len(words))), [output])


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the modules where an import finds them."""
    contents: dict[str, dict[str, Any]] = {
        "vllm": {"__version__": "0.33.0", "__path__": []},
        "vllm.engine": {"__path__": []},
        "vllm.engine.arg_utils": {"AsyncEngineArgs": AsyncEngineArgs},
        "vllm.exceptions": {"VLLMClientError": VLLMClientError},
        "vllm.renderers": {"__path__": []},
        "vllm.renderers.params": {"ChatParams": ChatParams},
        "vllm.sampling_params": {
            "SamplingParams": SamplingParams,
            "StructuredOutputsParams": StructuredOutputsParams,
            "RequestOutputKind": RequestOutputKind,
        },
        "vllm.v1": {"__path__": []},
        "vllm.v1.engine": {"__path__": []},
        "vllm.v1.engine.async_llm": {"AsyncLLM": AsyncLLM},
        "vllm.v1.engine.exceptions": {
            "EngineDeadError": EngineDeadError,
            "EngineGenerateError": EngineGenerateError,
        },
    }
    for name, entries in contents.items():
        module = types.ModuleType(name)
        module.__dict__.update(entries)
        monkeypatch.setitem(sys.modules, name, module)
    AsyncLLM.made.clear()
