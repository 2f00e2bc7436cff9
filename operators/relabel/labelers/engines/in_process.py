"""In process: the engine that runs a model of transformers, and accounts for every request that it takes."""

import asyncio
import concurrent.futures
import os
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch

from ...digests import Json
from ...errors import BadSample, DeviceFailed, DeviceFull, Refused, UsageError
from ...reasons import Reason
from ..failures import OWN_CODE_ERRORS, is_device_failure, is_out_of_memory
from ..inference import fix_kernels
from .answers import Answer
from .batches import Batches, Job
from .encoding import Prompt, encode, padded_length
from .generating import generate
from .proofs import prove_neighbours, prove_padding
from .protocol import Engine, Reply, Request, Scored
from .scoring import score
from .spending import Spent
from .transformers_engine import TransformersConfig
from .transformers_files import find_files
from .transformers_model import Model, load
from .tries import choices_of

GENERATE, SCORE = "generate", "score"
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pillow")


class InProcess(Engine):
    """One thread encodes prompts, one runs the network."""

    in_process = True

    def __init__(self, model: Model, config: TransformersConfig, compute_batch: int, reproducible: bool) -> None:
        self.model, self.config, self.rows, self.reproducible = model, config, compute_batch, reproducible
        self._encoder = concurrent.futures.ThreadPoolExecutor(1, "encoder")  # tokenizers are not thread-safe
        self._batches = Batches(self._run, compute_batch)
        self._spent = dict.fromkeys(("requests", "prompt_tokens", "completion_tokens", "batches", "batch_rows"), 0)

    async def generate(self, request: Request) -> Reply:
        if request.schema is not None:
            raise UsageError(
                "the transformers engine does not hold answers to a JSON schema. Use `choices`, or an endpoint or vLLM."
            )
        job: Job = await self._submitted(self._generation, request)
        reply: Reply = await asyncio.wrap_future(job.future)
        return reply

    async def score(self, request: Request, texts: Sequence[str]) -> list[Scored]:
        """Texts follow the prompt as their own tokens do, without special ones; their end is not scored."""
        job: Job = await self._submitted(self._scoring, request, tuple(texts))
        found: list[Scored] = await asyncio.wrap_future(job.future)
        return found

    async def _submitted(self, make: Any, *arguments: Any) -> Job:
        self._batches.expect(1)
        try:
            job: Job = await asyncio.get_running_loop().run_in_executor(self._encoder, make, *arguments)
            self._batches.submit(job)
        finally:
            self._batches.expect(-1)
        return job

    def _generation(self, request: Request) -> Job:
        prompt = encode(self.model.reading, request)
        most, tokenizer, end_ids = request.decoding.max_tokens, self.model.reading.tokenizer, self.model.end_ids
        self._require_room(prompt, most)
        choices = None if request.choices is None else choices_of(request, tokenizer, end_ids)
        answer = Answer(request, prompt.ids, tokenizer, end_ids, choices)
        return Job((GENERATE, self._length(prompt), prompt.shape, most), (prompt, answer))

    def _scoring(self, request: Request, texts: Sequence[str]) -> Job:
        prompt = encode(self.model.reading, request)
        tokenizer = self.model.reading.tokenizer
        ids = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        self._require_room(prompt, max(map(len, ids), default=0))
        return Job((SCORE, self._length(prompt), prompt.shape, tuple(map(len, ids))), (prompt, ids))

    def _length(self, prompt: Prompt) -> int:
        return padded_length(self.model, len(prompt.ids), self.config.pad_to)

    def _require_room(self, prompt: Prompt, most: int) -> None:
        if len(prompt.ids) + most > self.model.context:
            raise BadSample(
                Reason.PROMPT_TOO_LONG,
                f"the prompt has {len(prompt.ids)} tokens; with {most} of an answer at most {self.model.context} fit",
            )

    def _run(self, jobs: Sequence[Job]) -> None:
        """Settles every job's future; where a batch raises, each of its requests is tried alone."""
        try:
            self._compute(jobs)
        except OWN_CODE_ERRORS as error:
            lost = _lost(error)
            if lost is not None:
                self._batches.lose(lost)
                return
            open_jobs = [job for job in jobs if not job.future.done()]
            if len(jobs) == 1:
                for job in open_jobs:
                    first = str(error).partition("\n")[0]
                    job.future.set_exception(BadSample(Reason.ENGINE_ERROR, f"{type(error).__name__}: {first}"))
                return
            for job in open_jobs:
                self._run([renewed(job)])

    def _compute(self, jobs: Sequence[Job]) -> None:
        begun = time.perf_counter()
        kind, length = jobs[0].key[0], jobs[0].key[1]  # type: ignore[index]
        prompts = [job.work[0] for job in jobs]
        self._spent["batches"] += 1
        self._spent["batch_rows"] += self.rows
        self._spent["prompt_tokens"] += sum(len(prompt.ids) for prompt in prompts)
        if kind == SCORE:
            found = score(self.model, prompts, [job.work[1] for job in jobs], length, self.rows)
            for job, scored in zip(jobs, found, strict=True):
                job.future.set_result(scored)
            self._spent["requests"] += len(jobs)
            return
        owners = {id(job.work[1]): job for job in jobs}

        def settle(answer: Answer) -> None:
            reply = answer.reply(time.perf_counter() - begun)
            self._spent["requests"] += 1
            self._spent["completion_tokens"] += reply.completion_tokens
            owners[id(answer)].future.set_result(reply)

        generate(self.model, prompts, [job.work[1] for job in jobs], length, self.rows, settle)

    def numerics(self) -> dict[str, Json]:
        hardware: dict[str, Json] = {"compute_batch": self.rows}
        if self.model.device.type == "cuda":
            hardware |= {"device": torch.cuda.get_device_name(self.model.device), "cuda": torch.version.cuda}
        else:
            capability = f"cpu {torch.backends.cpu.get_cpu_capability()}"
            hardware |= {"device": capability, "threads": torch.get_num_threads(), "mkl": os.environ.get("MKL_CBWR")}
        return {**hardware, **{name: version(name) for name in PACKAGES}}

    def spent(self) -> Spent:
        """`batch_rows`: rows that were computed, copies that fill a batch included."""
        return {**self._spent, "cost": "0"}

    async def close(self) -> None:
        """Requests that wait are answered first."""
        await asyncio.to_thread(self._batches.close)
        self._encoder.shutdown()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()


