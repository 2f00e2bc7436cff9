"""KubeRay's custom resource definitions as JSON schemas, where they lie here; they are not ours to ship."""

import functools
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
FOLDERS = [
    Path(os.environ.get("RELABEL_SCHEMAS") or CHECKOUT / "shared" / "schemas"),
    CHECKOUT.parent / "shared" / "schemas",
]
"""RELABEL_SCHEMAS, or the folder `shared` in the checkout or beside it."""
FILES = {
    "RayJob": "ray.io_rayjobs.yaml",
    "RayCronJob": "ray.io_raycronjobs.yaml",
    "RayCluster": "ray.io_rayclusters.yaml",
}


@functools.cache
def schema(kind: str) -> dict[str, Any]:
    """Strict: a field that the definition does not know is an error, where the API server would drop it."""
    folder = next((each for each in FOLDERS if (each / FILES[kind]).is_file()), None)
    if folder is None:
        pytest.skip("KubeRay's custom resource definitions are not here")
    definition = yaml.load((folder / FILES[kind]).read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    version = next(each for each in definition["spec"]["versions"] if each["name"] == "v1")
    found = strict(version["schema"]["openAPIV3Schema"])
    found["properties"]["metadata"] = {"type": "object"}
    return dict(found)


def strict(node: Any) -> Any:
    if isinstance(node, list):
        return [strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    node = {name: strict(each) for name, each in node.items()}
    if node.get("x-kubernetes-int-or-string") is True:
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if isinstance(node.get("properties"), dict) and not node.get("x-kubernetes-preserve-unknown-fields"):
        node.setdefault("additionalProperties", False)
    return node


def complaints(each: dict[str, Any]) -> list[str]:
    """What KubeRay's definition says against an object."""
    validator = jsonschema.Draft202012Validator(schema(each["kind"]))
    return [f"{'.'.join(map(str, error.path))}: {error.message[:200]}" for error in validator.iter_errors(each)]
