"""Hostile recipes and metadata: exit code 2 with the field's name, or a dead sample; nothing that they name is run."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from archives import make_tar, read_all
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.command_line import main
from pipelines.loading import load
from relabel.errors import BadSample, UsageError
from relabel.shards.keys import decode_key, is_good_key
from relabel.shards.shard import Sample
from relabel.shards.webdataset import WebDatasetSource
from relabel.shards.where import Condition, Where

RECIPE: dict[str, Any] = {
    "source": {"path": "shards/*.tar"},
    "steps": [{"label_map": {"model": "efficientnet-lite0", "input_size": 64}}],
    "store": "labels",
}
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)

TEXTS = {
    "object tag": ("source: !!python/object/apply:os.system ['touch PLANTED']\n", "not valid YAML"),
    "name tag": ("plugins: [!!python/name:os.system ]\n", "not valid YAML"),
    "module tag": ("store: !!python/module:os\n", "not valid YAML"),
    "billion laughs": (LAUGHS, "aliases"),
    "billion merges": (MERGES, "aliases"),
    "an anchor in itself": ("source: &a [*a]\n", "contains itself"),
    "a mapping in itself": ("source: &a {path: *a}\n", "contains itself"),
    "deep flow": ("source: " + "[" * 5000 + "]" * 5000 + "\n", "nested"),
    "deep mapping": ("source: " + "{a: " * 200 + "1" + "}" * 200 + "\n", "nested"),
    "a field twice": (yaml.safe_dump(RECIPE) + "store: other\n", "'store' stands here twice"),
    "a number of 10,000 digits": ("name: " + "9" * 10_000 + "\n", "not valid YAML"),
    "a date that is none": ("name: 2024-99-99\n", "not valid YAML"),
    "two documents": ("a: 1\n---\nb: 2\n", "not valid YAML"),
    "NUL": ("name: a\0b\n", "not valid YAML"),
    "2 MB": ("# " + "x" * (2 << 20) + "\n", "characters"),
    "a key that is a list": ("? [a]\n: 1\n", "not valid YAML"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_yaml_exits_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text, message = TEXTS[name]
    Path("recipe.yaml").write_text(text)
    assert main(["plan", "recipe.yaml"]) == 2
    said = capsys.readouterr().err
    assert "recipe.yaml" in said
    assert message in said
    assert len(said) < 2000
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


CODE = "__import__('os').system('touch PLANTED')"
FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "name above": ({"name": "../evil"}, "'name'"),
    "name at the root": ({"name": "/evil"}, "'name'"),
    "name with NUL": ({"name": "a\0b"}, "'name'"),
    "name with a newline": ({"name": "a\n"}, "'name'"),
    "name of code": ({"name": CODE}, "'name'"),
    "label above": ({"steps": [{"label_map": {"model": "efficientnet-lite0"}, "as": "../x"}]}, "label"),
    "store without bucket": ({"store": "s3://"}, "names no bucket"),
    "store without bucket but a key": ({"store": "s3:///prefix"}, "names no bucket"),
    "store with NUL": ({"store": "a\0b"}, "'store"),
    "store with a newline": ({"store": "a\nb"}, "'store"),
    "store of nobody's home": ({"store": "~nosuchuser/x"}, "'store"),
    "store of half a character": ({"store": "a\ud800"}, "'store"),
    "store of nothing": ({"store": ""}, "'store"),
    "source without bucket": ({"source": "s3:///a.tar"}, "'source"),
    "source with NUL": ({"source": "a\0.tar"}, "'source"),
    "listing with NUL": ({"source": {"path": "@a\0", "kind": "webdataset"}}, "'source"),
    "where NaN": ({"source": {"path": "a.tar", "where": [{"field": "json.x", "ge": float("nan")}]}}, "where"),
    "where infinity": ({"source": {"path": "a.tar", "where": [{"field": "json.x", "in": [1, float("inf")]}]}}, "where"),
    "where of code": ({"source": {"path": "a.tar", "where": CODE}}, "where"),
    "where with code": ({"source": {"path": "a.tar", "where": [{"field": "x", "eval": CODE}]}}, "where"),
    "a regex that explodes": (
        {"source": {"path": "a.tar", "where": [{"field": "txt", "matches": "((a{1,999}){1,999}){1,999}"}]}}, "where"),
    "a backreference": ({"source": {"path": "a.tar", "where": [{"field": "txt", "matches": r"(a+)\1"}]}}, "where"),
    "operator of code": ({"steps": [{CODE: {}}]}, "step"),
    "operator of a path": ({"steps": [{"operator": "os.system", "label": "a", "parameters": {}}]}, "os.system"),
    "parameter of NaN": ({"steps": [{"label_map": {"top_k": float("nan")}}]}, "parameters"),
    "parameter of code": ({"steps": [{"label_map": {"model": CODE, "input_size": CODE}}]}, "input_size"),
    "plugin of code": ({"plugins": [CODE]}, "plugin"),
    "plugin without operators": ({"plugins": ["json"]}, "registers no operator"),
    "plugin above": ({"plugins": ["../../../../etc/passwd"]}, "plugin"),
    "plugin with NUL": ({"plugins": ["a\0.py"]}, "plugin"),
    "infinite GPUs": ({"resources": {"gpus": float("inf")}}, "'resources.gpus'"),
    "a literal secret": ({"store": {"url": "s3://b/x", "storage_options": {"secret": "hunter2hunter2"}}}, "${SECRET}"),
    "a secret header": (
        {"source": {"path": "s3://b/x.tar", "storage_options": {"client_kwargs": {"Authorization": "Bearer abc"}}}},
        "AUTHORIZATION"),
    "a secret endpoint": (
        {"store": {"url": "s3://b/x", "storage_options": {"endpoint_url": "http://me:hunter2@host"}}}, "endpoint_url"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_hostile_fields_are_named_and_nothing_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    change, message = FIELDS[name]
    with pytest.raises(UsageError) as caught:
        load({**RECIPE, **change})
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "pattern", ["{0..999999999999}.tar", "{a,b}" * 40 + ".tar", "{0..99999}{0..99999}.tar", "{" * 3000]
)
def test_patterns_that_spell_out_the_world(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"source\.path"):
        WebDatasetSource(f"{tmp_path}/{pattern}").shards()


def test_names_that_no_release_can_carry(tmp_path: Path) -> None:
    good = make_tar([("a.jpg", b"x")])
    for name in (b"\xff.tar", b"new\nline.tar", b"{braces},[and]*.tar"):
        (tmp_path / name.decode(errors="surrogateescape")).write_bytes(good)
    with pytest.raises(UsageError, match=r"2 files have names .*'\\udcff.tar'|2 files have names .*'new\\nline.tar'"):
        WebDatasetSource(f"{tmp_path}/*.tar").shards()
    [shard] = WebDatasetSource(f"{tmp_path}/*braces*.tar").shards()
    assert shard.name == "{braces},[and]*.tar"


@pytest.mark.parametrize(
    "line", ["s3://me:hunter2@bucket/a.tar", "https://h/a.tar?X-Amz-Signature=hunter2", "a\0b.tar", "s3://"]
)
def test_listings_name_the_line_and_no_secret(line: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"# shards\n{line}\n")
    with pytest.raises(UsageError, match=r"list\.txt, line 2") as caught:
        WebDatasetSource(f"@{tmp_path}/list.txt").shards()
    assert "hunter2" not in str(caught.value)


class Planted:
    """Its unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return Path.touch, (str(self.path),)  # type: ignore[return-value]


