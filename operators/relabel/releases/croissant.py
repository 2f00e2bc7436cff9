"""Croissant: a release as Croissant 1.0 metadata (JSON-LD), with the fields for data that machines labelled (RAI).

https://docs.mlcommons.org/croissant/docs/croissant-spec.html. Metadata only: the segments list every label shard with
its sha256 and are files with a digest of their own here; the label shards are one file set. No promise is made that a
Croissant loader can stream their records.
"""

from collections.abc import Sequence

from ..about import __version__
from ..digests import Json
from ..labels.contract import Column
from .readme import LICENSE_UNKNOWN, license_of, name_of, paragraph
from .segments import Entry
from .versions import LabelIdentity, Version

MAX_NAMED = 1_000
"""Label shards that the file set names one by one; of more it gives the folders, and the segments say which count."""
CONTEXT: Json = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
PARQUET = "application/x-parquet"
ROWS = {
    "key": "The sample's key in its shard.",
    "sample_digest": "The first 16 bytes of the sha256 of the media that was labelled.",
    "status": "ok, dead (it could not be labelled) or filtered; label columns are null unless it is ok.",
    "reason": "Why it is dead or filtered.",
}


def describe(version: Version, entries: Sequence[Entry]) -> Json:
    """Paths are relative to the folder of the cards, so that a store can be copied."""
    data = [entry.data.path for entry in entries if entry.data is not None]
    paths = data if len(data) <= MAX_NAMED else sorted({f"{path.rpartition('/')[0]}/*.parquet" for path in data})
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": name_of(version),
        "description": paragraph(version),
        "version": f"{version.version}.0.0",
        "datePublished": version.created,
        "license": license_of(version) or LICENSE_UNKNOWN,
        "creator": {"@type": "sc:Organization", "name": f"relabel {__version__}, run {version.run_id}"},
        "url": str((version.source or {}).get("root", "")) or "..",
        "citeAs": f"{name_of(version)}, release {version.version}, content {version.content_digest}",
        "keywords": ["labels", *sorted({label.contract.kind for label in version.labels.values()})],
        "isLiveDataset": False,
        **responsible(version),
        "distribution": [*manifests(version), file_set(paths, len(data))],
        "recordSet": [record_set(version)],
    }


def responsible(version: Version) -> dict[str, Json]:
    """What who trains on labels of a machine must know."""
    counts = version.counts
    made = [
        f"{name}: {label.operator} version {label.version}, fingerprint {label.fingerprint}"
        for name, label in version.labels.items()
    ]
    numerics = ", ".join(f"{name[:16]} ({each['shards']} shards)" for name, each in version.numerics.items())
    source = version.source or {}
    return {
        "rai:dataCollection": f"Made by a program from the data set at {source.get('root', 'unknown')}, whose shards "
        f"have the manifest {source.get('manifest', 'unknown')}. No data was collected for it.",
        "rai:dataAnnotationProtocol": "Labelled by machines, not by people. " + "; ".join(made) + ".",
        "rai:dataAnnotationPlatform": [f"relabel {__version__}"],
        "rai:machineAnnotationTools": [
            f"{label.operator} version {label.version}" for label in version.labels.values()
        ],
        "rai:annotationsPerItem": "1",
        "rai:dataPreprocessingProtocol": [f"Numerics: {numerics or 'unknown'}."],
        "rai:dataLimitations": f"{counts.ok} of {counts.samples} samples are labelled, {counts.dead} could not be and "
        f"{counts.filtered} were left out; {counts.dead_shards} of {counts.shards} shards could not be read; coverage "
        f"of the source {version.coverage:.4f}. Labels have the errors and biases of the models that made them.",
        "rai:dataReleaseMaintenancePlan": "A release never changes. Samples that are withdrawn and releases that are "
        "recalled are named by objects beside it in the store, which relabel's readers honour.",
    }


def manifests(version: Version) -> list[Json]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": f"manifest-{number}",
            "name": f"manifest-{number}",
            "description": f"Lists {ref.entries} label shards with path, size and sha256; a later manifest's row for a "
            "shard replaces an earlier one.",
            "contentUrl": f"../{ref.path}",
            "contentSize": f"{ref.size_bytes} B",
            "encodingFormat": PARQUET,
            "sha256": ref.sha256,
        }
        for number, ref in enumerate(version.segments)
    ]


def file_set(paths: Sequence[str], count: int) -> Json:
    named = "All are named." if count == len(paths) else "Only those that the manifests list: the folders hold others."
    return {
        "@type": "cr:FileSet",
        "@id": "label-shards",
        "name": "label-shards",
        "description": f"{count} label shards, one per source shard. {named}",
        "encodingFormat": PARQUET,
        "includes": [f"../{path}" for path in paths],
    }


def record_set(version: Version) -> Json:
    columns = [
        field(column.name, data_type(column), told(name, label, column))
        for name, label in version.labels.items()
        for column in label.contract.columns
    ]
    rows = [field(name, "sc:Text", text) for name, text in ROWS.items()]
    return {
        "@type": "cr:RecordSet",
        "@id": "labels",
        "name": "labels",
        "description": "One row per sample of the source, in its order.",
        "field": [*rows, *columns],
    }


def field(name: str, kind: str, text: str) -> Json:
    return {
        "@type": "cr:Field",
        "@id": f"labels/{name}",
        "name": name,
        "description": text,
        "dataType": kind,
        "source": {"fileSet": {"@id": "label-shards"}, "extract": {"column": name}},
    }


def data_type(column: Column) -> str:
    """Arrays lie in bytes, for which Croissant 1.0 has no type but text."""
    if column.shape or column.dtype in ("string", "bytes"):
        return "sc:Text"
    kind = column.dtype.rpartition(":")[2]
    if kind in ("|b1", "string"):
        return "sc:Boolean" if kind == "|b1" else "sc:Text"
    return "sc:Float" if kind[1] == "f" else "sc:Integer"


def told(name: str, label: LabelIdentity, column: Column) -> str:
    axes = ", ".join(f"{axis}={length}" for axis, length in zip(column.axes, column.shape, strict=True))
    return f"Of the label {name} ({label.contract.kind}): {column.dtype}" + (f" [{axes}]" if axes else "") + "."
