"""Gallery: some samples of a release with their media and labels, chosen without looking, for the preview."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from relabel.errors import BadShard, UsageError
from relabel.labels.caption import Caption
from relabel.labels.label_map import LabelMap
from relabel.labels.mask import Mask
from relabel.reasons import Status
from relabel.releases.release import Release
from relabel.shards.shard import Sample, Shard
from relabel.shards.source import SourceConfig

from .drawing import PreviewSample
from .opening import open_source
from .photos import photo
from .preview import KINDS, drawable, render


def preview(release: Release, out: str | Path, count: int) -> list[str]:
    """Draws `count` samples of a release as a PNG; returns their keys. The media are read from the release's source."""
    if not Path(out).absolute().parent.is_dir() or Path(out).is_dir():
        raise UsageError(f"--out expects a file in a folder that exists, got {str(out)!r}.")
    label = drawable(release.labels)
    if label is None:
        found = ", ".join(f"{name} ({contract.kind})" for name, contract in release.labels.items())
        raise UsageError(f"preview draws labels of the kinds {', '.join(KINDS)}; this release has {found}.")
    samples = list(gather(release, label, count))
    render(samples, Path(out), release.labels[label].kind)
    return [sample.title for sample in samples]


def gather(release: Release, label: str, count: int) -> Iterator[PreviewSample]:
    """About `count` labelled samples, spread evenly over the shards."""
    class_names = release.version.labels[label].class_names
    config = SourceConfig.model_validate(release.recipe["source"])
    source = open_source(config)
    shards = {shard.name: shard for shard in source.shards()}
    names = [name for name in release.shards if name in shards and release.entry(name).ok]
    for name, share in shares(names, count):
        keys = chosen(release, name, share)
        for sample in find(config, shards[name], keys):
            value = release.get(name, sample.key)[label]
            yield preview_sample(config, sample, value, class_names, old_label(config, sample, class_names))


def shares(names: Sequence[str], count: int) -> list[tuple[str, int]]:
    """At most `count` shards, evenly spaced, and how many samples each gives."""
    if len(names) > count:
        names = [names[index * len(names) // count] for index in range(count)]
    return [(name, count // len(names) + (index < count % len(names))) for index, name in enumerate(names)]


def chosen(release: Release, shard: str, count: int) -> set[str]:
    """The labelled keys with the smallest sample digests: the same ones every time, and nobody's favourites."""
    rows = release.table(shard, columns=["key", "sample_digest", "status"]).to_pylist()
    labelled = [row for row in rows if row["status"] == Status.OK]
    return {row["key"] for row in sorted(labelled, key=lambda row: row["sample_digest"])[:count]}


def find(config: SourceConfig, shard: Shard, keys: set[str]) -> Iterator[Sample]:
    try:
        yield from (sample for sample in open_source(config).read(shard) if sample.key in keys)
    except BadShard as error:
        raise UsageError(f"{shard.url} is not what was labelled any more: {error}") from error


def preview_sample(
    config: SourceConfig, sample: Sample, value: LabelMap | Mask | Caption, class_names: Sequence[str], old: str | None
) -> PreviewSample:
    """One row; classes without names are called by their numbers. A caption knows best what the old one was."""
    if isinstance(value, Caption):
        return PreviewSample(photo(config, sample), value, (), old if value.old is None else value.old, sample.key)
    count = value.num_classes if isinstance(value, Mask) else value.classes
    return PreviewSample(
        image=photo(config, sample),
        label=value,
        class_names=class_names or [f"class {index}" for index in range(count)],
        old_label=old,
        title=sample.key,
    )


def old_label(config: SourceConfig, sample: Sample, names: Sequence[str]) -> str | None:
    """What the data set itself says, by name where it is an index into the same classes."""
    raw = sample.fields.get(config.old_label or "")
    if raw is None:
        return None
    text = raw.decode("utf-8", "replace").strip() if isinstance(raw, bytes) else str(raw)
    return names[int(text)] if text.isdecimal() and int(text) < len(names) else text
