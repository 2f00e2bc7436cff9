"""Recipes: what is right is loaded with defaults, what is wrong is named with its place and the nearest known name."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipelines.command_line import main
from pipelines.loading import SHIPPED, find, load, overridden, schema
from relabel.errors import UnknownName, UsageError
from relabel.labelers.mask import MaskParameters

RECIPE: dict[str, Any] = {
    "source": {"path": "shards/*.tar"},
    "steps": [{"label_map": {"model": "efficientnet-lite0", "input_size": 224}}],
    "store": "labels",
}


def test_short_forms_and_defaults() -> None:
    recipe = load(RECIPE)
    assert (recipe.steps[0].operator, recipe.steps[0].label, recipe.store.url) == ("label_map", "label_map", "labels")
    assert recipe.source.kind == "webdataset"
    assert load(recipe) == load(recipe.to_json()) == recipe


def test_as_names_a_label() -> None:
    recipe = load({**RECIPE, "steps": [{**RECIPE["steps"][0], "as": "teacher"}]})
    assert (recipe.steps[0].operator, recipe.steps[0].label) == ("label_map", "teacher")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sorce": {}}, "unknown field 'sorce'; did you mean 'source'?"),
        ({"source": {"path": "a/*.tar", "old_lable": 1}}, "unknown field 'source.old_lable'; did you mean 'old_label'"),
        ({"resources": {"actors": 0}}, "'resources.actors.min': Input should be greater than or equal to 1, got 0"),
        ({"steps": []}, "'steps': "),
        ({"steps": [{"lable_map": {}}]}, "unknown operator 'lable_map'; did you mean 'label_map'?"),
        ({"steps": [{"label_map": {"modle": "x"}}]}, "unknown field 'modle'; did you mean 'model'?"),
        ({"steps": RECIPE["steps"] * 2}, "two steps write the label 'label_map'"),
        ({"steps": [{"a": {}, "b": {}}]}, "a step names one operator"),
        ({"source": None}, "'source'"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load({**RECIPE, **change})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("label_map.top_k=3", ("steps", 0, "label_map", "top_k"), 3),
        ("steps.label_map.top_k=3", ("steps", 0, "label_map", "top_k"), 3),
        ("steps.0.label_map.top_k=3", ("steps", 0, "label_map", "top_k"), 3),
        ("resources.threads=2", ("resources", "threads"), 2),
        ("store=s3://bucket/x", ("store",), "s3://bucket/x"),
        ("store.storage_options.anon=true", ("store", "storage_options", "anon"), True),
        ("source.path=[a.tar, b.tar]", ("source", "path"), ["a.tar", "b.tar"]),
    ],
)
def test_overrides(override: str, place: tuple[str | int, ...], value: Any) -> None:
    found: Any = overridden(RECIPE, override)
    for part in place:
        found = found[part]
    assert found == value
    load(RECIPE, [override])
    assert RECIPE["steps"][0]["label_map"] == {"model": "efficientnet-lite0", "input_size": 224}


def test_overrides_reach_into_short_forms() -> None:
    recipe = load({**RECIPE, "source": "own.tar"}, ["source.old_label=cls", "store.storage_options.anon=true"])
    assert (recipe.source.path, recipe.source.old_label) == ("own.tar", "cls")
    assert (recipe.store.url, recipe.store.storage_options) == ("labels", {"anon": True})


def test_overrides_reach_a_loaded_recipe() -> None:
    assert load(load(RECIPE), ["label_map.top_k=3"]).steps[0].parameters["top_k"] == 3


@pytest.mark.parametrize("override", ["top_k", "=3", "steps.7.x=1", "a..b=1", "source.path.x=1", "name={"])
def test_bad_overrides_are_refused(override: str) -> None:
    with pytest.raises(UsageError):
        load(RECIPE, [override])


def test_an_unknown_section_is_named() -> None:
    with pytest.raises(UnknownName, match="did you mean 'label_map'"):
        load(RECIPE, ["label_mop.top_k=3"])


def test_files_that_are_not_recipes(tmp_path: Path) -> None:
    unsafe = tmp_path / "unsafe.yaml"
    unsafe.write_text("source: !!python/object/apply:os.system ['true']\n")
    for path, message in ((unsafe, "not valid YAML"), (tmp_path / "none.yaml", "no recipe")):
        with pytest.raises(UsageError, match=message):
            load(path)
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UsageError, match="expected a mapping"):
        load(tmp_path / "list.yaml")


def test_the_shipped_recipe_of_masks() -> None:
    """Its values are the labeler's own defaults, so that it documents them."""
    recipe = load("mask")
    [step] = recipe.steps
    assert (step.operator, step.label, recipe.name) == ("mask", "mask", "mask")
    assert recipe.resources.part_rows == 64
    parameters = MaskParameters.model_validate(step.parameters)
    assert parameters.model == "hf:nvidia/segformer-b0-finetuned-ade-512-512"
    assert parameters == MaskParameters(model=parameters.model)


def test_the_commands_list_masks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operators", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["mask"]["version"] == 1
    assert set(listed["mask"]["parameters"]["properties"]) == set(MaskParameters.model_fields)
    assert main(["operators"]) == 0
    assert "mask (version 1): Encoded image in; one class per pixel" in capsys.readouterr().out
    assert main(["schema"]) == 0
    described = json.loads(capsys.readouterr().out)["$defs"]["mask"]
    assert described["properties"]["confidence"]["default"] == 0.0


def test_shipped_recipes_load_and_match_the_schema() -> None:
    document = json.loads(json.dumps(schema()))
    shipped = sorted(SHIPPED.glob("*.yaml"))
    assert shipped
    for path in shipped:
        assert find(path.stem) == path
        load(path)
        jsonschema.validate(yaml.safe_load(path.read_text()), document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**RECIPE, "steps": [{"label_map": {"modle": 1}}]}, document)
