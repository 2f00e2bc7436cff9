"""Tuning data: images with what people wrote about them, read once, known by digest, and split by key."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence

from relabel.digests import Json, digest, sample_digest
from relabel.errors import BadSample, TooManyDeadLetters, UsageError
from relabel.labelers.images import decode_image
from relabel.reasons import Reason
from relabel.shards.shard import Sample
from relabel.shards.source import SourceConfig, pick, selection

from .opening import open_source
from .tuning_recipe import TunedStyle, TuningRecipe

WHOLE = 1 << 64
TOP_WORDS = 30_000
"""The most words that a new captioner knows."""


@dataclasses.dataclass(frozen=True)
class Example:
    """One image and its captions."""

    key: str
    """Shard and key: unique in the source."""
    image: bytes
    captions: Mapping[str, str]
    """By style; at least one."""
    pixels: bytes = b""
    """Digest of what is seen, however it is stored."""


@dataclasses.dataclass(frozen=True)
class TuningData:
    """Everything that a source gave."""

    training: Sequence[Example]
    """Sorted by key."""
    held_out: Sequence[Example]
    """Sorted by key; no image of them is also in `training`."""
    source: str
    """Digest of the shards' names and bytes."""
    selection: str
    """Digest of which samples and fields were read."""
    shards: int
    unusable: Mapping[str, int]
    """Samples by the reason why they were left out."""
    repeated: int
    """Held-out samples left out because their image is in `training`, too."""

    def describe(self) -> dict[str, Json]:
        """Digests and counts."""
        return {
            "source": self.source,
            "selection": self.selection,
            "shards": self.shards,
            "training": len(self.training),
            "held_out": len(self.held_out),
            "repeated": self.repeated,
            "unusable": dict(sorted(self.unusable.items())),
        }

    @property
    def words(self) -> list[str]:
        """Of the training captions, sorted; of very many the most frequent ones."""
        counts = Counter(word for each in self.training for text in each.captions.values() for word in text.split())
        return sorted(word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP_WORDS])


def read_tuning_data(recipe: TuningRecipe) -> TuningData:
    """Raises UsageError where a side would be empty, TooManyDeadLetters, and BadShard where a shard cannot be read."""
    source = open_source(recipe.source)
    examples: list[Example] = []
    unusable: Counter[str] = Counter()
    files = []
    for shard in source.shards():
        reading = source.read(shard)
        for sample in reading:
            try:
                if recipe.source.where_admits(sample):
                    examples.append(read_example(recipe.source, recipe.styles, shard.name, sample))
            except BadSample as error:
                unusable[error.reason] += 1
        files.append([shard.name, reading.content_sha256])
    check_budget(recipe, len(examples), unusable)
    return split(recipe, examples, unusable, files)


def read_example(source: SourceConfig, styles: Mapping[str, TunedStyle], shard: str, sample: Sample) -> Example:
    """Raises BadSample where there is no whole image or no caption."""
    image = pick(source, sample, "image")
    if not isinstance(image, bytes):
        raise BadSample(Reason.NOT_AN_IMAGE, f"the image field holds {type(image).__name__}, expected bytes")
    seen = decode_image(image)
    captions = {name: " ".join(text(sample, style.field).split()) for name, style in styles.items()}
    captions = {name: caption for name, caption in captions.items() if caption}
    if not captions:
        raise BadSample(Reason.MISSING_FIELD, f"none of {', '.join(style.field for style in styles.values())}")
    pixels = sample_digest(repr(seen.shape).encode() + seen.tobytes())
    return Example(f"{shard}/{sample.key}", image, captions, pixels)


def text(sample: Sample, field: str) -> str:
    """A field as text; empty where there is none."""
    value = sample.fields.get(field)
    try:
        return value.decode() if isinstance(value, bytes) else "" if value is None else str(value)
    except UnicodeDecodeError as error:
        raise BadSample(Reason.BAD_METADATA, f"{field} is not UTF-8: {error}") from None


def check_budget(recipe: TuningRecipe, num_usable: int, unusable: Mapping[str, int]) -> None:
    budget, dead = recipe.dead_letters, sum(unusable.values())
    if dead > max(budget.allow, budget.max_fraction * (num_usable + dead)):
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(unusable.items()))
        raise TooManyDeadLetters(
            f"{dead} of {num_usable + dead} samples cannot be used ({reasons}); dead_letters allows {budget.allow}, or "
            f"{budget.max_fraction:.0%}. Mend the source, the fields of the styles, or raise the budget."
        )


def split(
    recipe: TuningRecipe, examples: Sequence[Example], unusable: Mapping[str, int], files: Sequence[Sequence[str]]
) -> TuningData:
    ordered = sorted(examples, key=lambda each: each.key)
    held = {each.key for each in ordered if is_held_out(each.key, recipe.train.seed, recipe.held_out)}
    training = [each for each in ordered if each.key not in held]
    known = {each.pixels for each in training}
    held_out = [each for each in ordered if each.key in held and each.pixels not in known]
    if not training or not held_out:
        raise UsageError(
            f"{len(examples)} usable samples give {len(training)} to train on and {len(held_out)} held out; both need "
            "some. Give more samples, another `held_out` or another seed."
        )
    told = {name for each in training for name in each.captions}
    if untold := [f"{name} (field {style.field!r})" for name, style in recipe.styles.items() if name not in told]:
        raise UsageError(
            f"no sample to train on has a caption in the style {', '.join(untold)}. Correct the `field`, or leave the "
            "style out."
        )
    return TuningData(
        training=training,
        held_out=held_out,
        source=digest(list(files)),
        selection=digest([selection(recipe.source), {name: each.field for name, each in recipe.styles.items()}]),
        shards=len(files),
        unusable=dict(unusable),
        repeated=len(held) - len(held_out),
    )


def is_held_out(key: str, seed: int, share: float) -> bool:
    """A function of key and seed alone: a source that grows moves no sample to the other side."""
    return int(digest(["held out", seed, key])[:16], 16) < share * WHOLE


class Order:
    """Which samples, in which styles, make which step: a function of the seed and the step."""

    def __init__(self, examples: Sequence[Example], batch: int, seed: int) -> None:
        self.keys = [example.key for example in examples]
        self.styles = [sorted(example.captions) for example in examples]
        self.batch, self.seed = batch, seed
        self.epoch = functools.lru_cache(maxsize=2)(self._epoch)

    def step(self, number: int) -> list[tuple[int, str]]:
        """Indices of samples with a style each. Epochs follow each other without a seam."""
        positions = range(number * self.batch, (number + 1) * self.batch)
        return [self.place(*divmod(position, len(self.keys))) for position in positions]

    def place(self, epoch: int, position: int) -> tuple[int, str]:
        """A sample goes through its styles in turn, from one of its own choice."""
        index = self.epoch(epoch)[position]
        first = int(digest(["style", self.seed, self.keys[index]])[:16], 16)
        return index, self.styles[index][(first + epoch) % len(self.styles[index])]

    def _epoch(self, number: int) -> list[int]:
        """Every sample once, by a digest of seed, epoch and key."""
        return sorted(range(len(self.keys)), key=lambda index: digest([self.seed, number, self.keys[index]]))
