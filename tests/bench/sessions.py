"""Sessions: a local Ray as `pipelines.cluster` starts one, its object store small, so that readers cannot run far
ahead and what is measured is a steady state.
"""

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from pipelines.cluster import ALLOCATOR

OBJECT_STORE_BYTES = 1200 << 20


@contextlib.contextmanager
def local_ray() -> Iterator[None]:
    """Workers import what this process imports: `run.py` sets PYTHONPATH."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # Ray's socket paths must be short
    ray.init(
        "local",
        num_cpus=max(os.cpu_count() or 1, 3),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {**ALLOCATOR, "PYTHONPATH": os.environ["PYTHONPATH"]}},
        _temp_dir=folder,
    )
    try:
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def recipe(source: str, store: Path, step: dict[str, Any], **resources: int) -> dict[str, Any]:
    """One step over a source into a fresh store, by one actor."""
    return {
        "name": "bench",
        "source": source,
        "steps": [step],
        "store": str(store),
        "resources": {"actors": 1, **resources},
    }
