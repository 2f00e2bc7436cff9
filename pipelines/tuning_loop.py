"""Tuning loop: steps, looks at the held-out samples, checkpoints; a function of data, model and settings alone.

Nothing depends on when it was interrupted: order, styles and dropout are drawn by (seed, step), and a checkpoint holds
everything else.
"""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from relabel.digests import digest
from relabel.errors import DeviceFailed, Refused
from relabel.metrics.caption_match import word_f1, words_of

from .tuning_data import Order, TuningData
from .tuning_features import Features
from .tuning_group import Group
from .tuning_model import MARGIN, TunedModel, chunks
from .tuning_recipe import Training
from .tuning_state import Look, Score, TuningState

CHECKPOINT = "checkpoint.safetensors"
LOOK_ROWS = 32
"""Held-out samples at a time."""
LOWEST = 0.02
"""Of the learning rate, at the end."""
Say = Callable[[str], None]


class Tuning:
    """One tuning, at the step where its checkpoint left it."""

    def __init__(
        self, model: TunedModel, data: TuningData, features: Features, settings: Training, work: Path, identity: str,
        group: Group,
    ) -> None:  # fmt: skip
        self.model, self.data, self.features, self.settings = model, data, features, settings
        self.file, self.identity, self.group = work / CHECKPOINT, identity, group
        self.order = Order(data.training, settings.batch, settings.seed)
        weights = model.trained()
        self.optimizer = torch.optim.AdamW(
            list(weights.values()), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay
        )
        self.state = TuningState(weights, self.optimizer)
        texts = {text for each in data.training for text in each.captions.values()}
        self.longest = max(len(model.ids(text)) for text in texts) + MARGIN
        if group.first(self.file.is_file):
            self.state.restore(self.file, identity)

    @property
    def ended(self) -> bool:
        return self.state.step >= self.settings.steps or self.state.waited >= self.settings.patience

    def run(self, say: Say) -> TuningState:
        """Until the steps are done or looks stay without a better one."""
        self.require_one_state()
        while not self.ended:
            first = self.state.step
            end = min(first + self.settings.evaluate_every, self.settings.steps)
            loss = self.train(first, end)
            look = self.group.first(functools.partial(self.look, end, loss))
            require_numbers(look, self.file.parent)
            self.require_one_state()
            self.state.note(look)
            if self.group.rank == 0:
                self.state.save(self.file, self.identity)
            self.group.wait()
            say(told(look, best=self.state.best_look is look))
        return self.state

    def train(self, first: int, end: int) -> float:
        """Steps `first` .. `end`; returns the mean loss of a token."""
        self.model.network.train()
        total, tokens = 0.0, 0.0
        for step in range(first, end):
            loss, count = self.step(step)
            total, tokens = total + loss, tokens + count
        return total / tokens

    def step(self, number: int) -> tuple[float, float]:
        """One step; returns the summed loss of the whole group and over how many tokens."""
        settings, weights = self.settings, self.state.weights
        self.optimizer.zero_grad()
        mine = self.backward(number)
        reached = [float(value.grad is not None) for value in weights.values()]
        loss, count, *reached = self.group.totals([*mine, *reached])
        gradients = [gradient(value) for value, devices in zip(weights.values(), reached, strict=True) if devices]
        self.group.sum(gradients)
        for each in gradients:
            each.div_(count)
        torch.nn.utils.clip_grad_norm_(list(weights.values()), settings.clip)
        for share in self.optimizer.param_groups:
            share["lr"] = settings.learning_rate * share_of_rate(settings, number)
        self.optimizer.step()
        return loss, count

    def backward(self, number: int) -> tuple[float, float]:
        """The gradients of this device's share of a step; none where the batch has too few samples for it."""
        share = self.order.step(number)[self.group.rank :: self.group.size]
        if not share:
            return 0.0, 0.0
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(digest(["step", self.settings.seed, number, self.group.rank])[:15], 16))
            loss, count = self.loss(share)
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), float(count)

    def loss(self, batch: Sequence[tuple[int, str]]) -> tuple[torch.Tensor, int]:
        features = self.features.of([index for index, _ in batch])
        features = self.model.thinned(features, self.settings.feature_dropout)
        styles = [style for _, style in batch]
        tokens = self.model.tokens(styles, [self.data.training[index].captions[style] for index, style in batch])
        return self.model.loss(features, tokens), tokens.count

    def require_one_state(self) -> None:
        """Raises DeviceFailed where this device's weights are not, bit for bit, those of the first."""
        if self.group.size > 1 and self.group.first(self.state.checksums) != self.state.checksums():
            raise DeviceFailed(
                f"at step {self.state.step} device {self.group.rank + 1} of {self.group.size} has other weights than "
                f"the first: one of them computes wrongly. Run it again, without that device if it happens again."
            )

    @torch.inference_mode()
    def look(self, step: int, training_loss: float) -> Look:
        """The held-out captions of every style."""
        self.model.network.eval()
        scores = {style: self.score(style) for style in self.model.styles}
        return Look(step, training_loss, {style: score for style, score in scores.items() if score is not None})

    def score(self, style: str) -> Score | None:
        """None where no held-out sample has the style."""
        first = len(self.data.training)
        rows = [(first + index, each) for index, each in enumerate(self.data.held_out) if style in each.captions]
        if not rows:
            return None
        loss, tokens, f1, exact = 0.0, 0, 0.0, 0
        for some in chunks(rows, LOOK_ROWS):
            features = self.features.of([index for index, _ in some])
            golds = [each.captions[style] for _, each in some]
            wanted = self.model.tokens([style] * len(golds), golds)
            loss, tokens = loss + float(self.model.loss(features, wanted)), tokens + wanted.count
            for said, gold in zip(self.model.write(features, style, self.longest), golds, strict=True):
                pair = words_of(said), words_of(gold)
                f1, exact = f1 + word_f1(*pair), exact + (pair[0] == pair[1])
        return Score(loss / tokens, f1 / len(rows), exact / len(rows), len(rows))


def gradient(value: torch.nn.Parameter) -> torch.Tensor:
    """Zeros where only other devices have one."""
    if value.grad is None:
        value.grad = torch.zeros_like(value)
    return value.grad


def share_of_rate(settings: Training, step: int) -> float:
    """Of the learning rate: rising along `warmup`, then falling along half a cosine."""
    falling = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return min(1.0, (step + 1) / max(1, settings.warmup)) * max(LOWEST, falling)


def require_numbers(look: Look, work: Path) -> None:
    """Raises Refused where a loss is no number: what comes after it is none, either."""
    losses = {"training": look.training_loss, **{name: score.loss for name, score in look.styles.items()}}
    if lost := [f"{name} {loss}" for name, loss in losses.items() if not math.isfinite(loss)]:
        raise Refused(
            f"the tuning diverged before step {look.step} (loss: {', '.join(lost)}). Remove {work} and give a lower "
            "train.learning_rate, a lower train.clip or more train.warmup."
        )


def told(look: Look, best: bool) -> str:
    styles = "; ".join(
        f"{name} loss {score.loss:.3f}, F1 {score.f1:.3f}, exact {score.exact:.3f}"
        for name, score in look.styles.items()
    )
    return f"step {look.step:>6}   training loss {look.training_loss:.3f}   held out: {styles}{'   best' * best}"
