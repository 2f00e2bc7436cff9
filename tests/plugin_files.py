"""Plugin files: small plugins to write into a folder."""

from pathlib import Path

CODE = '''"""A plugin of one labeler."""

import numpy as np

from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, register, scores


@register
class NAMELabeler(Labeler[Parameters]):
    """How many bytes a sample has."""

    name, version = "NAME", VERSION

    def writes(self) -> LabelContract:
        return scores(self.label, "bytes")

    def prepare(self, sample: Fields) -> Prepared:
        return {"bytes": np.array(len(sample["image"]))}

    def __call__(self, batch: Batch) -> Labels:
        return self.columns(bytes=batch["bytes"])
'''


def code(name: str, version: int = 1) -> str:
    return CODE.replace("NAME", name).replace("VERSION", str(version))


def write_plugin(path: Path, name: str, version: int = 1) -> Path:
    """A plugin file that registers the labeler `name`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code(name, version))
    return path
