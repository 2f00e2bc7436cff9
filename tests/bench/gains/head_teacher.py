"""Head teacher: EfficientNet-lite0 with a head of one's own, read densely: a plugin, as a recipe names it.

`model` is a folder with `head.safetensors`, whose `weight` is [classes, 1280] and whose `bias` is [classes], and
`classes.json`, the names of the classes in order.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relabel import register
from relabel.labelers.checkpoints import find_checkpoint
from relabel.labelers.label_map import LabelMapLabeler

HEAD, CLASSES = "head.safetensors", "classes.json"
BODY = "efficientnet-lite0"


@register
class HeadTeacher(LabelMapLabeler):
    """A label map of that network."""

    name = "head_teacher"
    version = 1

    def open_classifier(self, revision: str | None) -> Any:
        from safetensors.torch import load_file
        from torch import nn

        from relabel.labelers.classifiers import from_module
        from relabel.labelers.families import load_classifier

        body = load_classifier(find_checkpoint(BODY))
        network: Any = body.network
        weights = load_file(self._folder / HEAD)
        network._fc = nn.Linear(body.head.in_features, len(weights["bias"]))
        network._fc.load_state_dict(weights)
        return from_module(
            network,
            features=network.extract_features,
            head=network._fc,
            normalisation=body.normalisation,
            class_names=json.loads((self._folder / CLASSES).read_text()),
        )

    def weight_files(self) -> Sequence[Path]:
        return (*find_checkpoint(BODY).files, self._folder / HEAD, self._folder / CLASSES)

    @property
    def _folder(self) -> Path:
        return Path(self.parameters.model)
