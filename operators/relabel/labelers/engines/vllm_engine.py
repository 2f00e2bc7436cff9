"""vLLM engine: a language model on the GPUs of an actor, through vLLM's async engine in process.

Not reproducible: which requests share a batch decides the last bits, and those may decide a token.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from ...digests import Json
from ...errors import UsageError
from ...storage.filesystems import check_options
from .model_files import ModelFolder, model_folder
from .protocol import Engine, EngineConfig

SPEED = frozenset({
    # memory and scheduling
    "gpu_memory_utilization", "kv_cache_memory_bytes", "num_gpu_blocks_override", "block_size", "swap_space",
    "kv_offloading_size", "kv_offloading_backend", "cpu_offload_gb", "max_num_seqs", "max_num_batched_tokens",
    "max_num_partial_prefills", "max_long_partial_prefills", "long_prefill_token_threshold", "scheduling_policy",
    "scheduler_reserve_full_isl", "enable_chunked_prefill", "enable_prefix_caching", "prefix_caching_hash_algo",
    "async_scheduling", "stream_interval", "renderer_num_workers", "max_parallel_loading_workers",
    # how the work is spread
    "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "enable_expert_parallel",
    "distributed_executor_backend", "disable_custom_all_reduce", "mm_encoder_tp_mode",
    # kernels and compilation
    "enforce_eager", "compilation_config", "cudagraph_capture_sizes", "max_cudagraph_capture_size", "attention_backend",
    "attention_config", "kernel_config", "optimization_level", "performance_mode", "disable_cascade_attn",
    # loading, caches, logs
    "use_tqdm_on_load", "download_dir", "safetensors_load_strategy",
    "mm_processor_cache_gb", "mm_processor_cache_type", "mm_shm_cache_max_object_size_mb", "disable_log_stats",
    "enable_log_requests", "otlp_traces_endpoint", "collect_detailed_traces", "served_model_name", "max_logprobs",
})  # fmt: skip
"""Engine arguments that change when and where something is computed: numerics. Every other one (dtype, quantization,
kv_cache_dtype, max_model_len, seed, mm_processor_kwargs, limit_mm_per_prompt, hf_overrides, generation_config,
logprobs_mode, tokenizer, chat templates, speculative_config, load_format (`dummy`: random weights) ..., and any that
this list does not know) is taken to change labels, and is part of their fingerprint."""
OURS = frozenset({"model", "revision", "tokenizer_revision", "code_revision"})
"""What `model` says."""


class VllmConfig(EngineConfig):
    """`engine: {kind: vllm, model: FOLDER | hf:org/name@commit | s3://bucket/prefix}`; needs `resources.gpus`."""

    kind: Literal["vllm"] = "vllm"
    model: str
    """A folder, `hf:org/name[@commit]`, or a bucket's prefix; fetched once per node."""
    storage_options: dict[str, Any] = Field(default={})
    """Of the bucket, as a store's."""
    engine_args: dict[str, Any] = Field(default={})
    """Of vLLM's AsyncEngineArgs, by their names in Python. Those in `SPEED` change no fingerprint; all others do."""
    at_once: int = Field(default=384, ge=1)
    """Requests that are open at a time: 1.5 times vLLM's max_num_seqs (256), so that it is never short of one."""
    ask_logprobs: bool = False
    """Log-probabilities of the answer's tokens."""

    @field_validator("engine_args")
    @classmethod
    def _no_places(cls, engine_args: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(OURS & engine_args.keys()):
            raise ValueError(f"engine_args must not name {', '.join(taken)}: `model` does (hf:org/name@commit)")
        if "hf_token" in engine_args:
            raise ValueError("engine_args must not hold hf_token: set the environment variable HF_TOKEN")
        return engine_args

    @field_validator("storage_options")
    @classmethod
    def _no_secrets(cls, options: dict[str, Any]) -> dict[str, Any]:
        check_options(options)
        return options

    @property
    def concurrency(self) -> int:
        return self.at_once

    @property
    def logprobs(self) -> bool:
        return self.ask_logprobs

    @property
    def reproducible(self) -> bool:
        return False

    @property
    def holds(self) -> bool:
        return True

    def weight_files(self) -> Sequence[Path]:
        folder = Path(self.model).expanduser()
        return ModelFolder(folder).files() if folder.is_dir() else ()

    def inspect(self) -> dict[str, Json]:
        """Digest of the model's files; of the hub, its commit. Fetches the model to the machine that plans."""
        return model_folder(self.model, self.storage_options).facts()

    def identity(self) -> dict[str, Json]:
        changing = {name: value for name, value in self.engine_args.items() if name not in SPEED}
        return {"kind": self.kind, "engine_args": changing}

    def open(self, facts: Mapping[str, Json], device: str, *, compute_batch: int, threads: int) -> Engine:
        if device != "cuda":
            raise UsageError(
                f"`kind: vllm` computes on GPUs, got the device {device!r}. Set resources.gpus to the number of GPUs "
                "per actor, or use `kind: transformers`."
            )
        folder = model_folder(self.model, self.storage_options, facts.get("commit"))
        folder.require(facts)
        from .vllm_client import Vllm

        return Vllm(self, folder)
