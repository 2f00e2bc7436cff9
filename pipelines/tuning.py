"""Tuning: a captioner learns the styles of a few human captions (RECAP's first step, arXiv 2310.16656).

The folder that it writes is whole or not there, and the same whether it was interrupted or not; until it is there
everything lies in `<output>.tuning`, from where the same command goes on.
"""

import contextlib
import dataclasses
import json
import secrets
import shutil
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch

from relabel.digests import Json, canonical_json, digest
from relabel.errors import Refused, UsageError
from relabel.labelers.checkpoints import LITE_NETS
from relabel.labelers.engines.transformers_files import ModelFiles, find_files
from relabel.labelers.inference import fix_kernels, numerics

from .in_process import device_for, settle_allocator
from .model_card import model_card
from .recipe import Resources
from .tuning_data import TuningData, read_tuning_data
from .tuning_features import Features, LiveFeatures, keep_features
from .tuning_folder import alone, room, settle
from .tuning_group import Group
from .tuning_loop import Say, Tuning
from .tuning_model import TunedModel
from .tuning_recipe import TuningRecipe
from .tuning_state import Look

RECORD, CARD = "tuning.json", "README.md"
GENERATION = "generation_config.json"
LEAST_ROOM = 64
"""Tokens of prompt and caption that a new captioner can hold at least."""


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A captioner that was tuned."""

    folder: Path
    record: Mapping[str, Json]
    """What the folder's `tuning.json` says."""
    fresh: bool
    """False where it was there already."""
    cpu_seconds: float
    """Of this call, on all devices."""

    @property
    def best(self) -> Look:
        """The look whose weights were kept."""
        return Look.from_json(self.record["best"])


def tune(recipe: TuningRecipe, say: Say = lambda line: None, group: Group | None = None) -> Tuned:
    """Tune as the recipe says, going on where an earlier call ended.

    Raises UsageError where the output is taken, what lies beside it is another tuning, or somebody tunes there now;
    Refused where the loss is no number any more; StorageError where the disk is full.
    """
    group, output, work = group or Group(), Path(recipe.output), Path(f"{recipe.output}.tuning")
    begun = time.process_time()
    check_output(output)
    fix_kernels(recipe.train.threads)
    settle_allocator()
    data = read_tuning_data(recipe)
    with room(work):
        if group.rank == 0:
            work.mkdir(parents=True, exist_ok=True)
        with alone(work) if group.rank == 0 else contextlib.nullcontext():
            require_shared(work, group)
            files = beginning(recipe, data, work, group)
            meaning = meaning_of(recipe, data, files)
            fresh = group.first(lambda: not is_finished(output, meaning))
            if fresh:
                say(
                    f"{len(data.training)} samples to tune on, {len(data.held_out)} held out, {data.shards} shards; "
                    f"styles: {', '.join(recipe.styles)}"
                )
                run(recipe, data, files, meaning, work, say, group)
            record = group.first(lambda: read_record(output))
            group.wait()
            if group.rank == 0:
                shutil.rmtree(work)
    return Tuned(output, record, fresh, group.totals([time.process_time() - begun])[0])


def check_output(output: Path) -> None:
    """Raises UsageError where there is something that no tuning wrote."""
    if output.exists() and not (output / RECORD).is_file():
        raise UsageError(f"{output} exists and is no tuned captioner. Give another `output`, or remove it.")


def require_shared(work: Path, group: Group) -> None:
    """Raises UsageError where not all devices have one folder of that name: they are on several machines."""
    mark = work / group.first(lambda: f"shared-{secrets.token_hex(8)}")
    if group.rank == 0:
        mark.touch()
    group.wait()
    [blind] = group.totals([float(not mark.exists())])
    if group.rank == 0:
        mark.unlink()
    if blind:
        raise UsageError(
            f"{work} is not one folder for all: {blind:g} of {group.size} devices do not see what the first one wrote. "
            "Give an `output` on a file system that all machines of the cluster share."
        )


def require_alike(mine: Mapping[str, Json], group: Group) -> None:
    """Raises Refused where this process has other data or another device than the first."""
    first = group.first(lambda: mine)
    if other := sorted(name for name in mine if first.get(name) != mine[name]):
        raise Refused(
            f"device {group.rank + 1} of {group.size} has another {', '.join(other)} than the first. All need the same "
            "files, versions and kind of device."
        )


def read_record(output: Path) -> Mapping[str, Json]:
    """Raises Refused where it cannot be read."""
    try:
        record: Mapping[str, Json] = json.loads((output / RECORD).read_bytes())
    except ValueError as error:
        raise Refused(f"{output / RECORD} is damaged ({error}). Remove that folder to tune again.") from error
    return record


