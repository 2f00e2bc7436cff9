"""Caption demo: a captioner is tuned on scenes that people described, and recaptions scenes whose alt texts are poor.

Scenes are Tux Paint's stamps over photographs (see `scenes`): the recaptioned ones show pairs that it was not tuned on.
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import yaml

import relabel
from relabel.labels.summary import Summary
from relabel.releases.release import Release

from .caption_gallery import cards, draw_gallery
from .demo import program, write_if_changed
from .loading import SHIPPED, parse
from .running import run
from .scenes import SceneMaker, demo_photos, write_scenes
from .stamps import find_stamps, read_stamps
from .tuning import Tuned, tune
from .tuning_loading import SHIPPED_TUNING, load_tuning

NUM_DRAWN = 10
TITLE = "Recaptioned: old alt text, new short and long"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much the demo does."""

    tuning: int = 3600
    """Scenes with captions by people."""
    held_out: int = 300
    """Scenes with poor alt texts."""
    tuning_shards: int = 8
    held_out_shards: int = 4
    train: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What of the shipped tuning recipe's `train` is changed."""


def demo_captions(folder: str, stream: IO[str], maker: SceneMaker | None = None, sizes: Sizes | None = None) -> int:
    """Scenes, a tuned captioner, a release of captions, a picture; what an earlier demo did is not done again."""

    def say(text: str) -> None:
        print(text, file=stream, flush=True)

    home, begun = Path(folder), time.monotonic()
    sizes = sizes or Sizes()
    maker = maker or SceneMaker(read_stamps(find_stamps(home / "stamps")), demo_photos())
    write_scenes(maker, "tuning", sizes.tuning, home / "scenes" / "tuning", sizes.tuning_shards)
    write_scenes(maker, "held-out", sizes.held_out, home / "scenes" / "held-out", sizes.held_out_shards)
    say(
        f"scenes        {sizes.tuning} with captions by people, {sizes.held_out} with poor alt texts: {home / 'scenes'}"
    )
    tuned = tune(load_tuning(tuning_recipe(home, sizes.train)), lambda line: say(f"              {line}"))
    say(f"captioner     {tuned.folder}, {told(tuned)}")
    recipe = captions_recipe(home, tuned)
    outcome = run(recipe)
    assert outcome.release is not None
    release = relabel.open(str(home / "captions")).release()
    picture = home / "captions.png"
    draw_gallery(list(cards(release, NUM_DRAWN)), TITLE, measured(release), picture)
    say(f"release       {outcome.release.version}: {measured(release)}")
    say(f"picture       {picture}   ({time.monotonic() - begun:.0f} s)")
    say("")
    say("look further:")
    for command in (f"show {home / 'captions'}", f"verify {home / 'captions'} --level full", f"try {recipe} --limit 8"):
        say(f"    {program()} {command}")
    return 0


def told(tuned: Tuned) -> str:
    scores = ", ".join(f"{name} F1 {score.f1:.2f}" for name, score in tuned.best.styles.items())
    return f"{scores} on its held-out scenes" + (
        f", {tuned.cpu_seconds:.0f} CPU seconds" if tuned.fresh else " (there from an earlier demo)"
    )


def tuning_recipe(home: Path, train: Mapping[str, Any]) -> Path:
    fields = shipped(SHIPPED_TUNING / "captioner.yaml")
    fields["train"] |= train
    fields |= {"source": f"{home}/scenes/tuning/*.tar", "output": str(home / "captioner")}
    return written(home / "captioner.yaml", fields)


def captions_recipe(home: Path, tuned: Tuned) -> Path:
    fields = shipped(SHIPPED / "recaption.yaml")
    fields["source"]["path"] = f"{home}/scenes/held-out/*.tar"
    fields["steps"][0]["caption"]["engine"]["model"] = str(tuned.folder)
    fields["store"] = str(home / "captions")
    return written(home / "recaption.yaml", fields)


def shipped(file: Path) -> Any:
    return parse(file.read_text(), str(file))


def written(file: Path, fields: Any) -> Path:
    write_if_changed(file, yaml.safe_dump(fields, sort_keys=False).encode())
    return file


def measured(release: Release) -> str:
    """The means of what `caption_match` wrote, as the release's summary has them."""
    summary = release.summary
    assert summary is not None
    told = [f"{release.counts.ok} images; old alt texts: F1 {mean(summary, 'match_short_old_f1')}"]
    for style in ("short", "long"):
        column = f"match_{style}_{style}"
        told.append(f"{style}: F1 {mean(summary, f'{column}_f1')}, exact {mean(summary, f'{column}_exact')}")
    return "; ".join(told)


def mean(summary: Summary, column: str) -> str:
    return f"{summary.numbers[column].mean:.2f}"
