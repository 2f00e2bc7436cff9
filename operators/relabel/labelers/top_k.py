"""Top-k: `labels.label_map.encode` in torch, on whatever device the logits are."""

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from ..labels.label_map import Arrays, id_dtype


def encode(logits: Float32[Tensor, "rows classes y x"], top_k: int) -> Arrays:
    """`ids`, `scores`, `residual` as the numpy encoder gives them: sorted, ties to the lower id."""
    cells = logits.movedim(1, -1).contiguous()
    scores, ids = _stable_top(cells, top_k)
    residual = torch.logsumexp(cells.scatter(-1, ids, -torch.inf), dim=-1)
    return {
        "ids": ids.to(torch.int32).cpu().numpy().astype(id_dtype(cells.shape[-1])),
        "scores": scores.half().cpu().numpy(),
        "residual": residual.half().cpu().numpy(),
    }


def _stable_top(
    cells: Float32[Tensor, "rows y x classes"], top_k: int
) -> tuple[Float32[Tensor, "rows y x k"], Int64[Tensor, "rows y x k"]]:
    """torch.topk leaves open which of equal scores it takes, and their order; a full stable sort costs 20 times as
    much and is needed only for the few cells with a tie across the k-th place.
    """
    scores, ids = cells.topk(top_k, dim=-1)
    crowded = (cells >= scores[..., -1:]).sum(dim=-1) > top_k
    if bool(crowded.any()):
        exact_scores, exact_ids = torch.sort(cells[crowded], dim=-1, descending=True, stable=True)
        scores[crowded], ids[crowded] = exact_scores[:, :top_k], exact_ids[:, :top_k]
    ids, order = ids.sort(dim=-1)
    scores, order = torch.sort(scores.gather(-1, order), dim=-1, descending=True, stable=True)
    return scores, ids.gather(-1, order)
