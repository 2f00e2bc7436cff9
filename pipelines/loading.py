"""Loading: a recipe from YAML, a mapping or a file, with overrides; every mistake named with its place."""

import difflib
import itertools
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from relabel.digests import Json
from relabel.errors import UnknownName, UsageError
from relabel.labelers import registry
from relabel.labelers.plugins import load_plugin

from .plain_yaml import parse_yaml
from .recipe import Recipe
from .section import Section

SHIPPED = Path(__file__).parent / "recipes"
MAX_SHOWN = 200
"""Characters of a wrong value that a message repeats."""


def load(recipe: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """A checked recipe.

    `recipe` is a path, the name of a shipped recipe (`label_map`), a mapping or a Recipe; `overrides` are
    `section.field=value` with YAML values. Raises UsageError that names the field and the nearest known one.
    """
    folders: list[Path] = []
    if isinstance(recipe, Recipe):
        fields: Any = recipe.to_json()
        where = "recipe"
    elif isinstance(recipe, Mapping):
        fields, where = dict(recipe), "recipe"
    else:
        path = find(recipe)
        fields, where = parse(read(path), str(path)), str(path)
        folders = [path.parent]
    for override in [overrides] if isinstance(overrides, str) else overrides:
        fields = overridden(fields, override)
    try:
        checked = Recipe.model_validate(fields)
    except ValidationError as error:
        raise UsageError(f"{where}: {explain(error, Recipe)}") from None
    for plugin in checked.plugins:
        load_plugin(plugin, folders)
    for step in checked.steps:
        check_parameters(step.operator, step.parameters, f"{where}: steps.{step.label}")
    return checked


S = TypeVar("S", bound=Section)


def load_as(model: type[S], recipe: str | Path | Mapping[str, Any] | S, overrides: Sequence[str], shipped: Path) -> S:
    """A checked recipe of another kind, as `load`; by its bare name one that lies in `shipped`."""
    if isinstance(recipe, Section):
        fields, where = recipe.model_dump(mode="json"), "recipe"
    elif isinstance(recipe, Mapping):
        fields, where = dict(recipe), "recipe"
    else:
        path = find(recipe, shipped)
        fields, where = parse(read(path), str(path)), str(path)
    for override in overrides:
        fields = assigned(fields, override, model)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise UsageError(f"{where}: {explain(error, model)}") from None


def find(recipe: str | Path, folder: Path = SHIPPED) -> Path:
    """The file that `recipe` names: a path, or a recipe shipped in `folder` by its bare name."""
    path = Path(recipe)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError) as error:
        raise UsageError(f"no recipe {shortened(str(recipe))}: {error}.") from None
    shipped = {file.stem: file for file in folder.glob("*.yaml")}
    if str(recipe) in shipped:
        return shipped[str(recipe)]
    raise UsageError(f"no recipe {str(recipe)!r}: expected a YAML file or one of {', '.join(sorted(shipped))}.")


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: expected a UTF-8 text file: {error}") from None


def lock_path(recipe: str | Path | Mapping[str, Any] | Recipe) -> Path | None:
    """The lock file beside a recipe file; a shipped recipe, or one that is not a file, has none."""
    if isinstance(recipe, Recipe | Mapping):
        return None
    path = find(recipe)
    return None if path.parent == SHIPPED else path.with_name(f"{path.stem}.lock.json")


def parse(text: str, where: str) -> Any:
    """YAML by the safe loader: plain data, no Python objects."""
    fields = parse_yaml(text, where)
    if not isinstance(fields, dict):
        raise UsageError(f"{where}: expected a mapping with source, steps and store, got {type(fields).__name__}.")
    return fields


def overridden(fields: Any, override: str) -> Any:
    """`fields` with one `a.b=value` applied.

    A list is entered by index, a step also by its operator or label; `label_map.top_k=3` is short for
    `steps.label_map.top_k=3`.
    """
    path, value = parse_override(override)
    for section, field in (("source", "path"), ("store", "url")):
        if len(path) > 1 and isinstance(fields.get(section), str):
            fields = {**fields, section: {field: fields[section]}}
    if path[0] not in Recipe.model_fields:
        held = fields.get("steps")
        steps = [step_names(step) for step in held] if isinstance(held, list | tuple) else []
        if not any(path[0] in names for names in steps):
            raise UnknownName("section or step", path[0], {*Recipe.model_fields, *itertools.chain(*steps)})
        path = ["steps", *path]
    return _assigned(fields, path, value, override)


def parse_override(override: str) -> tuple[list[str], Any]:
    """The place and the value of `a.b=value`."""
    name, equals, text = override.partition("=")
    path = name.split(".")
    if not equals or not all(path):
        raise UsageError(f"--set expects section.field=value, got {override!r}.")
    return path, parse_yaml(text, f"--set {override!r}")


