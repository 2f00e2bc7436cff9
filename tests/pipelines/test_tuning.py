"""Tuning: what it writes loads and captions; interrupted or not it is the same, byte for byte; what it refuses."""

import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from drawn_stamps import small_maker
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file
from small_disk import mount_small_disk

from pipelines.scenes import SceneMaker, write_scenes
from pipelines.tars import tar_bytes
from pipelines.tuning import Tuned, tune
from pipelines.tuning_data import Example, Order, is_held_out, read_tuning_data
from pipelines.tuning_features import LiveFeatures, keep_features
from pipelines.tuning_folder import alone
from pipelines.tuning_group import Group
from pipelines.tuning_loading import load_tuning
from pipelines.tuning_model import IGNORED, TunedModel
from pipelines.tuning_recipe import TuningRecipe
from relabel.errors import Refused, StorageError, TooManyDeadLetters, UsageError
from relabel.labelers.engines.protocol import Decoding, Request
from relabel.labelers.engines.transformers_engine import TransformersConfig
from relabel.labelers.engines.transformers_files import find_files

STYLES = {"short": {"field": "short.txt", "prompt": "short:"}, "long": {"field": "long.txt", "prompt": "long:"}}
TRAIN = {"steps": 18, "batch": 8, "evaluate_every": 6, "warmup": 4, "learning_rate": 3e-3, "feature_dropout": 0.1}


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> SceneMaker:
    return small_maker(tmp_path_factory.mktemp("stamps"))


