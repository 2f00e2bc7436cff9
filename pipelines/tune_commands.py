"""Tune command: `relabel tune RECIPE`, from captions by people to a captioner's folder."""

import argparse
import sys

from .terminal import Add, add_overrides, emit, say

EXAMPLE = """a recipe (all fields: pipelines/tuning_recipe.py):
  name: captioner
  model: efficientnet-lite0          # a new small captioner; or a folder, or hf:org/name@commit, to go on from
  source: scenes/tuning/*.tar        # images and captions by people: about 100 to some thousands
  styles:
    short: {field: short.txt, prompt: "short:"}
    long: {field: long.txt, prompt: "long:"}
  held_out: 0.1                      # of the samples, by a hash of the key: chosen by, never tuned on
  train: {steps: 2000, batch: 32, learning_rate: 0.001, evaluate_every: 200, patience: 5, seed: 0}
  output: models/captioner

Killed at any moment, the same command goes on from the last checkpoint in models/captioner.tuning, and the folder that
it writes is the same, byte for byte (on a CPU, with equal devices, threads and versions).
"""


def declare(add: Add) -> None:
    tune = add("tune", tune_command, "tune a captioner on captions by people; `caption` loads the folder it writes")
    tune.add_argument("recipe", help="a YAML file, or the name of a shipped tuning recipe (captioner)")
    add_overrides(tune, "--set", "overrides", "set one field of the recipe, e.g. train.steps=500 (repeatable)")
    tune.add_argument("--address", help="a running Ray cluster, whose devices tune (default: those of this machine)")
    tune.epilog = f"{EXAMPLE}\n{tune.epilog}"


def tune_command(options: argparse.Namespace) -> int:
    from .tuning_devices import tune_on_devices
    from .tuning_loading import load_tuning

    recipe = load_tuning(options.recipe, options.overrides)
    out = sys.stderr if options.json else sys.stdout
    tuned = tune_on_devices(recipe, lambda line: print(line, file=out, flush=True), options.address)
    if options.json:
        emit({"folder": str(tuned.folder), "fresh": tuned.fresh, "record": dict(tuned.record)})
        return 0
    if not tuned.fresh:
        say(f"nothing to do: {tuned.folder} was tuned so already")
    scores = tuned.best.styles.items()
    say(
        *(f"{name:<10} word F1 {score.f1:.3f}, exact {score.exact:.3f} on {score.count} held-out captions"
          for name, score in scores),
        f"captioner  {tuned.folder} (step {tuned.best.step}, {tuned.cpu_seconds:.0f} CPU seconds); its README.md says "
        "how to use it",
    )  # fmt: skip
    return 0
