"""Tuning state: how far tuning has come, in one file that is replaced whole: no pickle, no half a checkpoint.

Restored, it goes on bit for bit as if it had never ended.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from relabel.digests import Json
from relabel.errors import Refused, UsageError

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW remembers of every weight."""


@dataclasses.dataclass(frozen=True)
class Score:
    """The held-out captions of one style."""

    loss: float
    """Mean cross entropy of a token, in nats."""
    f1: float
    """Mean F1 of the words."""
    exact: float
    """The share of captions that are the person's, word for word."""
    count: int


@dataclasses.dataclass(frozen=True)
class Look:
    """One look at the held-out samples."""

    step: int
    training_loss: float
    """Mean over the tokens of the steps since the look before, in nats."""
    styles: Mapping[str, Score]

    @property
    def rank(self) -> tuple[float, float]:
        """The greater the better: mean word F1 of the styles, then what they are sure of."""
        scores = list(self.styles.values())
        return (sum(score.f1 for score in scores) / len(scores), -sum(score.loss for score in scores) / len(scores))

    def to_json(self) -> Json:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Any) -> "Look":
        styles = {name: Score(**score) for name, score in fields["styles"].items()}
        return cls(fields["step"], fields["training_loss"], styles)


class TuningState:
    """Weights that are tuned, their moments, the best weights so far, and every look."""

    def __init__(self, weights: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.AdamW) -> None:
        self.weights, self.optimizer = weights, optimizer
        self.looks: list[Look] = []
        self.best: dict[str, Tensor] = {}

    @property
    def step(self) -> int:
        """Steps done."""
        return self.looks[-1].step if self.looks else 0

    @property
    def best_look(self) -> Look:
        return max(self.looks, key=lambda look: (look.rank, -look.step))

    @property
    def waited(self) -> int:
        """Looks since the best one."""
        return len(self.looks) - 1 - self.looks.index(self.best_look) if self.looks else 0

    def note(self, look: Look) -> None:
        self.looks.append(look)
        if self.best_look is look:
            self.best = {name: value.detach().clone() for name, value in self.weights.items()}

    def checksums(self) -> list[int]:
        """Of the bits of every weight and its moments: the same for the same state."""
        known = [[value, *self.optimizer.state.get(value, {}).values()] for value in self.weights.values()]
        return [int(tensor.detach().view(torch.int32).sum(dtype=torch.int64)) for some in known for tensor in some]

    def save(self, file: Path, identity: str) -> None:
        tensors = {f"weights/{name}": value.detach() for name, value in self.weights.items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        for name, value in self.weights.items():
            remembered = self.optimizer.state.get(value, {})
            tensors |= {f"{moment}/{name}": remembered[moment] for moment in MOMENTS if moment in remembered}
        partial = file.with_suffix(".partial")
        looks = json.dumps([look.to_json() for look in self.looks])
        save_file(
            {name: value.contiguous().cpu() for name, value in tensors.items()}, partial,
            {"identity": identity, "looks": looks},
        )  # fmt: skip
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(file)

    def restore(self, file: Path, identity: str) -> None:
        """Raises UsageError where the checkpoint is another tuning's, Refused where it is damaged."""
        try:
            with safe_open(file, "pt") as stored:
                noted = stored.metadata() or {}
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise Refused(f"{file} cannot be read ({error}). Remove {file.parent} to begin anew.") from error
        if noted.get("identity") != identity:
            raise UsageError(
                f"{file.parent} holds another tuning (other data, model, styles, settings, devices or versions). Give "
                "another `output`, or remove that folder to begin anew."
            )
        self.looks = [Look.from_json(fields) for fields in json.loads(noted["looks"])]
        self.best = part(tensors, "best")
        self._put(part(tensors, "weights"), [part(tensors, moment) for moment in MOMENTS])

    def _put(self, weights: Mapping[str, Tensor], moments: Sequence[Mapping[str, Tensor]]) -> None:
        with torch.no_grad():
            for name, value in self.weights.items():
                value.copy_(weights[name])
                if name in moments[0]:
                    step, *means = (each[name] for each in moments)
                    kept = [step, *(mean.to(value.device) for mean in means)]
                    self.optimizer.state[value] = dict(zip(MOMENTS, kept, strict=True))


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
