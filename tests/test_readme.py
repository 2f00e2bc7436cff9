"""Every code block of the README runs, in order, in one copy of the checkout, then those of the page on training.

`bash` and `python` blocks run as they stand, each in a process of its own; `yaml`, `json` and `text` blocks are not
programs. A block is skipped only after the comment `<!-- not run: reason -->`, and only where each of its commands
installs something, clones, or is a make target.
"""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.exports.small_releases import plant

PAGES = ("README.md", "operators/relabel/readers/README.md")
RUN = {"bash", "python"}
SHOWN = {"yaml", "json", "text"}
SKIPPABLE = re.compile(r"(make( [\w-]+)?|git clone .*|cd \S+|(\S+ -m )?pip install .*|)$")
COMMENT = re.compile(r"<!-- not run: (.+) -->")


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block of the README."""

    page: str
    line: int
    language: str
    text: str
    reason: str | None
    """Why it is not run."""


def blocks(markdown: str, page: str = "README.md") -> Iterator[Block]:
    lines = markdown.splitlines()
    position, reason = 0, None
    while position < len(lines):
        line = lines[position]
        if line.startswith("```"):
            end = lines.index("```", position + 1)
            yield Block(page, position + 1, line[3:].strip(), "\n".join(lines[position + 1 : end]), reason)
            position, reason = end, None
        elif line.strip():
            found = COMMENT.fullmatch(line.strip())
            reason = found[1] if found else None
        position += 1


def commands(block: Block) -> list[str]:
    return [line.split(" #")[0].strip() for line in block.text.splitlines() if not line.startswith("#")]


@pytest.fixture(scope="module")
def readme_blocks(root: Path) -> list[Block]:
    return [block for page in PAGES for block in blocks((root / page).read_text(), page)]


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A copy of what the README's commands use, as a reader has it after `make demo`'s installation."""
    for folder in ("operators", "pipelines"):  # with their bytecode: every worker of a Ray would compile them at once
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.egg-info"))
    return tmp_path


def environment(checkout: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join([str(checkout / "operators"), str(checkout)])}


def check_runs(block: Block, checkout: Path) -> None:
    program = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
    done = subprocess.run(
        [*program, block.text], cwd=checkout, env=environment(checkout), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=840, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{block.page}:{block.line} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_every_block_says_what_it_is(readme_blocks: list[Block]) -> None:
    assert [block for block in readme_blocks if block.language not in RUN | SHOWN] == []
    assert any(block.language in RUN for block in readme_blocks)


def test_only_installing_is_not_run(readme_blocks: list[Block]) -> None:
    skipped = [block for block in readme_blocks if block.reason]
    assert [line for block in skipped for line in commands(block) if not SKIPPABLE.match(line)] == []


def test_yaml_blocks_are_yaml(readme_blocks: list[Block]) -> None:
    for block in readme_blocks:
        if block.language == "yaml":
            assert yaml.safe_load(block.text), f"{block.page}:{block.line}"


def test_the_labeler_shown_is_the_plugin_repository(readme_blocks: list[Block], root: Path) -> None:
    file = root / "tests" / "plugins" / "brightness" / "brightness.py"
    assert file.read_text().rstrip() in [block.text for block in readme_blocks if block.language == "python"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_blocks_run_in_order(readme_blocks: list[Block], checkout: Path, photos: list[tuple[bytes, int]]) -> None:
    plant(checkout / "captions", photos)
    for block in readme_blocks:
        if block.language in RUN and not block.reason:
            check_runs(block, checkout)


def test_a_broken_block_is_found(checkout: Path) -> None:
    with pytest.raises(AssertionError, match=r"README\.md:7 failed"):
        check_runs(Block("README.md", 7, "bash", "true\nfalse\ntrue", None), checkout)
    with pytest.raises(AssertionError, match="NameError"):
        check_runs(Block("README.md", 7, "python", "relabel.open('x')", None), checkout)


def test_blocks_are_read_as_markdown_shows_them() -> None:
    text = "# T\n<!-- not run: installs -->\n\n```bash\nmake demo\n```\nwords\n```python\nx = 1\n\ny = 2\n```\n"
    assert list(blocks(text)) == [
        Block("README.md", 4, "bash", "make demo", "installs"),
        Block("README.md", 8, "python", "x = 1\n\ny = 2", None),
    ]
