"""Scaffold: `relabel new labeler NAME` writes a package: a labeler that works, a test that proves it, a README."""

import importlib.util
import keyword
from pathlib import Path
from string import Template

import relabel
from relabel.errors import UsageError
from relabel.labelers import registry

MODULE = '''"""$title: the mean and the spread of an image's grey values, from 0 (black) to 1 (white)."""

import numpy as np
from pydantic import Field

from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, register, scores
from relabel.labelers.images import square_image


class ${title}Parameters(Parameters):
    size: int = Field(default=64, ge=1)
    """Pixels of the square that images are stretched to before they are measured."""


@register
class $title(Labeler[${title}Parameters]):
    """How light an image is, and how much that varies."""

    name, version = "$name", 1

    def writes(self) -> LabelContract:
        return scores(self.label, "mean", "spread")

    def prepare(self, sample: Fields) -> Prepared:
        return {"image": square_image(sample, self.parameters.size)}

    def __call__(self, batch: Batch) -> Labels:
        grey = np.asarray(batch["image"]).mean(axis=3) / 255
        return self.columns(mean=grey.mean(axis=(1, 2)), spread=grey.std(axis=(1, 2)))
'''

TEST = '''"""The labeler keeps relabel's rules, and measures what it says."""

import io

import numpy as np
from $name import $title, ${title}Parameters
from PIL import Image

from relabel.testing import check_labeler


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_it_keeps_the_rules() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), np.uint8)
    check_labeler($title(${title}Parameters()), [{"image": png(pixels)} for pixels in noise])


def test_black_is_0_and_white_is_1() -> None:
    labeler = $title(${title}Parameters(size=8))
    pages = [np.full((20, 30, 3), value, np.uint8) for value in (0, 255)]
    prepared = [labeler.prepare({"image": png(page)})["image"] for page in pages]
    labels = labeler({"image": np.stack(prepared)})
    assert list(labels["${name}_mean"]) == [0, 1]
    assert list(labels["${name}_spread"]) == [0, 0]
'''

PROJECT = """[build-system]
requires = ["setuptools>=80"]
build-backend = "setuptools.build_meta"

[project]
name = "relabel-$dashed"
version = "0.1.0"
description = "The labeler $name for relabel"
requires-python = ">=3.11"
dependencies = ["relabel-ray[run]"]

[project.entry-points."relabel.operators"]
$name = "$name:$title"

[tool.setuptools]
py-modules = ["$name"]
"""

README = """# $name

A labeler for relabel: `$name.py`, tested by `python -m pytest`. In a recipe:

```yaml
plugins: [$name/$name.py]   # a path from the recipe's file; not needed after `pip install .`
steps:
  - $name: {size: 64}
```

Raise `version` whenever you edit the code: labels of two sources never carry one version.
"""

FILES = {"$name.py": MODULE, "test_$name.py": TEST, "pyproject.toml": PROJECT, "README.md": README}


def new_labeler(name: str, out: Path) -> list[Path]:
    """Writes the package `out`/`name`; returns its files. Raises UsageError where the name or the folder is taken."""
    title = "".join(part.capitalize() for part in name.split("_"))
    check_name(name, title)
    folder = out / name
    if folder.exists():
        raise UsageError(f"{folder} exists already. Choose another name, or another folder by --out.")
    words = {"name": name, "title": title, "dashed": name.replace("_", "-")}
    folder.mkdir(parents=True)
    files = [folder / Template(path).substitute(words) for path in FILES]
    for file, text in zip(files, FILES.values(), strict=True):
        file.write_text(Template(text).substitute(words), encoding="utf-8")
    return files


def check_name(name: str, title: str) -> None:
    """One name is a module's, a class's (`title`), an operator's and a label's; it must be free as each."""
    if not registry.NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UsageError(f"a labeler's name is lower-case letters, digits and _, at most 48, got {name!r}.")
    if name in registry.labelers():
        raise UsageError(f"there is a labeler {name!r} already (see `relabel operators`). Choose another name.")
    found = importlib.util.find_spec(name)
    if found is not None and found.origin is not None:
        raise UsageError(f"there is a Python module {name!r} already ({found.origin}). Choose another name.")
    if hasattr(relabel, title) or title == "Field":
        raise UsageError(f"the labeler's class would be called {title}, as one of relabel's. Choose another name.")
