"""Transformers model: network, tokenizer and processor, opened from files; nothing is unpickled, no code is fetched.

Three families differ in how a prompt goes in: `causal` (text), `image_text` (a processor mixes text and images) and
`captioner` (an image encoder whose decoder goes on with the prompt: BLIP, VisionEncoderDecoder).
"""

import contextlib
import dataclasses
import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any, Literal

import torch

from ...digests import Json, digest
from ...errors import Refused, UsageError
from .transformers_files import ModelFiles

Family = Literal["causal", "image_text", "captioner"]
CLASSES: dict[Family, str] = {
    "causal": "AutoModelForCausalLM", "image_text": "AutoModelForImageTextToText",
    "captioner": "AutoModelForImageTextToText",
}  # fmt: skip
CAPTIONERS = ("blip", "vision-encoder-decoder")
"""By config.json's model_type."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
NEEDED = {"torchvision": "torchvision", "num2words": "num2words", "sentencepiece": "sentencepiece",
          "protobuf": "protobuf", "tiktoken": "tiktoken", "video_processor": "torchvision"}  # fmt: skip
"""What transformers says, in lower case -> the package that it misses."""
SIGNS = ("video_processor", "could not load any image processor class")
SAID_CHARACTERS = 300
ENDLESS = 10**9
LOADING_ERRORS = (AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What transformers raises where files, packages and classes do not fit."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How text and images become numbers, and numbers text."""

    family: Family
    model_type: str
    config: Any
    tokenizer: Any
    processor: Any
    """Of text and images, or of images alone (captioner); None for text models."""

    @property
    def template(self) -> Any:
        """Who applies the chat template; None where there is none."""
        owners = [self.processor, self.tokenizer] if self.family == "image_text" else [self.tokenizer]
        return next((owner for owner in owners if getattr(owner, "chat_template", None)), None)


@dataclasses.dataclass(frozen=True)
class Model:
    """A network in eval mode on its device."""

    network: Any
    reading: Reading
    device: torch.device
    dtype: torch.dtype
    end_ids: frozenset[int]
    """Tokens that end an answer."""
    pad_id: int
    context: int
    """The most tokens of prompt and answer together."""


def describe(files: ModelFiles) -> dict[str, Json]:
    """The facts; raises UsageError where something is missing that reading its prompts needs."""
    reading = read(files)
    template = reading.template
    return {
        "weights": files.sha256,
        "revision": files.revision,
        "architecture": files.architecture(),
        "text": files.text(),
        "chat_template": None if template is None else digest(template.chat_template),
        "family": reading.family,
        "model_type": reading.model_type,
    }


def read(files: ModelFiles) -> Reading:
    """Configuration, tokenizer and processor, without weights."""
    transformers = _transformers()
    if files.gguf:
        _require_gguf()
    options = {"local_files_only": True, "trust_remote_code": False, **_gguf(files)}
    with _explained(files):
        config = transformers.AutoConfig.from_pretrained(files.folder, **options)
        family = _family(config, files)
        if family == "image_text" or config.model_type == "blip":
            processor = transformers.AutoProcessor.from_pretrained(files.folder, **options)
            if not hasattr(processor, "tokenizer"):
                raise Refused(f"{files.folder} has no processor of text and images. Save the processor beside it.")
            return Reading(family, config.model_type, config, processor.tokenizer, processor)
        tokenizer = transformers.AutoTokenizer.from_pretrained(files.folder, **options)
        images = (
            transformers.AutoImageProcessor.from_pretrained(files.folder, **options) if family != "causal" else None
        )
        return Reading(family, config.model_type, config, tokenizer, images)


def load(files: ModelFiles, dtype: str, device: str) -> Model:
    """Raises Refused where any weight is missing, UsageError where a package is."""
    reading = read(files)
    transformers = _transformers()
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, **_gguf(files)}
    if files.gguf:
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    else:
        options["use_safetensors"] = True
    with _explained(files):
        network, loading = getattr(transformers, CLASSES[reading.family]).from_pretrained(
            files.folder, dtype=DTYPES[dtype], output_loading_info=True, **options
        )
    faults = {what: sorted(map(str, loading.get(what) or ())) for what in ("missing_keys", "mismatched_keys")}
    if any(faults.values()):
        raise Refused(f"{files.folder}: the weights do not fill the network: {faults}. Save the whole model.")
    network.eval().to(device)
    end_ids, pad_id = _special_ids(network, reading)
    first_id = first_caption_id(reading) if reading.family == "captioner" else None
    _forget_defaults(transformers, network, pad_id, first_id)
    return Model(
        network, reading, torch.device(device), DTYPES[dtype], frozenset(end_ids), pad_id, _context(reading)
    )  # fmt: skip


