"""The mask labeler with a SegFormer that knows two colours: right, the right way round, reproducible, of any size."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from jaxtyping import UInt8
from PIL import Image
from pydantic import ValidationError
from small_models import save_model
from two_colours import NAMES, SIZE, png, rectangles, scene

from relabel.errors import BadSample, Refused, UsageError
from relabel.labelers.images import decode_image
from relabel.labelers.labeler import Batch
from relabel.labelers.lock import Lock
from relabel.labelers.mask import MaskLabeler, MaskParameters
from relabel.labelers.packing import pack, unpack
from relabel.labelers.registry import labeler
from relabel.labels.mask import Mask, check_column, decode_column
from relabel.labels.shard_file import label_columns
from relabel.reasons import Reason

SHAPES = [(64, 64), (100, 160), (160, 100), (33, 201), (7, 5), (1, 90), (300, 240), (65, 63)]


def built(model: Path, **parameters: Any) -> MaskLabeler:
    """A labeler with its facts, as the driver builds it."""
    made = MaskLabeler(MaskParameters.model_validate({"model": str(model), "input_size": SIZE, **parameters}))
    made.facts = made.inspect()
    return made


def loaded(model: Path, **parameters: Any) -> MaskLabeler:
    made = built(model, **parameters)
    made.load("cpu")
    return made


@pytest.fixture(scope="module")
def two_colours(segmenter: Path) -> MaskLabeler:
    return loaded(segmenter)


@pytest.fixture(scope="module")
def truths() -> list[np.ndarray]:
    return [rectangles(*shape, seed=900 + index) for index, shape in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def batch(two_colours: MaskLabeler, truths: list[np.ndarray]) -> Batch:
    return batch_of(two_colours, [png(scene(truth, seed)) for seed, truth in enumerate(truths)])


def batch_of(made: MaskLabeler, images: list[bytes]) -> Batch:
    return unpack(pack([made.prepare({"image": data}) for data in images]))


def table_of(made: MaskLabeler, batch: Batch) -> pa.Table:
    return label_columns(made.writes(), made(batch), len(batch["height"]))


def masks_of(made: MaskLabeler, images: list[bytes]) -> list[Mask]:
    table = table_of(made, batch_of(made, images))
    assert check_column(made.writes(), table) == []
    return [mask for mask in decode_column(made.writes(), table) if mask is not None]


def halves(height: int, width: int, axis: int) -> UInt8[np.ndarray, "y x"]:
    """Red above (axis 0) or left (axis 1), blue on the other side."""
    along = np.arange((height, width)[axis]) >= (height, width)[axis] // 2
    return np.broadcast_to(along[:, None] if axis == 0 else along, (height, width)).astype(np.uint8)


def test_masks_have_the_images_size_and_are_right(
    two_colours: MaskLabeler, batch: Batch, truths: list[np.ndarray]
) -> None:
    table = table_of(two_colours, batch)
    assert check_column(two_colours.writes(), table) == []
    for mask, truth in zip(decode_column(two_colours.writes(), table), truths, strict=True):
        assert mask is not None
        assert mask.map.shape == truth.shape
        if min(truth.shape) > 10:
            assert (mask.map == truth).mean() > 0.93
            assert (mask.confidence > 0.5).all()


@pytest.mark.parametrize("shape", [(96, 96), (60, 150), (150, 60)])
@pytest.mark.parametrize("axis", [0, 1])
def test_halves_lie_where_they_are(two_colours: MaskLabeler, shape: tuple[int, int], axis: int) -> None:
    """Read transposed, turned or mirrored, half of the pixels or more would be wrong."""
    truth = halves(*shape, axis)
    (mask,) = masks_of(two_colours, [png(scene(truth))])
    assert (mask.map == truth).mean() > 0.96
    wrong = np.nonzero(mask.map != truth)[axis]
    cell = shape[axis] / mask_grid(two_colours)
    assert (np.abs(wrong - shape[axis] / 2) <= 2 * cell).mean() > 0.9


def mask_grid(made: MaskLabeler) -> int:
    rows, columns = made.facts["grid"]
    assert rows == columns
    return int(rows)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_rotation_is_applied(two_colours: MaskLabeler, orientation: int) -> None:
    truth = halves(60, 100, 1)
    truth[:20, :30] = 1
    stored = Image.fromarray(scene(truth))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", quality=95, exif=exif)
    (mask,) = masks_of(two_colours, [buffer.getvalue()])
    upright = decode_image(buffer.getvalue())
    seen = (upright[..., 2] > upright[..., 0]).astype(np.uint8)
    assert mask.map.shape == seen.shape == ((60, 100) if orientation < 5 else (100, 60))
    assert (mask.map == seen).mean() > 0.93


def test_it_is_what_transformers_gives(segmenter: Path, two_colours: MaskLabeler, truths: list[np.ndarray]) -> None:
    """Where our resizing has nothing to do: the same pixels as its own post-processing, up to ties."""
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(segmenter).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(segmenter)
    image = scene(truths[0])
    with torch.inference_mode():
        outputs = network(**processor(images=image, return_tensors="pt"))
    for size in ((64, 64), (90, 130)):
        (theirs,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])
        found = two_colours({"image": image[None], **{side: np.array([length], np.int32) for side, length in zip(
            ("height", "width"), size, strict=True)}})  # fmt: skip
        ours = np.frombuffer(found["mask_map"][0], np.uint8).reshape(size)
        assert (ours == theirs.numpy()).mean() > 0.999


def test_neighbours_and_numbers_do_not_change_a_bit(two_colours: MaskLabeler, batch: Batch) -> None:
    whole = table_of(two_colours, batch)
    for positions in ([3], [3, 7], [7, 3, 0], list(range(7, -1, -1)), [5] * 19):
        rows = {name: np.asarray(values)[positions] for name, values in batch.items()}
        assert table_of(two_colours, rows).equals(whole.take(positions))
    assert table_of(two_colours, batch).equals(whole)


def test_it_travels_before_it_is_loaded(segmenter: Path, two_colours: MaskLabeler, batch: Batch) -> None:
    copy = pickle.loads(pickle.dumps(built(segmenter)))
    assert copy.fingerprint() == two_colours.fingerprint()
    copy.load("cpu")
    assert table_of(copy, batch).equals(table_of(two_colours, batch))
    assert {"transformers", "torch", "threads", "compute_batch"} <= copy.numerics().keys()


def test_what_is_not_sure_is_ignored(segmenter: Path, two_colours: MaskLabeler, batch: Batch) -> None:
    careful = loaded(segmenter, confidence=0.8)
    table = table_of(careful, batch)
    assert check_column(careful.writes(), table) == []
    assert careful.writes().min_confidence == 0.8
    assert careful.fingerprint() != two_colours.fingerprint()
    pairs = zip(
        decode_column(careful.writes(), table),
        decode_column(two_colours.writes(), table_of(two_colours, batch)),
        strict=True,
    )
    ignored = 0
    for sure, everything in pairs:
        assert sure is not None
        assert everything is not None
        kept = sure.map != sure.ignore_index
        assert (sure.map == everything.map)[kept].all()
        assert (everything.map != everything.ignore_index).all()
        assert (sure.confidence >= np.float32(0.8)).all()
        ignored += int((~kept).sum())
    assert ignored > 0


def test_bf16_agrees(segmenter: Path, two_colours: MaskLabeler, batch: Batch) -> None:
    rough = loaded(segmenter, dtype="bf16")
    assert rough.fingerprint() != two_colours.fingerprint()
    exact = decode_column(two_colours.writes(), table_of(two_colours, batch))
    for one, other in zip(exact, decode_column(rough.writes(), table_of(rough, batch)), strict=True):
        assert one is not None
        assert other is not None
        assert (one.map == other.map).mean() > 0.97


def test_more_than_255_classes(tmp_path: Path) -> None:
    model = save_many_classes(tmp_path, 300)
    made = loaded(model)
    contract = made.writes()
    assert (contract.ignore_index, contract.column("classes").dtype) == (65535, "list:<u2")
    (mask,) = masks_of(made, [png(scene(rectangles(40, 50, 1)))])
    assert mask.map.dtype == np.uint16
    assert mask.map.max() >= 256


def save_many_classes(folder: Path, num_classes: int) -> Path:
    """A random network that prefers its last classes."""
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_encoder_blocks=1, depths=[1], sr_ratios=[2], hidden_sizes=[8], patch_sizes=[7], strides=[4],
        num_attention_heads=[1], mlp_ratios=[1], decoder_hidden_size=8,
        id2label={index: f"class {index}" for index in range(num_classes)},
    )  # fmt: skip
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        network.get_parameter("decode_head.classifier.bias")[256:] = 5.0
    network.save_pretrained(folder)
    transformers.SegformerImageProcessor().save_pretrained(folder)
    return folder


def test_large_images_are_dead_letters(segmenter: Path) -> None:
    made = built(segmenter, max_pixels=1000)
    with pytest.raises(BadSample) as caught:
        made.prepare({"image": png(scene(rectangles(40, 50, 1)))})
    assert caught.value.reason == Reason.IMAGE_TOO_LARGE


def test_broken_output_is_a_bad_sample(segmenter: Path, batch: Batch) -> None:
    made = loaded(segmenter)
    made._network.segmenter.network.get_submodule("decode_head.classifier").bias.data[1] = torch.nan
    with pytest.raises(BadSample) as caught:
        made(batch)
    assert caught.value.reason == Reason.BAD_OUTPUT


def test_the_contract_needs_facts_only(segmenter: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    copy.mkdir()
    for file in segmenter.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    parameters = MaskParameters(model=str(copy), input_size=SIZE)
    lock = tmp_path / "recipe.lock.json"
    facts = Lock(lock).facts(MaskLabeler(parameters))
    copy.rename(tmp_path / "elsewhere")
    planned = MaskLabeler(parameters.model_copy(update={"confidence": 0.5}), label="colours")
    planned.facts = Lock(lock).facts(planned)
    assert planned.facts == facts
    contract = planned.writes()
    assert [column.name for column in contract.columns] == [
        f"colours_{suffix}" for suffix in ("map", "height", "width", "classes", "confidence")
    ]
    assert contract.geometry is not None
    assert (contract.geometry.size, contract.ignore_index) == (SIZE, 255)
    assert contract.classes is not None
    assert contract.classes.count == len(NAMES)
    assert list(planned.class_names()) == list(NAMES.values())


def test_the_fingerprint_follows_weights_not_places(segmenter: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in segmenter.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    here, there = built(segmenter), built(moved)
    assert here.fingerprint() == there.fingerprint()
    assert str(segmenter) not in str(here.identity())
    for change in ({"input_size": 96}, {"interpolation": "bicubic"}, {"class_names": ["a", "b"]}, {"max_pixels": 9}):
        assert built(segmenter, **change).fingerprint() != here.fingerprint(), change


def test_other_weights_than_planned_are_refused(tmp_path: Path) -> None:
    made = built(save_many_classes(tmp_path, 3))
    save_many_classes(tmp_path, 3)
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(tmp_path)
    network.get_submodule("decode_head.classifier").bias.data += 1
    network.save_pretrained(tmp_path)
    with pytest.raises(Refused, match="Put the same files on every machine"):
        made.load("cpu")


def test_models_that_are_no_segmenters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="does not load as an image segmenter"):
        built(save_model(tmp_path, "ResNet"))
    with pytest.raises(UsageError, match="a mask needs a segmentation model of transformers"):
        built(Path("efficientnet-lite0"))


def test_class_names_must_fit(segmenter: Path) -> None:
    with pytest.raises(UsageError, match="tells 2 classes apart, got 3"):
        built(segmenter, class_names=["a", "b", "c"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"input_size": 16}, "greater than or equal to 32"), ({"confidence": 1.5}, "less than or equal to 1"),
     ({"dtype": "fp16"}, "'fp32' or 'bf16'"), ({"top_k": 3}, "top_k")],
)  # fmt: skip
def test_wrong_parameters_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MaskParameters.model_validate({"model": "hf:org/name", **changes})


def test_it_is_registered() -> None:
    assert labeler("mask") is MaskLabeler


def test_text_is_no_image(segmenter: Path) -> None:
    with pytest.raises(BadSample) as caught:
        MaskLabeler(MaskParameters(model=str(segmenter))).prepare({"image": "no"})
    assert caught.value.reason == Reason.NOT_AN_IMAGE
