"""torchvision weights: which file a name of torchvision's means, and where torch keeps it on this machine.

torchvision is optional and is imported only for its own models.
"""

import importlib
from pathlib import Path
from typing import Any

from ..errors import UnknownName, UsageError


def models() -> Any:
    """The models of torchvision (their types are dynamic). A build that does not fit torch's raises RuntimeError."""
    try:
        return importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"torchvision: models need torchvision, which does not import here: {error} Run `pip install torchvision` "
            "of the build that fits this torch (for a CPU build of torch, a CPU build)."
        ) from error


def entry_of(network: str, weights: str | None) -> Any:
    """The entry for these weights (its default where None): name, url, categories, transforms."""
    library = models()
    if network not in library.list_models():
        raise UnknownName("torchvision model", network, library.list_models())
    known = library.get_model_weights(network)
    if weights is None:
        return known.DEFAULT
    if weights not in known.__members__:
        raise UnknownName(f"weights of {network}", weights, known.__members__)
    return known[weights]


def fetch(entry: Any) -> Path:
    """The weights' file, downloaded where torch does not have it yet, checked by the digest in its name."""
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / str(entry.url).rpartition("/")[2]
    try:
        torch.hub.load_state_dict_from_url(
            entry.url, str(folder), map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"the weights {entry.name} did not come: {error} Check the network, or put {path.name} into {folder}."
        ) from error
    return path