def assigned(fields: Any, override: str, model: type[BaseModel]) -> Any:
    """`fields` of another kind of recipe with one `a.b=value` applied."""
    path, value = parse_override(override)
    if path[0] not in model.model_fields:
        raise UnknownName("section", path[0], model.model_fields)
    if path[0] == "source" and len(path) > 1 and isinstance(fields.get("source"), str):
        fields = {**fields, "source": {"path": fields["source"]}}
    return _assigned(fields, path, value, override)


def step_names(step: Any) -> set[str]:
    """What a step of the YAML may be called by: its operator, its label."""
    if not isinstance(step, dict):
        return {step} if isinstance(step, str) else set()
    names = [step["operator"], step.get("label")] if "operator" in step else [*step.keys() - {"as"}, step.get("as")]
    return {name for name in names if name}


def _assigned(node: Any, path: list[str], value: Any, override: str) -> Any:
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(node, list | tuple):
        index = _index(node, head, override)
        return [
            *node[:index],
            _assigned(node[index], _within_step(node[index], head, rest), value, override),
            *node[index + 1 :],
        ]
    if node is None or isinstance(node, dict):
        node = node or {}
        return {**node, head: _assigned(node.get(head), rest, value, override)}
    raise UsageError(f"--set {override!r}: {head!r} lies below {node!r}, which is not a section.")


def _within_step(step: Any, head: str, rest: list[str]) -> list[str]:
    """The way to a step's parameters, where the step was named and not numbered."""
    if head.isdigit() or not isinstance(step, dict):
        return rest
    return ["parameters", *rest] if "operator" in step else [next(iter(step.keys() - {"as"})), *rest]


def _index(steps: Sequence[Any], head: str, override: str) -> int:
    if head.isdigit() and int(head) < len(steps):
        return int(head)
    for index, step in enumerate(steps):
        if head in step_names(step):
            return index
    raise UsageError(f"--set {override!r}: no entry {head!r}; use an index from 0 to {len(steps) - 1} or a name.")


def check_parameters(operator: str, parameters: Mapping[str, Any], where: str) -> None:
    model = registry.labeler(operator).Parameters
    try:
        model.model_validate(dict(parameters))
    except ValidationError as error:
        raise UsageError(f"{where}: {explain(error, model)}") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Pydantic's findings as sentences: the field's place, what is wrong, the nearest known name."""
    return "; ".join(_sentence(finding, model) for finding in error.errors()[:5])


def _sentence(finding: Any, model: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in finding["loc"]) or "the recipe"
    if finding["type"] == "extra_forbidden":
        known = sorted(_known_fields(model, finding["loc"][:-1]))
        near = difflib.get_close_matches(str(finding["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}."
        return f"unknown field {place!r}; {hint}"
    if finding["type"] == "missing":
        return f"{place!r} is missing"
    message = re.sub(r"^Value error, ", "", finding["msg"])
    if finding["type"] == "tuple_type":
        message = "expected a list (`- label_map: {...}`)"
    given = "" if isinstance(finding["input"], dict) else f", got {shortened(finding['input'])}"
    return f"{place!r}: {message}{given}"


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _known_fields(model: type[BaseModel], place: Sequence[str | int]) -> set[str]:
    """Field names of the section at `place`."""
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            inner = _section_of(model.model_fields[part].annotation)
            model = inner if inner is not None else model
    return set(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (tuple, list, dict, typing.Union, types.UnionType):
        return next((found for arg in typing.get_args(annotation) if (found := _section_of(arg))), None)
    return None


def schema() -> Json:
    """JSON schema of a recipe for editors, with the parameters of every known operator."""
    document = Recipe.model_json_schema()
    steps = []
    for name, cls in registry.labelers().items():
        parameters = cls.Parameters.model_json_schema(ref_template=f"#/$defs/{name}/$defs/{{model}}")
        document["$defs"][name] = parameters
        steps.append(
            {
                "type": "object",
                "properties": {name: {"$ref": f"#/$defs/{name}"}, "as": {"type": "string"}},
                "required": [name],
                "additionalProperties": False,
                "description": (cls.__doc__ or "").partition("\n")[0],
            }
        )
    document["properties"]["steps"]["items"] = {"anyOf": steps}
    for section, model in (("source", "SourceConfig"), ("store", "StoreConfig")):
        document["properties"][section] = {"anyOf": [{"type": "string"}, {"$ref": f"#/$defs/{model}"}]}
    document["properties"]["gate"] = {"anyOf": [{"enum": ["off", False]}, {"$ref": "#/$defs/Gate"}]}
    # The kind is guessed from the path's suffix.
    document["$defs"]["SourceConfig"]["required"] = ["path"]
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return document