def renewed(job: Job) -> Job:
    """The same request, to be answered anew."""
    prompt, work = job.work
    if isinstance(work, Answer):
        work = work.anew()
    return Job(job.key, (prompt, work), job.future)


def _lost(error: Exception | SystemExit) -> DeviceFailed | None:
    """What the whole engine suffers from; None where one request may be to blame."""
    first = str(error).partition("\n")[0] or type(error).__name__
    if is_out_of_memory(error):
        return DeviceFull(
            f"out of memory: {first} Lower resources.compute_batch, max_tokens or the size of images; finished shards "
            "are kept, run again to go on."
        )
    return DeviceFailed(f"the accelerator failed: {first}") if is_device_failure(error) else None


def open_engine(
    config: TransformersConfig, facts: Mapping[str, Json], device: str, compute_batch: int, threads: int
) -> InProcess:
    """Raises Refused where the files are not those that were planned with, or the model does not keep what is
    promised of it; UsageError where something is missing.
    """
    fix_kernels(threads)
    files = find_files(config.model, facts.get("revision"))
    found = {"weights": files.sha256, "architecture": files.architecture(), "text": files.text()}
    for what, value in found.items():
        if value != facts[what]:
            raise Refused(
                f"the {what} of {config.model} on this machine have digest {value}, the plan was made with "
                f"{facts[what]}. Put the same files on every machine, or plan again."
            )
    model = load(files, config.dtype, device)
    prove_padding(model, config.pad_to)
    reproducible = prove_neighbours(model, compute_batch, config.pad_to)
    if config.exact and not reproducible:
        raise Refused(
            f"answers of {model.reading.model_type} depend on what else is asked: a row moves with its place in the "
            f"batch ({threads} threads). Use one thread and more actors, set MKL_CBWR=AUTO,STRICT before the process "
            "starts, or `exact: false`, and the contract says so."
        )
    return InProcess(model, config, compute_batch, reproducible and config.exact)
