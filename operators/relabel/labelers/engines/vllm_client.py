"""vLLM client: requests into vLLM's async engine, which batches them by itself, and its answers out of it.

The engine runs in a process of its own, under the actor's. When it dies, every open request raises DeviceFailed, and
the actor leaves.
"""

import dataclasses
import importlib
import itertools
import os
import re
import time
from typing import Any

from ...digests import Json
from ...errors import BadSample, DeviceFailed, UsageError
from ...reasons import Reason
from .model_files import ModelFolder
from .protocol import Engine, FinishReason, Message, Reply, Request
from .spending import Spending, Spent
from .vllm_engine import SPEED, VllmConfig

FINISHED: dict[str, FinishReason] = {"stop": "stop", "length": "length", "repetition": "other"}
TOO_LONG = re.compile(
    r"maximum (model|input|context) length|max_model_len|context length|longer than|input tokens", re.IGNORECASE
)
ADVICE = (
    "`kind: vllm` needs vLLM, got: {error}. Install it on machines with GPUs: pip install 'relabel-ray[vllm]' "
    "--constraint constraints-vllm.txt"
)


class Vllm(Engine):
    """One AsyncLLM over the GPUs that this process sees."""

    in_process = True
    reproducible = False

    def __init__(self, config: VllmConfig, folder: ModelFolder) -> None:
        self.config = config
        try:
            self._vllm = importlib.import_module("vllm")
            self._params = importlib.import_module("vllm.sampling_params")
            self._chat = importlib.import_module("vllm.renderers.params")
            self._failures = importlib.import_module("vllm.v1.engine.exceptions")
            arguments = importlib.import_module("vllm.engine.arg_utils").AsyncEngineArgs
            engine = importlib.import_module("vllm.v1.engine.async_llm").AsyncLLM
            refusals = importlib.import_module("vllm.exceptions")
        except ImportError as error:
            raise UsageError(ADVICE.format(error=error)) from error
        self._refusals = (ValueError, getattr(refusals, "VLLMClientError", ValueError))
        self._gpus = visible_gpus()
        self._llm = engine.from_engine_args(arguments(model=str(folder.path), **self._arguments()))
        self._spending = Spending()
        self._numbers = itertools.count()

    def _arguments(self) -> dict[str, Any]:
        """All GPUs of the actor hold one model together; vLLM must not look for others through Ray."""
        spread = {"tensor_parallel_size": self._gpus, "distributed_executor_backend": "mp"} if self._gpus > 1 else {}
        return {"disable_log_stats": True, **spread, **self.config.engine_args}

    def numerics(self) -> dict[str, Json]:
        """With the arguments that are no part of the fingerprint."""
        import torch

        device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
        given = {name: value for name, value in self._arguments().items() if name in SPEED}
        return {"engine": f"vllm {self._vllm.__version__}", "device": device, "engine_args": given}

    def spent(self) -> Spent:
        return self._spending.to_json()

    async def close(self) -> None:
        self._llm.shutdown()

    async def generate(self, request: Request) -> Reply:
        begun = time.monotonic()
        self._spending.attempts += 1
        try:
            reply = self._reply(await self._ask(request), request)
        except self._failures.EngineDeadError as error:
            raise DeviceFailed(f"vLLM's engine died: {error}") from error
        except self._failures.EngineGenerateError as error:
            raise self._of_this_request(error.__cause__ or error) from error
        except self._refusals as error:
            raise self._of_this_request(error) from error
        self._spending.requests += 1
        self._spending.use(reply.prompt_tokens, reply.completion_tokens)
        return dataclasses.replace(reply, seconds=time.monotonic() - begun)

    async def _ask(self, request: Request) -> Any:
        """The last word on a request: vLLM's RequestOutput."""
        prompt, last = await self._prompt(request), None
        async for output in self._llm.generate(prompt, self._sampling(request), str(next(self._numbers))):
            last = output
        if last is None or not last.outputs or last.outputs[0].finish_reason == "abort":
            raise ValueError("vLLM broke off its answer")
        return last

    async def _prompt(self, request: Request) -> Any:
        """Text with its images; a chat goes through the model's template and vLLM's processor."""
        if not isinstance(request.prompt, str):
            chat = self._chat.ChatParams(chat_template_kwargs={"add_generation_prompt": True})
            _, [prompt] = await self._llm.renderer.render_chat_async([list(map(message_of, request.prompt))], chat)
            return prompt
        images = [pillow(image) for image in request.images]
        return {"prompt": request.prompt, **({"multi_modal_data": {"image": images}} if images else {})}

    def _sampling(self, request: Request) -> Any:
        decoding, held = request.decoding, None
        if request.schema is not None:
            held = self._params.StructuredOutputsParams(json=dict(request.schema))
        elif request.most > 1:
            raise UsageError("vLLM in process gives one of some choices, not several. Serve it: `kind: endpoint`.")
        elif request.choices is not None:
            held = self._params.StructuredOutputsParams(choice=list(request.choices))
        return self._params.SamplingParams(
            max_tokens=decoding.max_tokens,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            repetition_penalty=decoding.repetition_penalty,
            stop=list(decoding.stop) or None,
            seed=request.seed,
            logprobs=0 if self.config.ask_logprobs else None,  # of the token that was drawn, and no other
            structured_outputs=held,
            output_kind=self._params.RequestOutputKind.FINAL_ONLY,
        )

    def _reply(self, output: Any, request: Request) -> Reply:
        [answer] = output.outputs
        drawn = list(answer.token_ids)
        ended = answer.finish_reason == "stop" and not isinstance(answer.stop_reason, str)
        steps = answer.logprobs
        return Reply(
            text=answer.text,
            finish_reason=FINISHED.get(str(answer.finish_reason), "other"),
            prompt_tokens=len(output.prompt_token_ids or ()),
            completion_tokens=len(drawn),
            token_ids=tuple(drawn[:-1] if ended else drawn),
            logprobs=steps and tuple(step[token].logprob for token, step in zip(drawn, steps, strict=True)),
            chosen=(answer.text,) if answer.text in (request.choices or ()) else None,
        )

    def _of_this_request(self, error: BaseException) -> BadSample | DeviceFailed | UsageError:
        if self._llm.errored:
            return DeviceFailed(f"vLLM's engine died: {error}")
        if "ChatTemplateResolutionError" in {cls.__name__ for cls in type(error).__mro__}:
            return UsageError(
                f"{self.config.model} has no chat template ({error}). Give a model that was tuned for chat."
            )
        reason = Reason.PROMPT_TOO_LONG if TOO_LONG.search(str(error)) else Reason.ENGINE_ERROR
        return BadSample(reason, f"vLLM: {error or type(error).__name__}")


def message_of(message: Message) -> dict[str, Any]:
    if not message.images:
        return {"role": message.role, "content": message.text}
    images = [{"type": "image_pil", "image_pil": pillow(image)} for image in message.images]
    return {"role": message.role, "content": [*images, {"type": "text", "text": message.text}]}


def pillow(image: Any) -> Any:
    import PIL.Image

    return PIL.Image.fromarray(image)


def visible_gpus() -> int:
    """Of this process; Ray shows an actor those that it was lent."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is not None:
        return len([each for each in shown.split(",") if each.strip()])
    import torch

    return torch.cuda.device_count()