@pytest.fixture(scope="module")
def shards(maker: SceneMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(maker, "tuning", 40, tmp_path_factory.mktemp("scenes"), shards=2)


def recipe(shards: Path, output: Path, train: Mapping[str, Any] | None = None, **changes: Any) -> TuningRecipe:
    fields = {
        "model": "efficientnet-lite0", "source": f"{shards}/*.tar", "styles": STYLES, "held_out": 0.2,
        "train": {**TRAIN, **(train or {})}, "output": str(output),
    }  # fmt: skip
    return TuningRecipe.model_validate({**fields, **changes})


@pytest.fixture(scope="module")
def tuned(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """By a tuning that nothing disturbed."""
    return tune(recipe(shards, tmp_path_factory.mktemp("models") / "undisturbed"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_it_learns_and_says_so(tuned: Tuned) -> None:
    looks = tuned.record["looks"]
    assert [look["step"] for look in looks] == [6, 12, 18]
    assert looks[-1]["training_loss"] < looks[0]["training_loss"] / 2
    assert tuned.record["data"]["training"] + tuned.record["data"]["held_out"] == 40
    assert set(tuned.best.styles) == {"short", "long"}
    assert tuned.best.styles["short"].f1 > 0.3, "some words are right after 18 steps"
    assert not Path(f"{tuned.folder}.tuning").exists()


def test_the_card_names_its_data_by_digest(tuned: Tuned, shards: Path) -> None:
    card, data = (tuned.folder / "README.md").read_text(), tuned.record["data"]
    assert data["source"] == read_tuning_data(recipe(shards, tuned.folder)).source
    for what in (data["source"], data["selection"], tuned.record["weights"], tuned.record["begun_with"]["weights"]):
        assert len(what) == 64
        assert what in card
    assert f"| torch | {torch.__version__} |" in card
    assert "| seed | 0 |" in card
    used = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert used[0]["caption"]["styles"]["long"]["prompt"] == "long:"


def test_the_captioner_is_loaded_by_the_engine_in_a_fresh_process(
    tuned: Tuned, shards: Path, maker: SceneMaker, tmp_path: Path
) -> None:
    picture = maker.picture(maker.scene("held-out", 0))
    Image.fromarray(picture).save(tmp_path / "scene.png")
    code = (
        "import sys, numpy as np; from PIL import Image; sys.path.insert(0, sys.argv[3])\n"
        "from test_tuning import engine_captions\n"
        "print(*engine_captions(sys.argv[1], np.asarray(Image.open(sys.argv[2]))), sep='\\n')"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tuned.folder), str(tmp_path / "scene.png"), str(Path(__file__).parent)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    model = TunedModel(find_files(str(tuned.folder)), recipe(shards, tuned.folder).styles, "cpu", True)
    with torch.inference_mode():
        features = model.features(model.pixels([picture]))
        ours = [model.write(features, style, tuned.record["longest"])[0] for style in ("short", "long")]
    assert said.stdout.splitlines() == ours
    assert all(ours)


def engine_captions(folder: str, picture: np.ndarray) -> list[str]:
    """What the engine of `caption` says of a picture in both styles."""
    config = TransformersConfig(model=folder)
    engine = config.open(config.inspect(), "cpu", compute_batch=2, threads=1)

    async def both() -> list[str]:
        requests = [
            Request(prompt=prompt, images=(picture,), decoding=Decoding(max_tokens=20))
            for prompt in ("short:", "long:")
        ]
        replies = await asyncio.gather(*map(engine.generate, requests))
        await engine.close()
        return [reply.text for reply in replies]

    return asyncio.run(both())


def test_the_encoder_stays_that_of_the_published_weights(tuned: Tuned, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(recipe(shards, tmp_path / "out"), stop_at(6))
    before = load_file(tmp_path / "out.tuning" / "beginning" / "model.safetensors")
    after = load_file(tuned.folder / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("decoder.", "enc_to_dec_proj.")) for name in changed)
    assert any(name.startswith("encoder.") for name in before)


def stop_at(step: int) -> Any:
    def say(line: str) -> None:
        if line.startswith(f"step {step:>6}"):
            raise KeyboardInterrupt

    return say


@pytest.mark.parametrize("step", [6, 12])
def test_interrupted_it_goes_on_to_the_same_bytes(tuned: Tuned, shards: Path, tmp_path: Path, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(recipe(shards, tmp_path / "out"), stop_at(step))
    lines: list[str] = []
    again = tune(recipe(shards, tmp_path / "out"), lines.append)
    assert [line.split()[1] for line in lines if line.startswith("step")] == [
        str(number) for number in range(step + 6, 19, 6)
    ], "what was done is not done again"
    assert contents(again.folder) == contents(tuned.folder)


def test_killed_it_goes_on_to_the_same_bytes(tuned: Tuned, shards: Path, tmp_path: Path, root: Path) -> None:
    output = tmp_path / "out"
    file = tmp_path / "tune.yaml"
    file.write_text(yaml.safe_dump(recipe(shards, output).model_dump(mode="json"), sort_keys=False))
    command = [sys.executable, "-m", "pipelines", "tune", str(file), "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "operators"), str(root)])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        checkpoint = Path(f"{output}.tuning") / "checkpoint.safetensors"
        while not checkpoint.exists():
            assert process.poll() is None, "it ended before its first checkpoint"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["record"] == tuned.record
    assert contents(output) == contents(tuned.folder)


def test_done_it_does_nothing_and_another_tuning_is_refused(tuned: Tuned, shards: Path, tmp_path: Path) -> None:
    again = tune(recipe(shards, tuned.folder))
    assert not again.fresh
    assert again.record == tuned.record
    with pytest.raises(UsageError, match=r"was tuned with another model, train\. Give another `output`"):
        tune(recipe(shards, tuned.folder, {"seed": 1}))
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="exists and is no tuned captioner"):
        tune(recipe(shards, tmp_path / "taken"))


def test_a_checkpoint_of_another_tuning_or_a_damaged_one_is_refused(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        tune(recipe(shards, output), stop_at(6))
    with pytest.raises(UsageError, match="holds another tuning"):
        tune(recipe(shards, output, {"learning_rate": 1e-3}))
    (tmp_path / "out.tuning" / "checkpoint.safetensors").write_bytes(b"torn")
    with pytest.raises(Refused, match=r"cannot be read .* to begin anew"):
        tune(recipe(shards, output))


def test_a_folder_that_is_not_what_was_written_is_not_taken_for_it(tuned: Tuned, shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(tuned.folder, output)
    weights = output / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(Refused, match=r"the weights in .* have digest .* Remove that folder to tune again"):
        tune(recipe(shards, output))
    (output / "tuning.json").write_bytes(b"")
    with pytest.raises(Refused, match=r"tuning\.json is damaged"):
        tune(recipe(shards, output))


def test_two_do_not_tune_into_one_folder(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "out.tuning").mkdir()
    with alone(tmp_path / "out.tuning"), pytest.raises(UsageError, match=r"another process is tuning in .*out\.tuning"):
        tune(recipe(shards, tmp_path / "out"))


def test_a_tuning_that_diverges_says_so_at_once(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"diverged before step 6 \(loss: .*nan.* lower train\.learning_rate"):
        tune(recipe(shards, tmp_path / "out", {"learning_rate": 1e30, "warmup": 0}))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told(shards: Path, tuned: Tuned, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    disk = mount_small_disk(tmp_path / "small", request.addfinalizer)
    with pytest.raises(StorageError, match=r"the disk of .* is full .* goes on from its last checkpoint"):
        tune(recipe(shards, disk.folder / "out"))
    used = recipe(shards, tuned.folder)
    model = TunedModel(find_files(str(tuned.folder)), used.styles, "cpu", True)
    with pytest.raises(OSError, match="No space left"):  # and no SIGBUS
        keep_features(model, read_tuning_data(used).training, disk.folder / "features.npy", Group())


def test_it_stops_early_and_keeps_the_best(shards: Path, tmp_path: Path) -> None:
    """A rate so low that nothing changes: the first look stays the best."""
    done = tune(recipe(shards, tmp_path / "out", {"learning_rate": 1e-12, "evaluate_every": 1, "patience": 3}))
    assert [look["step"] for look in done.record["looks"]] == [1, 2, 3, 4]
    assert done.best.step == 1


def test_kept_features_are_what_the_encoder_says_again(tuned: Tuned, shards: Path, tmp_path: Path) -> None:
    used = recipe(shards, tuned.folder)
    data = read_tuning_data(used)
    model = TunedModel(find_files(str(tuned.folder)), used.styles, "cpu", True)
    examples = data.training[:13]
    kept = keep_features(model, examples, tmp_path / "features.npy", Group())
    with torch.inference_mode():
        live = LiveFeatures(model, examples)
        assert torch.equal(kept.of(range(13)), live.of(range(13)))
        assert torch.equal(kept.of([11]), live.of([11])), "whatever is computed beside it"


def test_a_style_is_told_by_its_prompt_and_only_the_caption_is_learned(tuned: Tuned, shards: Path) -> None:
    model = TunedModel(find_files(str(tuned.folder)), recipe(shards, tuned.folder).styles, "cpu", True)
    given, wanted = model.row("long", "a red ball")
    words = model.ids("a red ball")
    assert given == [model.start, *model.ids("long:"), *words]
    assert wanted == [IGNORED, *words, model.end]
    assert model.prompt("short") != model.prompt("long")
    given, wanted = model.row("long", "ball " * 500)
    assert len(given) == model.context - 1, "with its end it fills the decoder"


def test_any_encoder_and_decoder_can_be_tuned_whole(shards: Path, tmp_path: Path) -> None:
    from small_captioner import save_captioner

    begun = save_captioner(tmp_path / "begun")
    done = tune(
        recipe(shards, tmp_path / "out", {"steps": 4, "evaluate_every": 2, "freeze_encoder": False}, model=str(begun))
    )
    before, after = load_file(begun / "model.safetensors"), load_file(done.folder / "model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("encoder."))
    assert (done.folder / "generation_config.json").read_bytes() == (begun / "generation_config.json").read_bytes()


def test_a_model_that_is_no_captioner_is_refused(shards: Path, tmp_path: Path) -> None:
    from small_captioner import save_language_model

    with pytest.raises(Refused, match="'gpt2'; tuned are image captioners"):
        tune(recipe(shards, tmp_path / "out", model=str(save_language_model(tmp_path / "begun"))))


def test_the_order_is_a_function_of_seed_and_step() -> None:
    examples = [Example(f"s/{index}", b"", {"short": "x", "long": "y"}) for index in range(10)]
    order, again, other = Order(examples, 4, 0), Order(examples, 4, 0), Order(examples, 4, 1)
    steps = [order.step(number) for number in range(10)]
    assert [again.step(number) for number in reversed(range(10))] == steps[::-1]
    assert [other.step(number) for number in range(10)] != steps
    drawn = [pair for step in steps for pair in step]
    for epoch in range(4):
        assert sorted(index for index, _ in drawn[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert sorted(drawn[:20]) == sorted((index, style) for index in range(10) for style in ("short", "long"))


def test_the_held_out_share_is_chosen_by_key_alone(shards: Path, tmp_path: Path) -> None:
    keys = [f"shard/{index}" for index in range(4000)]
    held = {key for key in keys if is_held_out(key, 0, 0.1)}
    assert 330 < len(held) < 470
    assert held != {key for key in keys if is_held_out(key, 1, 0.1)}
    data = read_tuning_data(recipe(shards, tmp_path / "out"))
    assert all(is_held_out(each.key, 0, 0.2) for each in data.held_out)
    assert not any(is_held_out(each.key, 0, 0.2) for each in data.training)


def image(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir()
    (folder / "a.tar").write_bytes(tar_bytes(files))
    return folder


def test_samples_without_image_or_caption_are_counted_and_copies_are_not_held_out(tmp_path: Path) -> None:
    files = {f"{index}.png": image(0) for index in range(30)} | {f"{index}.short.txt": b"a dot" for index in range(30)}
    files |= {"b.png": b"no image", "b.short.txt": b"a dot", "c.png": image(1), "d.short.txt": b"a dot"}
    files |= {"e.png": image(2), "e.short.txt": b" ", "f.png": image(3), "f.short.txt": b"\xff"}
    files |= {f"g{index}.png": image(index) for index in range(10, 20)}
    files |= {f"g{index}.long.txt": b"a dot" for index in range(10, 20)}
    used = recipe(write_shard(tmp_path / "shards", files), tmp_path / "out")
    data = read_tuning_data(used)
    assert data.unusable == {"not_an_image": 1, "missing_field": 3, "bad_metadata": 1}
    assert data.repeated > 0
    assert all(each.image != image(0) for each in data.held_out)
    assert {tuple(each.captions) for each in data.training} == {("short",), ("long",)}
    strict = used.model_copy(update={"dead_letters": used.dead_letters.model_copy(update={"allow": 4})})
    with pytest.raises(TooManyDeadLetters, match="5 of 45 samples cannot be used"):
        read_tuning_data(strict)


def test_an_image_that_is_stored_in_another_way_is_a_copy(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    with Image.open(io.BytesIO(image(0))) as same:
        for index in range(60):
            buffer, words = io.BytesIO(), PngInfo()
            words.add_text("Comment", str(index))
            same.save(buffer, "PNG", pnginfo=words)
            files |= {f"{index}.png": buffer.getvalue(), f"{index}.short.txt": b"a dot"}
    files |= {f"g{index}.png": image(index) for index in range(10, 20)}
    files |= {f"g{index}.short.txt": b"a dot" for index in range(10, 20)}
    styles = {"short": "short.txt"}
    data = read_tuning_data(recipe(write_shard(tmp_path / "shards", files), tmp_path / "out", styles=styles))
    assert all(each.key.split("/")[1].startswith("g") for each in data.held_out)
    assert len(data.held_out) + data.repeated + len(data.training) == 70


def test_a_style_that_nobody_wrote_in_is_refused(shards: Path, tmp_path: Path) -> None:
    styles = {**STYLES, "dense": {"field": "lnog.txt", "prompt": "dense:"}}
    with pytest.raises(UsageError, match=r"has a caption in the style dense \(field 'lnog\.txt'\)"):
        read_tuning_data(recipe(shards, tmp_path / "out", styles=styles))


def test_a_prompt_that_leaves_no_room_is_refused(tuned: Tuned, shards: Path) -> None:
    styles = {"short": {"field": "short.txt", "prompt": "short: " * 66}}
    used = recipe(shards, tuned.folder, styles=styles)
    with pytest.raises(Refused, match="prompt of the style 'short' takes 67 of the 66 tokens"):
        TunedModel(find_files(str(tuned.folder)), used.styles, "cpu", True)


def test_captions_that_hold_the_tokenizers_marks_make_no_words_of_them() -> None:
    from relabel.labelers.grid_captioner import MARKS, word_tokenizer

    tokenizer = word_tokenizer(["a", "dog", *MARKS])
    assert sorted(tokenizer.get_vocab().values()) == list(range(6))
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id) == (0, 1)


def test_a_source_too_small_to_split_is_refused(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "shards", {"a.png": image(0), "a.short.txt": b"a dot"})
    with pytest.raises(UsageError, match="1 usable samples give . to train on and . held out"):
        read_tuning_data(recipe(one, tmp_path / "out"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.step=5"], "unknown field 'train.step'; did you mean 'steps'?"),
        (["trian.steps=5"], "unknown section 'trian'; did you mean 'train'?"),
        (["held_out=0.9"], "'held_out'"),
        (["styles={short: {field: a, prompt: x}, long: {field: b, prompt: x}}"], "told apart by their prompts"),
        (["styles={Short: a}"], "a style's name is lower-case"),
        (["styles={abcdefghijklmnopqrstuvwxyz: a}"], "at most 24"),
        (["styles={short: {field: a, prompt: 'so {{ old }}'}}"], "plain text, without {{"),
        (["output=s3://bucket/model"], "expected a folder of this machine"),
    ],
)
def test_mistakes_in_a_recipe_are_named(tmp_path: Path, changes: list[str], message: str) -> None:
    fields = recipe(tmp_path, tmp_path / "out").model_dump(mode="json")
    with pytest.raises(UsageError) as refused:
        load_tuning(fields, changes)
    assert message in str(refused.value)


def test_overrides_reach_into_sections(tmp_path: Path) -> None:
    fields = {"model": "m/n", "source": "a.tar", "styles": {"short": "txt"}, "output": "out/"}
    made = load_tuning(fields, ["train.steps=7", "source.where=[{field: cls, ge: 3}]", "styles.short=caption"])
    assert (made.train.steps, made.styles["short"].field, made.output) == (7, "caption", "out")
    assert made.source.where
    spaced = load_tuning({**fields, "styles": {"short": {"field": "txt", "prompt": " short: "}}})
    assert spaced.styles["short"].prompt == "short:", "as `caption` will ask"
