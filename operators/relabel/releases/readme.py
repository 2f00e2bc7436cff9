"""Readme: what people read of a release, as a Hugging Face data card begins."""

from typing import Any

from ..digests import Json, canonical_json
from .versions import Version

LICENSE_UNKNOWN = "unknown"
TAGS = {
    "label_map": "dense-labels",
    "mask": "semantic-segmentation",
    "caption": "captions",
    "classes": "classification",
    "score": "scores",
    "embedding": "embeddings",
}
EXAMPLES = 12


def readme(version: Version, configs: Json = None, body: str = "") -> str:
    """YAML between two lines of `---`, then Markdown. `configs`: which files a loader takes; `body`: how to read them.

    The YAML is written as JSON, which YAML contains, so that no name or text can mean anything but itself.
    """
    kinds = sorted({label.contract.kind for label in version.labels.values()})
    head: dict[str, Any] = {
        "license": license_of(version) or LICENSE_UNKNOWN,
        "pretty_name": f"{name_of(version)}, release {version.version}",
        "tags": ["relabel", "machine-labelled", *(TAGS[kind] for kind in kinds)],
        "size_categories": [size_category(version.counts.ok)],
        **({"configs": configs} if configs else {}),
    }
    lines = [f"{name}: {canonical_json(value).decode()}" for name, value in head.items()]
    return "\n".join(
        ["---", *lines, "---", "", f"# {name_of(version)}", "", paragraph(version), "", *told(version), body]
    )


def name_of(version: Version) -> str:
    """Of the recipe; `labels` where the release was made without one."""
    return str((version.recipe or {}).get("name") or "labels")


def license_of(version: Version) -> str:
    """As the recipe says; "" where it says nothing."""
    return str((version.recipe or {}).get("license") or "")


def paragraph(version: Version) -> str:
    counts = version.counts
    labels = ", ".join(f"{name} ({label.contract.kind})" for name, label in version.labels.items())
    return (
        f"Labels of {counts.ok} samples in {counts.shards} shards of {(version.source or {}).get('root', 'a data set')}"
        f", made by programs: {labels}. Release {version.version} of its store, content digest "
        f"{version.content_digest}." + (f" It is partial: {version.coverage:.1%} of the source." * version.partial)
    )


def told(version: Version) -> list[str]:
    """Every label: who made it, and its columns; then how many samples have none."""
    lines = []
    for name, label in version.labels.items():
        lines += [
            f"## {name}",
            "",
            f"{label.contract.kind} by {label.operator} version {label.version}, fingerprint `{label.fingerprint}`.",
            "",
            "| Column | Type | Axes |",
            "|---|---|---|",
        ]
        for column in label.contract.columns:
            axes = ", ".join(f"{axis}={length}" for axis, length in zip(column.axes, column.shape, strict=True))
            lines.append(f"| `{column.name}` | `{column.dtype}` | {axes} |")
        if label.class_names:
            shown = ", ".join(label.class_names[:EXAMPLES])
            more = ", ..." if len(label.class_names) > EXAMPLES else ""
            lines += ["", f"{len(label.class_names)} classes: {shown}{more}"]
        lines.append("")
    counts = version.counts
    reasons = ", ".join(f"{number} {reason}" for reason, number in counts.reasons.items())
    left = f"{counts.dead} dead and {counts.filtered} filtered samples" + (f" ({reasons})" if reasons else "")
    return [*lines, "## What has no label", "", f"{left}; {counts.dead_shards} shards could not be read.", ""]


def size_category(rows: int) -> str:
    """As the Hub has them."""
    bounds = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
    return next((name for bound, name in bounds if rows < bound), "10M<n<100M" if rows < 10**8 else "n>100M")