def is_finished(output: Path, meaning: Mapping[str, Json]) -> bool:
    """Raises UsageError where another tuning's result lies there, Refused where it is not what was written."""
    if not output.exists():
        return False
    record = read_record(output)
    known = record["meaning"]
    if other := sorted(name for name in meaning if known.get(name) != meaning[name]):
        raise UsageError(
            f"{output} was tuned with another {', '.join(other)}. Give another `output`, or remove that folder."
        )
    if (found := find_files(str(output)).sha256) != record["weights"]:
        raise Refused(
            f"the weights in {output} have digest {found}, its {RECORD} says {record['weights']}. Remove that folder "
            "to tune again."
        )
    return True


def beginning(recipe: TuningRecipe, data: TuningData, work: Path, group: Group) -> ModelFiles:
    """The folder that the recipe names, or a new captioner on a lite network."""
    if recipe.model not in LITE_NETS:
        return find_files(recipe.model)
    folder = work / "beginning"
    if group.rank == 0:
        from relabel.labelers.grid_captioner import new_captioner

        prompts = [style.prompt for style in recipe.styles.values()]
        longest = 2 * max(len(text.split()) for each in data.training for text in each.captions.values())
        new_captioner(
            folder, recipe.model, [*data.words, *(word for prompt in prompts for word in prompt.split())],
            longest=max(LEAST_ROOM, longest + max(len(prompt.split()) for prompt in prompts)), seed=recipe.train.seed,
        )  # fmt: skip
    group.wait()
    return find_files(str(folder))


def meaning_of(recipe: TuningRecipe, data: TuningData, files: ModelFiles) -> dict[str, Json]:
    """All that decides the result, but for the last bits."""
    return {
        "model": digest([files.sha256, files.architecture(), files.text()]),
        "source": data.source,
        "selection": data.selection,
        "styles": {name: style.model_dump(mode="json") for name, style in recipe.styles.items()},
        "held_out": recipe.held_out,
        "train": recipe.train.model_dump(mode="json", exclude={"threads", "devices"}),
    }


def numerics_of(recipe: TuningRecipe, device: torch.device, group: Group) -> dict[str, Json]:
    """What decides the last bits."""
    return {**numerics(device), "transformers": version("transformers"), "devices": group.size}


def run(
    recipe: TuningRecipe, data: TuningData, files: ModelFiles, meaning: Mapping[str, Json], work: Path, say: Say,
    group: Group,
) -> None:  # fmt: skip
    """Afterwards the output is there."""
    model = TunedModel(files, recipe.styles, device_for(Resources()), recipe.train.freeze_encoder)
    known = numerics_of(recipe, model.device, group)
    require_alike({**meaning, **known}, group)
    identity = digest([dict(meaning), known])
    features = features_of(recipe, data, model, work / f"features-{identity[:16]}.npy", group)
    tuning = Tuning(model, data, features, recipe.train, work, identity, group)
    state = tuning.run(say)
    if group.rank == 0:
        record = {
            "name": recipe.name,
            "meaning": dict(meaning),
            "numerics": known,
            "begun_with": {"name": recipe.model, "weights": files.sha256, "revision": files.revision},
            "data": {"path": recipe.source.path, **data.describe()},
            "longest": tuning.longest,
            "looks": [look.to_json() for look in state.looks],
            "best": state.best_look.to_json(),
        }
        model.put(state.best)
        write_folder(recipe, model, record, work)


def features_of(recipe: TuningRecipe, data: TuningData, model: TunedModel, file: Path, group: Group) -> Features:
    examples = [*data.training, *data.held_out]
    return keep_features(model, examples, file, group) if model.freeze_encoder else LiveFeatures(model, examples)


def write_folder(recipe: TuningRecipe, model: TunedModel, record: Mapping[str, Json], work: Path) -> None:
    """The output, whole or not at all."""
    folder = work / "finished"
    shutil.rmtree(folder, ignore_errors=True)
    model.save(folder)
    (folder / GENERATION).unlink(missing_ok=True)
    if (model.files.folder / GENERATION).is_file():
        shutil.copyfile(model.files.folder / GENERATION, folder / GENERATION)
    record = {**record, "weights": find_files(str(folder)).sha256}
    (folder / RECORD).write_bytes(canonical_json(record) + b"\n")
    (folder / CARD).write_text(model_card(recipe, record), encoding="utf-8")
    settle(folder)
    Path(recipe.output).parent.mkdir(parents=True, exist_ok=True)
    folder.replace(recipe.output)
