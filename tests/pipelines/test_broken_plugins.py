"""Broken plugins: whatever a labeler of somebody's own does wrong is one sentence, with its line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from plugin_files import code

from pipelines.command_line import main

RETURN = 'return self.columns(bytes=batch["bytes"])'
PREPARED = 'return {"bytes": np.array(len(sample["image"]))}'
CALL = "    def __call__("
WRITES = "    def writes("
INIT = "    def __init__(self, *given):\n        "
LOAD = "    def load(self, device):\n        "

BROKEN = {
    "raises in __init__": (WRITES, INIT + "1 / 0\n\n" + WRITES, 1, "(plug_broken.py:15)"),
    "no super": (WRITES, INIT + "pass\n\n" + WRITES, 2, "super().__init__"),
    "raises in inspect": (CALL, "    def inspect(self):\n        1 / 0\n\n" + CALL, 1, ".inspect of the operator"),
    "facts are no JSON": (CALL, "    def inspect(self):\n        return {1j}\n\n" + CALL, 1, "not JSON serializable"),
    "raises in writes": ("return scores(", "return skores(", 1, "is not defined (plug_broken.py:15)"),
    "writes nothing": ("return scores(", "scores(", 2, "must return a LabelContract"),
    "writes another label": ("self.label, ", "'other', ", 2, "Use self.label"),
    "raises in load": (CALL, LOAD + "import nothing\n\n" + CALL, 1, "No module named 'nothing' (p"),
    "raises in prepare": (PREPARED, "raise KeyError(3)", 4, "KeyError: 3 (plug_broken.py:18)). Mend the l"),
    "prepares nothing": (PREPARED, "pass", 3, "prepare() must give arrays by name"),
    "prepares a list": (PREPARED, "return {'bytes': [3]}", 3, "got list for 'bytes'. Convert it by np.array"),
    "prepares objects": (PREPARED, "return {'bytes': np.array([self])}", 3, "got an array of Python objects"),
    "raises in __call__": (RETURN, "raise ValueError('why')", 4, "ValueError: why (plug_broken.py:21)). Mend"),
    "labels nothing": (RETURN, "pass", 3, "got NoneType. `return self.columns(...)` names them"),
    "labels other columns": (RETURN, "return self.columns()", 3, "columns() got none"),
    "labels of another shape": (RETURN, "return self.columns(bytes=np.zeros(3))", 3, "must be <f4 [8] by its con"),
    "writes to its batch": (RETURN, "batch['bytes'][0] = 0", 4, "read-only (plug_broken.py:21)"),
}  # fmt: skip
"""What is replaced, by what, the exit code of `try`, and what it says."""


@pytest.fixture
def broken(tmp_path: Path, demo_shards: Path, forget_plugins: Callable[[], None]) -> Callable[[str], Path]:
    """The recipe of a plugin that is broken so."""

    def make(how: str) -> Path:
        before, after, _, _ = BROKEN[how]
        text = code("plug_broken")
        assert before in text
        (tmp_path / "plug_broken.py").write_text(text.replace(before, after))
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump({
            "source": {"path": f"{demo_shards}/*.tar"}, "steps": ["plug_broken"], "plugins": ["plug_broken.py"],
            "store": str(tmp_path / "store"),
        }))  # fmt: skip
        return recipe

    return make


@pytest.mark.parametrize("how", BROKEN, ids=[how.replace(" ", "-") for how in BROKEN])
def test_try_says_what_is_wrong(broken: Callable[[str], Path], how: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, exit_code, lesson = BROKEN[how]
    assert main(["try", str(broken(how)), "--limit", "3"]) == exit_code
    said = capsys.readouterr().err
    assert lesson in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("forget_plugins")
def test_what_a_labeler_prints_is_not_in_the_json(
    broken: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = broken("writes nothing")
    (recipe.parent / "plug_broken.py").write_text(
        code("plug_broken").replace("return self", "print('hi'); return self")
    )
    assert main(["try", str(recipe), "--limit", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("{")
    assert "hi" in err
