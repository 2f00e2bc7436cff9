"""Tuning on several devices: two processes give what one gives, end together, and go on where they ended."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from drawn_stamps import small_maker
from ray.util.queue import Queue
from safetensors.torch import load_file
from small_captioner import save_captioner
from torch.multiprocessing.spawn import spawn

from pipelines.scenes import write_scenes
from pipelines.stopping import Stopped
from pipelines.tuning import Tuned, require_alike, require_shared, tune
from pipelines.tuning_devices import told, tune_on_devices
from pipelines.tuning_group import TorchGroup, buckets
from pipelines.tuning_recipe import TuningRecipe
from relabel.errors import Refused, UsageError

pytestmark = pytest.mark.slow

STYLES = {"short": {"field": "short.txt", "prompt": "short:"}, "long": {"field": "long.txt", "prompt": "long:"}}
TRAIN = {"steps": 12, "batch": 5, "evaluate_every": 4, "warmup": 2, "learning_rate": 3e-3}

LONG = {"steps": 120, "feature_dropout": 0.2, "patience": 100}
"""Long enough to be interrupted after its first look."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    maker = small_maker(tmp_path_factory.mktemp("stamps"))
    return write_scenes(maker, "tuning", 40, tmp_path_factory.mktemp("scenes"), shards=2)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small captioner without dropout: what is drawn for it differs between one device and two."""
    folder = save_captioner(tmp_path_factory.mktemp("begun"))
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["decoder"].update(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
    file.write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def recipe(shards: Path, begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TuningRecipe]:
    folder = tmp_path_factory.mktemp("models")

    def make(output: str, **train: Any) -> TuningRecipe:
        return TuningRecipe.model_validate(
            {
                "model": str(begun), "source": f"{shards}/*.tar", "styles": STYLES, "held_out": 0.2,
                "train": {**TRAIN, **train}, "output": str(folder / output),
            }
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def together(recipe: Callable[..., TuningRecipe]) -> dict[str, TuningRecipe]:
    """What two processes have tuned that only `torch.distributed` had joined."""
    recipes = {
        "plain": recipe("plain"),
        "thinned": recipe("thinned", **LONG),
        "interrupted": recipe("interrupted", **LONG),
        "whole": recipe("whole", freeze_encoder=False),
        "few": recipe("few", batch=1),
        "early": recipe("early", learning_rate=1e-12, evaluate_every=1, patience=3),
    }
    texts = {name: each.model_dump_json() for name, each in recipes.items()}
    folder = Path(recipe("meeting").output)
    folder.mkdir()
    spawn(one_of_two, (texts, str(folder)), nprocs=2)
    return recipes


def one_of_two(rank: int, recipes: Mapping[str, str], folder: str) -> None:
    """Both are interrupted at the same step; then every tuning goes to its end."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/met", rank=rank, world_size=2)
    check_sums(group := TorchGroup())
    check_refusals(group, Path(folder))
    for name, text in recipes.items():
        if name == "interrupted":
            with pytest.raises(KeyboardInterrupt):
                tune(TuningRecipe.model_validate_json(text), stop_at(4), group)
        tune(TuningRecipe.model_validate_json(text), group=group)
    torch.distributed.destroy_process_group()


def check_sums(group: TorchGroup) -> None:
    tensors = [torch.full((3, 2), 1.0 + group.rank), torch.arange(4.0)[::2], torch.tensor(5.0)]
    group.sum(tensors)
    assert [each.tolist() for each in tensors] == [[[3.0, 3.0]] * 3, [0.0, 4.0], 10.0]
    assert group.totals([1, group.rank]) == [2.0, 1.0]
    assert group.first(lambda: f"of {group.rank}") == "of 0"


def check_refusals(group: TorchGroup, folder: Path) -> None:
    """Of a folder that is another one on each machine, and of other data."""
    work = folder / f"machine-{group.rank}"
    work.mkdir()
    with pytest.raises(UsageError, match=r"1 of 2 devices do not see .* file system that all machines"):
        require_shared(work, group)
    assert list(work.iterdir()) == []
    require_alike({"source": "a", "torch": "2"}, group)
    expected = pytest.raises(Refused, match=r"device 2 of 2 has another source than") if group.rank else nullcontext()
    with expected:
        require_alike({"source": f"of {group.rank}", "torch": "2"}, group)


def stop_at(step: int) -> Callable[[str], None]:
    def say(line: str) -> None:
        if line.startswith(f"step {step:>6}"):
            raise KeyboardInterrupt

    return say


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def record(recipe: TuningRecipe) -> Any:
    return json.loads((Path(recipe.output) / "tuning.json").read_bytes())


@pytest.mark.parametrize(("name", "steps"), [("plain", 12), ("whole", 12), ("few", 12)])
def test_two_devices_learn_what_one_learns(
    together: dict[str, TuningRecipe], recipe: Callable[..., TuningRecipe], name: str, steps: int
) -> None:
    """Also where a batch gives the devices unequal shares, or one of them none. Sums of float32 in another order: the
    losses differ by less than a millionth, the weights by AdamW's share of that.
    """
    two = together[name]
    alone = tune(recipe(f"{name}-alone", **two.train.model_dump(include={"batch", "freeze_encoder"})))
    ours, theirs = alone.record, record(two)
    assert (ours["numerics"]["devices"], theirs["numerics"]["devices"]) == (1, 2)
    assert ours["meaning"] == theirs["meaning"]
    assert [look["step"] for look in theirs["looks"]] == [4, 8, steps]
    for one, other in zip(losses(ours), losses(theirs), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5)
    weights = load_file(Path(two.output) / "model.safetensors")
    for weight, value in load_file(alone.folder / "model.safetensors").items():
        torch.testing.assert_close(weights[weight], value, rtol=1e-3, atol=1e-5)
    assert not Path(f"{two.output}.tuning").exists()


