"""Reports: what `try` and `compare` say to people."""

from collections.abc import Iterator, Sequence

from relabel.digests import Json

from .agreement import CellAgreement
from .comparing import Comparison
from .terminal import aligned, size
from .trying import Tried
from .wording import percent

UNITS = ((86_400, "days"), (3600, "hours"), (60, "minutes"))
DETAIL_CHARACTERS = 100


def tell_trial(tried: Tried) -> Iterator[str]:
    """The samples as a table, then what the whole would cost."""
    told, sampling = tried.to_json(), tried.sampling
    yield f"fingerprint  {tried.fingerprint}"
    refused = f", {told['refused']} refused by `where`" if told["refused"] else ""
    yield f"samples      {told['labelled']} labelled, {told['dead']} dead letters{refused}"
    yield ""
    labels = [labeler.label for labeler in tried.trial.job.labelers]
    rows = [(each["shard"], each["key"], each["old_label"] or "", *new(each, labels)) for each in told["samples"]]
    yield from aligned([("shard", "key", "old label", *labels), *rows])
    yield ""
    yield from tell_bad_shards(told["bad_shards"])
    yield from tell_cost(told["cost"], told["speed"], whole=sampling.num_shards)
    yield "picture      " + (str(tried.picture) if tried.picture else "none: no label of these kinds can be drawn")
    yield f"seconds      {spent(told['seconds'])}"


def new(sample: dict[str, Json], labels: Sequence[str]) -> list[str]:
    """The new labels, or in place of the first why there is none."""
    if sample["labels"]:
        return [sample["labels"][label] for label in labels]
    detail = f"dead: {sample['reason']}: {sample['detail']}"
    return [detail[:DETAIL_CHARACTERS], *[""] * (len(labels) - 1)]


def tell_cost(cost: dict[str, Json], speed: dict[str, Json], whole: int) -> Iterator[str]:
    yield (
        f"speed        {cost['images_per_second']:g} images/s: {speed['label_ms']:.1f} ms to label an image by one "
        f"actor on {where(speed)}, {speed['prepare_ms']:.1f} ms of a CPU to decode it"
    )
    yield (
        f"whole source {whole} shards, {size(float(cost['source_bytes']))}, about {cost['samples']} samples: about "
        f"{duration(cost['actor_seconds'])} of such an actor and {duration(cost['cpu_seconds'])} of a CPU; "
        f"labels {size(float(cost['label_bytes']))} each, {size(float(cost['all_label_bytes']))} in all"
    )


def tell_comparison(comparison: Comparison) -> Iterator[str]:
    """What the two are, the samples as a table, then agreement and cost."""
    told = comparison.to_json()
    sides = {"A": told["a"], "B": told["b"]}
    yield from (f"{letter}            {side['recipe']}, {side['fingerprint']}" for letter, side in sides.items())
    yield from (f"differ       {line}" for line in told["differences"])
    yield from (f"note         {line}" for line in told["notes"])
    yield ""
    rows = [(each["key"], each["old_label"] or "", each["a"], each["b"], alike(each)) for each in told["samples"]]
    yield from aligned([("key", "old label", "A", "B", "agree"), *rows])
    yield ""
    yield from tell_bad_shards(told["bad_shards"])
    yield from aligned(zip(FIGURES, *(figures(letter, side) for letter, side in sides.items()), strict=True))
    yield ""
    yield f"agreement    {agreeing(told['agreement'])}"
    yield f"cost         B takes {told['cost_ratio']:.2g} times as long as A for an image"
    yield "picture      " + (str(comparison.picture) if comparison.picture else "none: not all cells have a class here")
    yield f"seconds      {spent(told['seconds'])}"


FIGURES = ("", "labelled", "mean confidence", "old label", "ms per image", "bytes per sample", "on")
"""What `figures` tells of a side."""


def figures(letter: str, side: dict[str, Json]) -> list[str]:
    old, confidence, speed = side["old_label"], side["mean_confidence"], side["speed"]
    return [
        letter,
        f"{side['labelled']}" + (f", {len(side['dead'])} dead" if side["dead"] else ""),
        "" if confidence is None else percent(confidence),
        f"{old['agree']} of {old['of']}" if old else "",
        f"{speed['label_ms']:.1f}",
        f"{side['bytes_per_sample']}",
        where(speed),
    ]


def alike(sample: dict[str, Json]) -> str:
    """`yes, cells 71 %`."""
    if sample["same_best"] is None:
        return ""
    cells = f", cells {CellAgreement(**sample['cells'])}" if sample["cells"] else ""
    return ("yes" if sample["same_best"] else "no") + cells


def agreeing(agreement: dict[str, Json]) -> str:
    """On whole images and on cells, or on the text of other labels."""
    both = agreement["both_labelled"]
    if agreement["same_best"] is None:
        return f"{agreement['same_text']} of {both} samples have the same label"
    cells = f", on {CellAgreement(**agreement['cells'])} of the cells" if agreement["cells"] else ""
    return f"on {agreement['same_best']} of {both} whole images{cells}"


def tell_bad_shards(bad_shards: dict[str, str]) -> Iterator[str]:
    yield from (f"bad shard    {name}: {error}" for name, error in bad_shards.items())


def where(speed: dict[str, Json]) -> str:
    """The device."""
    if speed["device"] != "cpu":
        return str(speed["device"])
    return f"{speed['threads']} CPU" + ("s" if speed["threads"] > 1 else "")


def duration(seconds: float) -> str:
    """`41 seconds`, `3.5 hours`."""
    for length, name in UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {name}"
    return f"{max(1, round(seconds))} seconds" if seconds > 1 else "a second"


def spent(seconds: dict[str, float]) -> str:
    """`9.1 in all: plan 3.1, read 0.1`."""
    stages = ", ".join(f"{stage} {each:.1f}" for stage, each in seconds.items())
    return f"{sum(seconds.values()):.1f} in all: {stages}"