def test_members_are_never_unpickled_or_executed(tmp_path: Path) -> None:
    planted = tmp_path / "PLANTED"
    bomb = pickle.dumps(Planted(planted))
    array = tmp_path / "a.npy"
    np.save(array, np.array([Planted(planted)], dtype=object), allow_pickle=True)
    members = [(f"a.{kind}", bomb) for kind in ("pt", "pth", "pkl", "pickle", "pyd", "cls", "json", "jpg", "txt")]
    (tmp_path / "a.tar").write_bytes(make_tar([*members, ("a.npy", array.read_bytes())]))
    [sample] = read_all(WebDatasetSource(str(tmp_path / "a.tar")))
    assert sample.fields["pkl"] == bomb
    for field in ("json.x", "pkl.x", "npy.x", "pt"):
        with pytest.raises(BadSample):
            Where([Condition(field=field, eq=1)]).admits(sample)
    assert not planted.exists()


METADATA = {
    "deep": b"[" * 100_000,
    "deep object": b'{"x":' * 100_000,
    "huge number": b'{"x": ' + b"9" * 10_000 + b"}",
    "NaN": b'{"x": NaN}',
    "infinity": b'{"x": -Infinity}',
    "a name twice": b'{"x": 1, "x": 2}',
    "a name twice below": b'{"x": {"y": 1, "y": 2}}',
    "half a character": b'{"x": "\\ud800"}',
    "not UTF-8": b'{"x": "\xff"}',
    "17 MB": b'{"x": "' + b"x" * (17 << 20) + b'"}',
    "nothing": b"",
}


@pytest.mark.parametrize("name", METADATA)
def test_hostile_metadata_costs_its_sample(name: str) -> None:
    with pytest.raises(BadSample) as caught:
        Where([Condition(field="json.x", matches="x")]).admits(Sample("k", 0, {"json": METADATA[name]}))
    assert caught.value.reason == "bad_metadata"
    assert len(caught.value.detail) < 500


@pytest.mark.parametrize(
    ("pattern", "found"), [("(a+)+$", False), ("(a|a)*$", True), ("a*a*a*a*a*b", False), ("^(a?){50}a{50}$", False)]
)
def test_no_expression_hangs(pattern: str, found: bool) -> None:
    """Each takes a backtracking engine for ever; `(a|a)*$` is found at the end, with nothing before it."""
    sample = Sample("k", 0, {"txt": b"a" * 100_000 + b"!"})
    assert Where([Condition(field="txt", matches=pattern)]).admits(sample) is found


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


OPERATORS = ["eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "exists", "matches"]


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(OPERATORS), values, max_size=3), values)
def test_any_condition_is_refused_or_judges_any_metadata(operators: dict[str, Any], metadata: Any) -> None:
    try:
        condition = Condition.model_validate({"field": "json.x", **operators})
    except ValueError:
        return
    sample = Sample("k", 0, {"json": json.dumps({"x": metadata}).encode()})
    try:
        assert Where([condition]).admits(sample) in (True, False)
    except BadSample as error:
        assert error.reason == "bad_metadata"


@given(st.binary(max_size=40))
def test_every_key_can_be_written_as_json(raw: bytes) -> None:
    key, decoded = decode_key(raw)
    assert json.loads(json.dumps(key).encode()) == key
    key.encode()
    if decoded and is_good_key(key):
        assert "\n" not in key
        assert "\0" not in key