def losses(record: Any) -> list[list[float]]:
    return [[look["training_loss"], *(score["loss"] for score in look["styles"].values())] for look in record["looks"]]


def test_interrupted_two_devices_go_on_to_the_same_bytes(together: dict[str, TuningRecipe]) -> None:
    assert losses(record(together["thinned"]))[0] != losses(record(together["plain"]))[0], "each device drops its own"
    assert contents(Path(together["interrupted"].output)) == contents(Path(together["thinned"].output))


def test_all_devices_stop_early(together: dict[str, TuningRecipe]) -> None:
    assert [look["step"] for look in record(together["early"])["looks"]] == [1, 2, 3, 4]


@dataclasses.dataclass(frozen=True)
class Life:
    """A tuning by Ray Train: the command until one of its processes is killed, on a Ray of its own; then a call until
    the end, on that of the tests.
    """

    exit_code: int
    errors: str
    """Of the command."""
    said: list[str]
    """By both."""
    tuned: Tuned


@pytest.fixture(scope="module")
def life(
    recipe: Callable[..., TuningRecipe], ray_cluster: None, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Life:
    used, folder = recipe("life", **LONG, devices=2), tmp_path_factory.mktemp("command")
    (folder / "tune.yaml").write_text(yaml.safe_dump(used.model_dump(mode="json"), sort_keys=False))
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines", "tune", "tune.yaml"], text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "operators"), str(root)])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said = [next(line for line in process.stdout if line.startswith("step"))]
        os.kill(train_workers(process.pid)[0], signal.SIGKILL)
        output, errors = process.communicate()
    assert not Path(used.output).exists()
    said += output.splitlines()
    return Life(process.returncode, errors, said, tune_on_devices(used, said.append))


def train_workers(ancestor: int) -> list[int]:
    """The processes of Ray Train among what a process has started."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
    return [pid for pid, name in names.items() if b"RayTrainWorker" in name and ancestor in line_of(pid, parents)]


def line_of(pid: int, parents: Mapping[int, int]) -> list[int]:
    return [pid, *line_of(parents[pid], parents)] if pid in parents else []


@pytest.mark.long
def test_where_a_process_is_killed_all_end_and_the_command_says_so(life: Life) -> None:
    assert life.exit_code == 1
    assert re.search(r"^relabel: the tuning failed: .* device \d died .* last checkpoint\.$", life.errors, re.MULTILINE)
    assert "Traceback" not in life.errors


@pytest.mark.long
def test_what_was_done_is_not_done_again_and_the_bytes_are_those_of_no_interruption(
    life: Life, together: dict[str, TuningRecipe]
) -> None:
    steps = [int(line.split()[1]) for line in life.said if line.startswith("step")]
    assert (steps[0], steps[-1]) == (4, 120)
    assert steps == sorted(set(steps))
    assert life.tuned.record["numerics"]["devices"] == 2
    assert contents(life.tuned.folder) == contents(Path(together["thinned"].output))
    assert not Path(f"{life.tuned.folder}.tuning").exists()


def test_sigterm_ends_the_processes_and_says_how_to_go_on(
    recipe: Callable[..., TuningRecipe], ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    @contextmanager
    def begun(recipe: TuningRecipe, events: Queue, workers: list[Any]) -> Iterator[Future[Any]]:
        events.put("step 4")
        try:
            yield Future()
        finally:
            ended.append(workers)

    monkeypatch.setattr("pipelines.tuning_devices.begun", begun)
    with pytest.raises(Stopped, match="ended by SIGTERM. The same command goes on from the last checkpoint"):
        tune_on_devices(recipe("out", devices=2), lambda line: os.kill(os.getpid(), signal.SIGTERM))
    assert ended == [[]]


@pytest.mark.long
def test_what_a_process_refuses_is_raised_as_alone(life: Life, recipe: Callable[..., TuningRecipe]) -> None:
    with pytest.raises(UsageError, match=r"was tuned with another train\. Give another `output`"):
        tune_on_devices(recipe("life", **LONG, devices=2, seed=1))


def test_more_devices_than_there_are_are_refused(recipe: Callable[..., TuningRecipe], ray_cluster: None) -> None:
    with pytest.raises(UsageError, match=r"train\.devices: 9 processes need 9 CPUs, the cluster has 8: lower"):
        tune_on_devices(recipe("out", devices=9))


def test_what_failed_is_told_in_one_line() -> None:
    from ray.exceptions import ActorDiedError
    from ray.train import ControllerError, WorkerGroupError

    failures = {0: RuntimeError("Connection reset by peer\nat ..."), 1: ActorDiedError()}
    assert told(WorkerGroupError("...", failures)) == "the process of device 2 died (killed, or out of memory)"
    failures = {1: MemoryError("no room"), 0: RuntimeError("Connection reset by peer\nat ...")}
    assert told(WorkerGroupError("...", failures)) == (
        "device 1: RuntimeError: Connection reset by peer; device 2: MemoryError: no room"
    )
    assert told(ControllerError(ValueError("no start\n..."))) == "ValueError: no start"


def test_sums_go_in_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.tuning_group.BUCKET", 5)
    tensors = [torch.zeros(size) for size in (2, 3, 1, 9, 4)]
    assert [[len(each) for each in some] for some in buckets(tensors)] == [[2, 3], [1], [9], [4]]
    assert list(buckets([])) == []
