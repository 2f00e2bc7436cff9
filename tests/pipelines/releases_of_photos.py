"""What tests of whole runs share: archives, and what a release holds."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import relabel
from relabel.releases.release import Release


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar of these members, in order, without times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def photo_recipe(shards: Path, store: str, **sections: Any) -> dict[str, Any]:
    """Label maps of 64 px inputs (2 x 2 cells) of the demo's shards."""
    return {
        "source": {"path": f"{shards}/*.tar", "old_label": "cls"},
        "steps": [{"label_map": {"model": "efficientnet-lite0", "input_size": 64}}],
        "store": store,
        "resources": {"actors": 1},
        **sections,
    }


def open_release(store: str, **options: Any) -> relabel.Release:
    return relabel.open(store, **options).release()


def shas(release: Release) -> dict[str, str]:
    """Shard name -> sha256 of its label shard."""
    entries = {name: release.entry(name) for name in release.shards}
    return {name: entry.data.sha256 for name, entry in entries.items() if entry.data is not None}
