"""The label_map labeler with its real weights, on real photos: right, reproducible, and known by its fingerprint."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from small_models import save_model

from relabel.errors import BadSample, Refused, UsageError
from relabel.labelers.images import decode_image
from relabel.labelers.label_map import LabelMapLabeler, LabelMapParameters
from relabel.labelers.labeler import Batch, Parameters
from relabel.labelers.lock import Lock
from relabel.labelers.mask import MaskParameters
from relabel.labelers.packing import pack, unpack
from relabel.labelers.registry import labeler
from relabel.labels.label_map import check_column, decode_row
from relabel.labels.shard_file import label_columns
from relabel.readers.pooling import pool
from relabel.reasons import Reason

Photos = list[tuple[bytes, int]]
SIZE = 224


def built(**parameters: object) -> LabelMapLabeler:
    """A labeler with its facts, as the driver builds it."""
    made = LabelMapLabeler(
        LabelMapParameters.model_validate({"model": "efficientnet-lite0", "input_size": SIZE, **parameters})
    )
    made.facts = made.inspect()
    return made


@pytest.fixture(scope="module")
def lite() -> LabelMapLabeler:
    made = built()
    made.load("cpu")
    return made


@pytest.fixture(scope="module")
def batch(photos: Photos) -> Batch:
    return unpack(pack([LabelMapLabeler(params()).prepare({"image": data}) for data, _ in photos]))


def params(**changes: object) -> LabelMapParameters:
    return LabelMapParameters.model_validate({"model": "efficientnet-lite0", "input_size": SIZE, **changes})


def labels_of(made: LabelMapLabeler, batch: Batch) -> pa.Table:
    labels = made(batch)
    return label_columns(made.writes(), labels, len(batch["height"]))


def rows(batch: Batch, positions: list[int]) -> Batch:
    return {name: np.asarray(values)[positions] for name, values in batch.items()}


def test_whole_map_labels_are_right_on_real_photos(lite: LabelMapLabeler, batch: Batch, photos: Photos) -> None:
    table = labels_of(lite, batch)
    assert check_column(lite.writes(), table) == []
    maps = [decode_row(lite.writes(), row) for row in table.to_pylist()]
    truth = [label for _, label in photos]
    for mode in ("prob", "logit"):
        right = sum(int(pool(one, mode=mode).argmax()) == label for one, label in zip(maps, truth, strict=True))
        assert right >= 16, mode
    assert (maps[0].height, maps[0].width) == decode_image(photos[0][0]).shape[:2]
    assert {(one.height, one.width) for one in maps} == {(512, 512), (683, 1024)}


def test_bf16_labels_the_photos_as_well(batch: Batch, photos: Photos) -> None:
    made = built(dtype="bf16")
    made.load("cpu")
    maps = [decode_row(made.writes(), row) for row in labels_of(made, batch).to_pylist()]
    right = sum(int(pool(one).argmax()) == label for one, (_, label) in zip(maps, photos, strict=True))
    assert right >= 16


def test_mean_over_cells_is_the_models_answer(lite: LabelMapLabeler, batch: Batch, tmp_path: Path) -> None:
    """With every class kept, the stored map itself gives the ordinary logits back, up to float16."""
    everything = built(model=str(save_model(tmp_path, "ResNet")), top_k=5, input_size=96)
    everything.load("cpu")
    image = np.asarray(batch["image"])[:4, :96, :96]
    sides = np.full(4, 96, np.int32)
    labels = everything({"image": image, "height": sides, "width": sides})
    ids, scores = np.asarray(labels["label_map_ids"]), np.asarray(labels["label_map_scores"])
    dense = np.zeros(scores.shape, np.float64)
    np.put_along_axis(dense, ids.astype(np.int64), scores.astype(np.float64), axis=-1)
    network = everything._label.network.classifier  # type: ignore[union-attr]  # the loaded model, to ask it directly
    with torch.inference_mode():
        ordinary = network.logits(network.normalisation.apply(torch.from_numpy(image.copy())))
    assert np.allclose(dense.mean(axis=(1, 2)), ordinary.numpy(), atol=2e-3)


def test_neighbours_and_numbers_do_not_change_a_bit(lite: LabelMapLabeler, batch: Batch) -> None:
    whole = labels_of(lite, batch)
    for positions in ([3], [3, 7], [7, 3, 0], list(range(19, -1, -1)), [5] * 9):
        assert labels_of(lite, rows(batch, positions)).equals(whole.take(positions))


def test_another_compute_batch_agrees_within_the_tolerance(lite: LabelMapLabeler, batch: Batch) -> None:
    other = built()
    other.compute_batch = 3
    other.load("cpu")
    assert other.numerics()["compute_batch"] == 3
    few = rows(batch, [0, 1, 2, 3, 4])
    ours, theirs = lite(few), other(few)
    scores = [np.asarray(labels["label_map_scores"]).astype(np.float32) for labels in (ours, theirs)]
    assert np.abs(scores[0] - scores[1]).max() <= 2**-6


def test_it_travels_before_it_is_loaded(batch: Batch, lite: LabelMapLabeler) -> None:
    copy = pickle.loads(pickle.dumps(built()))
    assert copy.fingerprint() == lite.fingerprint()
    copy.load("cpu")
    few = rows(batch, [1, 2])
    assert labels_of(copy, few).equals(labels_of(lite, few))


def test_numerics_name_what_decides_the_last_bits(lite: LabelMapLabeler) -> None:
    numerics = lite.numerics()
    assert numerics["torch"] == torch.__version__.split("+")[0] or numerics["torch"] == torch.__version__
    assert numerics["threads"] == torch.get_num_threads()
    assert numerics["device"].startswith("cpu ")
    assert {"numpy", "simplejpeg", "pillow", "compute_batch"} <= numerics.keys()


def test_writing_needs_facts_only(lite: LabelMapLabeler) -> None:
    planned = LabelMapLabeler(params(), label="objects")
    planned.facts = lite.facts
    contract = planned.writes()
    assert [column.name for column in contract.columns] == [
        f"objects_{suffix}" for suffix in ("ids", "scores", "residual", "height", "width")
    ]
    assert contract.column("ids").shape == (7, 7, 5)
    assert contract.geometry is not None
    assert contract.geometry.size == SIZE
    assert contract.classes is not None
    assert contract.classes.count == 1000
    assert len(lite.facts["class_names"]) == 1000


@pytest.mark.parametrize("changes", [{"top_k": 3}, {"interpolation": "bicubic"}, {"max_pixels": 1000}])
def test_what_changes_labels_changes_the_fingerprint(changes: dict[str, object], lite: LabelMapLabeler) -> None:
    other = LabelMapLabeler(params(**changes))
    other.facts = lite.facts
    assert other.fingerprint() != lite.fingerprint()
    assert other.inspected_parameters() == lite.inspected_parameters()


def test_the_fingerprint_follows_weights_not_places(tmp_path: Path) -> None:
    first = built(model=str(save_model(tmp_path / "a", "ResNet")), input_size=96)
    moved = built(model=str(save_model(tmp_path / "b", "ResNet")), input_size=96)
    other = built(model=str(save_model(tmp_path / "c", "ResNet", seed=1)), input_size=96)
    whiter = built(model=str(save_model(tmp_path / "d", "ResNet", image_mean=[0.5, 0.5, 0.5])), input_size=96)
    assert first.fingerprint() == moved.fingerprint()
    assert len({one.fingerprint() for one in (first, other, whiter)}) == 3
    assert str(tmp_path) not in str(first.identity())


def test_other_weights_than_planned_are_refused(tmp_path: Path) -> None:
    made = built(model=str(save_model(tmp_path, "ResNet")), input_size=96)
    save_model(tmp_path, "ResNet", seed=1)
    with pytest.raises(Refused, match="Put the same files on every machine"):
        made.load("cpu")


def test_class_names_can_be_given(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path, "ResNet"))
    named = built(model=folder, input_size=96, class_names=["a", "b", "c", "d", "e"])
    assert named.facts["class_names"] == ["a", "b", "c", "d", "e"]
    assert named.fingerprint() != built(model=folder, input_size=96).fingerprint()
    with pytest.raises(UsageError, match="tells 5 classes apart, got 2"):
        built(model=folder, input_size=96, class_names=["a", "b"])


def test_the_lock_plans_without_weights(tmp_path: Path, lite: LabelMapLabeler) -> None:
    folder = save_model(tmp_path / "model", "ResNet")
    lock = tmp_path / "recipe.lock.json"
    made = LabelMapLabeler(params(model=str(folder), input_size=96))
    made.facts = Lock(lock).facts(made)
    folder.rename(tmp_path / "elsewhere")
    planned = LabelMapLabeler(params(model=str(folder), input_size=96, top_k=2))
    planned.facts = Lock(lock).facts(planned)
    assert planned.facts == made.facts
    assert planned.writes().top_k == 2


def test_facts_come_first() -> None:
    with pytest.raises(UsageError, match="no facts yet"):
        LabelMapLabeler(params()).fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": 230}, "multiple of 32 .* got 230; the nearest is 224"),
        ({"top_k": 0}, "greater than or equal to 1"),
        ({"dtype": "fp16"}, "'fp32' or 'bf16'"),
        ({"sise": 3}, "sise"),
        ({"max_pixels": 10**9}, "less than or equal to"),
    ],
)
def test_wrong_parameters_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        params(**changes)


@pytest.mark.parametrize("parameters", [LabelMapParameters, MaskParameters])
def test_every_parameter_is_documented(parameters: type[Parameters]) -> None:
    assert [name for name, field in parameters.model_fields.items() if not field.description] == []


def test_more_scores_than_classes_are_refused(tmp_path: Path) -> None:
    made = built(model=str(save_model(tmp_path, "ResNet")), input_size=96, top_k=6)
    with pytest.raises(UsageError, match="between 1 and the 5 classes, got 6"):
        made.writes()


def test_output_that_is_not_finite_is_a_bad_sample(tmp_path: Path) -> None:
    made = built(model=str(save_model(tmp_path, "ResNet")), input_size=96)
    made.load("cpu")
    made._label.network.head.bias.data[2] = torch.nan  # type: ignore[union-attr]  # a broken network
    sides = np.full(2, 96, np.int32)
    with pytest.raises(BadSample) as caught:
        made({"image": np.zeros((2, 96, 96, 3), np.uint8), "height": sides, "width": sides})
    assert caught.value.reason == Reason.BAD_OUTPUT


def test_text_is_no_image() -> None:
    with pytest.raises(BadSample) as caught:
        LabelMapLabeler(params()).prepare({"image": "photo.jpg"})
    assert caught.value.reason == Reason.NOT_AN_IMAGE


def test_registered_and_light() -> None:
    assert labeler("label_map") is LabelMapLabeler
    program = (
        "import sys; from relabel.labelers.registry import labeler; labeler('label_map'); "
        "print(sorted({'torch', 'ray', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env={
        "PYTHONPATH": str(Path(__file__).parents[2] / "operators"),
    })  # fmt: skip
    assert done.stdout.strip() == "[]"