def _transformers() -> Any:
    """The module, with its bars off."""
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise UsageError("this engine needs transformers. Run `pip install transformers`.") from error
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _gguf(files: ModelFiles) -> dict[str, str]:
    return {"gguf_file": files.gguf} if files.gguf else {}


def _require_gguf() -> None:
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f".gguf files need {' and '.join(missing)}. Run `pip install {' '.join(missing)}`.")


def _family(config: Any, files: ModelFiles) -> Family:
    """By the class that saved it, else by what transformers knows for its type."""
    if config.model_type in CAPTIONERS:
        return "captioner"
    known = importlib.import_module("transformers.models.auto.modeling_auto")
    causal, mixed = known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    saved_by = (config.architectures or [""])[0]
    if config.model_type in causal and (files.gguf or saved_by == causal[config.model_type]):
        return "causal"
    if config.model_type in mixed:
        return "image_text"
    if config.model_type in causal:
        return "causal"
    raise UsageError(
        f"an engine runs causal language models, image-text-to-text models and VisionEncoderDecoder; {files.folder} "
        f"holds {config.model_type!r}, which transformers knows as none of these."
    )


@contextlib.contextmanager
def _explained(files: ModelFiles) -> Iterator[None]:
    """One sentence instead of what transformers raises."""
    try:
        yield
    except (Refused, UsageError):
        raise
    except LOADING_ERRORS as error:
        missing = _missing(error)
        if missing:
            raise UsageError(
                f"{files.folder}: its processor needs {missing}, which is not installed here. Run `pip install "
                f"{missing}`, or save the model with a processor that does without."
            ) from error
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:SAID_CHARACTERS]
        raise Refused(f"{files.folder} does not load: {type(error).__name__}: {first}") from error


def _missing(error: Exception) -> str | None:
    """The package for whose absence transformers raised this; it says so in several ways."""
    said = str(error).lower()
    if isinstance(error, ImportError) or any(sign in said for sign in SIGNS):
        return next((package for word, package in NEEDED.items() if word in said), None)
    return None


def _special_ids(network: Any, reading: Reading) -> tuple[set[int], int]:
    """Of the tokens that end an answer, and of the one that fills up."""
    text, tokenizer = text_config(reading), reading.tokenizer
    ends: set[int] = set()
    if reading.model_type == "blip":
        ends.add(int(text.sep_token_id))
    for source in (getattr(network, "generation_config", None), text, tokenizer):
        found = getattr(source, "eos_token_id", None)
        if found is not None and not ends:
            ends.update(found if isinstance(found, list | tuple) else [found])
    pads = (tokenizer.pad_token_id, getattr(text, "pad_token_id", None), *sorted(ends), 0)
    return ends, next(int(pad) for pad in pads if pad is not None and int(pad) >= 0)


def text_config(reading: Reading) -> Any:
    """Of the part that writes text."""
    if reading.model_type == "vision-encoder-decoder":
        return reading.config.decoder
    return reading.config.text_config if reading.model_type == "blip" else reading.config.get_text_config(decoder=True)


def _context(reading: Reading) -> int:
    text = text_config(reading)
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        length = getattr(text, name, None)
        if isinstance(length, int) and length > 0:
            return length
    return min(int(reading.tokenizer.model_max_length), ENDLESS)


def _forget_defaults(transformers: Any, network: Any, pad_id: int, first_id: int | None) -> None:
    """What the model's own generation_config.json would add to a request's decoding; a recipe says all of it."""
    for part in (network, getattr(network, "text_decoder", None)):
        if part is not None and getattr(part, "generation_config", None) is not None:
            part.generation_config = transformers.GenerationConfig(pad_token_id=pad_id, decoder_start_token_id=first_id)


def first_caption_id(reading: Reading) -> int:
    """The token that every caption begins with."""
    text = text_config(reading)
    if reading.model_type == "blip":
        return int(text.bos_token_id)
    candidates = (
        getattr(reading.config, "decoder_start_token_id", None), getattr(text, "decoder_start_token_id", None),
        getattr(text, "bos_token_id", None), reading.tokenizer.bos_token_id, reading.tokenizer.cls_token_id,
    )  # fmt: skip
    for found in candidates:
        if found is not None:
            return int(found)
    raise UsageError("the captioner has no token that begins a caption. Set config.decoder_start_token_id and save it.")
