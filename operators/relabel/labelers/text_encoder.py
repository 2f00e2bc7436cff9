"""Text encoders: texts to unit vectors by an encoder of transformers, in batches of a few fixed shapes.

A text is padded to the next of a few lengths and computed among texts of that length, always `compute_batch` of them,
so that its vector depends on no other text. Vectors are the mean of the last layer over the text's tokens, as
sentence-transformers' MiniLM, E5 and most others were trained (Reimers and Gurevych, arXiv 1908.10084).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from ..digests import Json, digest, sha256
from ..errors import Refused, UsageError
from .checkpoints import TRANSFORMERS, Checkpoint
from .pretrained import import_transformers, load_pretrained, read_architecture

LENGTHS = (32, 64, 128, 256, 512, 1024, 2048)
"""Tokens that texts are padded to; of these, those below the encoder's longest."""
VOCABULARY = ("tokenizer*.json", "vocab.*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json")


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """In eval mode, fp32, on the CPU."""

    network: Any
    """A PreTrainedModel whose output has `last_hidden_state`."""
    tokenizer: Any
    facts: dict[str, Json]
    """Digests of weights, tokenizer and architecture; the revision; the longest text in tokens; features."""


def load_text_encoder(checkpoint: Checkpoint) -> TextEncoder:
    """Raises UsageError for a checkpoint of another library, Refused where it is no encoder of texts or lacks parts."""
    if checkpoint.architecture != TRANSFORMERS:
        raise UsageError(
            f"embed_text needs an encoder of transformers, got {checkpoint.architecture}. Give hf:org/name, or a "
            "folder that `AutoModel` and `AutoTokenizer` can load."
        )
    files = sorted({path for pattern in VOCABULARY for path in checkpoint.folder.glob(pattern)})
    if not files:  # transformers would make one up that knows no word
        raise Refused(f"{checkpoint.folder} holds no tokenizer. Save it beside the model.")
    network = load_pretrained(checkpoint, "TextEncoding")
    config = network.config
    longest = getattr(config, "max_position_embeddings", None)
    if not isinstance(longest, int) or getattr(config, "is_encoder_decoder", False):
        raise Refused(f"{checkpoint.folder} holds a {type(network).__name__}, not an encoder of texts.")
    try:
        tokenizer = import_transformers().AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise Refused(f"{checkpoint.folder} holds no tokenizer that loads: {error}. Save it again.") from error
    if tokenizer.pad_token is None:
        raise Refused(f"{checkpoint.folder}: its tokenizer must have a padding token. Save its own.")
    facts = {
        "weights": checkpoint.sha256(),
        "tokenizer": digest({path.name: sha256(path.read_bytes()) for path in files}),
        "architecture": read_architecture(checkpoint),
        "revision": checkpoint.revision,
        # What positions before the first token take of RoBERTa's is never used by a text.
        "longest": min(longest - reserved(config), int(tokenizer.model_max_length)),
        "features": int(config.hidden_size),
    }
    return TextEncoder(network, tokenizer, facts)


def reserved(config: Any) -> int:
    """RoBERTa counts positions from behind its padding id."""
    return int(config.pad_token_id) + 1 if "roberta" in str(config.model_type) else 0


class FixedTexts:
    """Texts to unit vectors on a device; every call of the network has `compute_batch` texts of one padded length."""

    def __init__(
        self, encoder: TextEncoder, device: str, dtype: Literal["fp32", "bf16"], compute_batch: int, max_tokens: int
    ) -> None:
        self.encoder, self.compute_batch, self.max_tokens = encoder, compute_batch, max_tokens
        self.device = torch.device(device)
        encoder.network.to(self.device, torch.bfloat16 if dtype == "bf16" else torch.float32)
        self.lengths = (*(each for each in LENGTHS if each < max_tokens), max_tokens)

    def __call__(self, texts: Sequence[str]) -> Float32[np.ndarray, "rows features"]:
        """In order."""
        ids = self.encoder.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"]
        found = np.zeros((len(ids), int(self.encoder.facts["features"])), np.float32)
        padded = np.array([next(each for each in self.lengths if each >= len(row)) for row in ids])
        for length in np.unique(padded):
            rows = np.flatnonzero(padded == length)
            for at in range(0, len(rows), self.compute_batch):
                some = rows[at : at + self.compute_batch]
                found[some] = self._encode([ids[row] for row in some], int(length))
        return found

    @torch.inference_mode()
    def _encode(self, ids: Sequence[Sequence[int]], length: int) -> Float32[np.ndarray, "some features"]:
        """A short batch is filled with its last text, whose further vectors are dropped."""
        filled = [*ids, *[ids[-1]] * (self.compute_batch - len(ids))]
        tokens = torch.full((self.compute_batch, length), int(self.encoder.tokenizer.pad_token_id))
        mask = torch.zeros((self.compute_batch, length), dtype=torch.int64)
        for row, each in enumerate(filled):
            tokens[row, : len(each)] = torch.tensor(each)
            mask[row, : len(each)] = 1
        said = self.encoder.network(input_ids=tokens.to(self.device), attention_mask=mask.to(self.device))
        return unit_means(said.last_hidden_state.float(), mask.to(self.device))[: len(ids)].cpu().numpy()


def unit_means(hidden: Float32[Tensor, "rows tokens features"], mask: Any) -> Float32[Tensor, "rows features"]:
    """Of the tokens that are no padding, scaled to length one."""
    total = (hidden * mask[..., None]).sum(dim=1)
    return torch.nn.functional.normalize(total / mask.sum(dim=1, keepdim=True).clamp(min=1), dim=-1)
