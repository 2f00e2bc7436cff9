"""Lineage: the OpenLineage event of a publication, and its delivery where somebody listens.

https://openlineage.io/spec/2-0-2/OpenLineage.json: one RunEvent of type COMPLETE per release. It is always a file of
the store; it is sent to OPENLINEAGE_URL where that variable is set, after the commit, and no failure to do so matters.
"""

import http.client
import json
import logging
import os
import urllib.request
import uuid
from typing import Any
from urllib.parse import urlsplit

from ..about import DISTRIBUTION, __version__
from ..digests import Json
from ..redaction import redacted
from .versions import Version

SPEC = "https://openlineage.io/spec"
PRODUCER = f"urn:{DISTRIBUTION}:{__version__}"
SECONDS = 5.0
"""Until a listener that does not answer is given up."""


def event(store_url: str, version: Version) -> Json:
    """Who labelled what with what. The run's UUID is a digest of store and run id."""
    namespace, name = dataset_name(store_url)
    return {
        "eventType": "COMPLETE",
        "eventTime": version.created,
        "producer": PRODUCER,
        "schemaURL": f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{store_url}#{version.run_id}")), "facets": run(version)},
        "job": {"namespace": namespace, "name": job_name(version), "facets": job()},
        "inputs": [source(version)],
        "outputs": [
            {
                "namespace": namespace,
                "name": name,
                "facets": {
                    "version": facet("1-0-1/DatasetVersionDatasetFacet", datasetVersion=str(version.version)),
                    "schema": facet("1-2-0/SchemaDatasetFacet", fields=columns(version)),
                    "columnLineage": facet("1-2-0/ColumnLineageDatasetFacet", fields=origins(version)),
                },
                "outputFacets": {
                    "outputStatistics": facet(
                        "1-0-2/OutputStatisticsOutputDatasetFacet",
                        rowCount=version.counts.samples,
                        fileCount=version.counts.shards - version.counts.dead_shards,
                    )
                },
            }
        ],
    }


def facet(schema: str, **fields: Json) -> dict[str, Json]:
    name = schema.partition("/")[2]
    return {"_producer": PRODUCER, "_schemaURL": f"{SPEC}/facets/{schema}.json#/$defs/{name}", **fields}


def run(version: Version) -> dict[str, Json]:
    """What made it; `relabel` is a facet of our own."""
    own = {"runId": version.run_id, "contentDigest": version.content_digest, "coverage": version.coverage,
           "labels": {name: label.fingerprint for name, label in version.labels.items()},
           "counts": version.counts.model_dump(mode="json")}  # fmt: skip
    return {
        "processing_engine": facet("1-1-1/ProcessingEngineRunFacet", version=__version__, name="relabel"),
        "relabel": {"_producer": PRODUCER, "_schemaURL": f"{PRODUCER}:run", **own},
    }


def job() -> dict[str, Json]:
    kind = {"processingType": "BATCH", "integration": "RELABEL", "jobType": "JOB"}
    return {"jobType": facet("2-0-4/JobTypeJobFacet", **kind)}


def job_name(version: Version) -> str:
    return str((version.recipe or {}).get("name") or "relabel")


def source(version: Version) -> Json:
    namespace, name = source_name(version)
    manifest = str((version.source or {}).get("manifest", ""))
    facets = {"version": facet("1-0-1/DatasetVersionDatasetFacet", datasetVersion=manifest)} if manifest else {}
    return {"namespace": namespace, "name": name, "facets": facets}


def source_name(version: Version) -> tuple[str, str]:
    return dataset_name(str((version.source or {}).get("root") or "unknown"))


def dataset_name(url: str) -> tuple[str, str]:
    """Namespace and name as OpenLineage spells them: `s3://bucket` and a prefix, `file` and a path."""
    parts = urlsplit(url)
    if "://" not in url or parts.scheme == "file":
        return "file", parts.path or url
    return f"{parts.scheme}://{parts.netloc}", parts.path.strip("/") or "/"


def columns(version: Version) -> list[Json]:
    return [
        {"name": column.name, "type": column.dtype + (str(list(column.shape)) if column.shape else "")}
        for label in version.labels.values()
        for column in label.contract.columns
    ]


def origins(version: Version) -> dict[str, Json]:
    """Every label column comes of the fields that the recipe reads."""
    namespace, name = source_name(version)
    selection: Any = version.selection or {}
    fields = [field for choice in selection.get("fields", {}).values() for field in choice[:1]]
    read = [{"namespace": namespace, "name": name, "field": field} for field in fields]
    return {
        column.name: {"inputFields": read, "transformationDescription": f"{label.operator} version {label.version}",
                      "transformationType": "DIRECT"}
        for label in version.labels.values()
        for column in label.contract.columns
    }  # fmt: skip


def listener() -> str:
    """OPENLINEAGE_URL, or "" where it is not set."""
    return os.environ.get("OPENLINEAGE_URL", "").strip()


def send(text: bytes) -> None:
    """POST an event to the listener; whatever goes wrong is said in a log, for the release is published.

    OPENLINEAGE_ENDPOINT is the path there, OPENLINEAGE_API_KEY a bearer token.
    """
    url = listener()
    try:
        post(f"{url.rstrip('/')}/{os.environ.get('OPENLINEAGE_ENDPOINT', 'api/v1/lineage').lstrip('/')}", text)
    except (OSError, ValueError, http.client.HTTPException) as error:
        logging.getLogger("relabel").warning(
            "the release is published, but its OpenLineage event did not reach OPENLINEAGE_URL (%s): %s. `relabel card "
            "STORE --format lineage` prints it.", redacted(url), redacted(str(error)),
        )  # fmt: skip


def post(url: str, text: bytes) -> None:
    """Raises OSError, ValueError or HTTPException."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("expected http:// or https://")
    token = os.environ.get("OPENLINEAGE_API_KEY")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url, json.dumps(json.loads(text)).encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        answer.read()
