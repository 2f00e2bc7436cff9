"""image_text_score: scores that do not depend on neighbours, what the encoder sees, what is cut, which caption wins."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from small_encoders import BUDGET, PAIRS, SIZE, caption, clip, save_clip, save_siglip, scene
from two_colours import png

from relabel.errors import BadSample, Refused, UsageError
from relabel.labelers.checkpoints import local_checkpoint
from relabel.labelers.labeler import Batch
from relabel.labelers.packing import pack, unpack
from relabel.labels.caption import caption_contract
from relabel.labels.contract import LabelContract
from relabel.labels.kinds import text
from relabel.metrics.dual_encoder import FixedPairs, Frame, load_dual_encoder, read_frame
from relabel.metrics.image_text_score import NO_TEXT, ImageTextScore, ImageTextScoreParameters
from relabel.testing import check_labeler

Sample = dict[str, Any]
CUT = {"do_center_crop": True, "crop_size": {"height": 40, "width": 40}}
CAPTIONS = caption_contract("caption", ["short", "long"], logprobs=False, reproducible=True, old=True)


@pytest.fixture(scope="module")
def random_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def trained_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("trained"), steps=60)


def scorer(model: Path | str, contract: LabelContract = CAPTIONS, label: str = "", **parameters: Any) -> ImageTextScore:
    made = ImageTextScore(ImageTextScoreParameters(model=str(model), captions=contract.name, **parameters), label)
    made.inputs = {contract.name: contract}
    made.read_fingerprints = {contract.name: "0" * 64}
    made.facts = made.inspect()
    return made


def sample(row: int, short: str = "", old: str | None = None, **fields: Any) -> Sample:
    """A scene with a right short caption, a wrong long one, and an old one."""
    box, ground = PAIRS[row]
    return {
        "image": png(scene(box, ground, seed=1_000 + row, height=40 + row, width=56)),
        "caption_short_text": short or caption(box, ground),
        "caption_long_text": caption(ground, box),
        "caption_old": f"a {box}" if old is None else old,
        **fields,
    }  # fmt: skip


def score(labeler: ImageTextScore, samples: list[Sample]) -> Mapping[str, np.ndarray]:
    """As an actor does it: prepared, packed, with the columns that are read, in one padded call."""
    labeler.compute_batch = len(samples)
    labeler.load("cpu")
    batch: dict[str, Any] = dict(unpack(pack([labeler.prepare(given(labeler, each)) for each in samples])))
    names = [
        column.name for contract in labeler.inputs.values() for column in contract.columns if column.name in samples[0]
    ]
    batch.update({name: [each[name] for each in samples] for name in names})
    return {name: np.asarray(values) for name, values in labeler(as_batch(batch)).items()}


def given(labeler: ImageTextScore, fields: Sample) -> Sample:
    return {name: fields[name] for name in (*labeler.needs, *labeler.wants) if name in fields}


def as_batch(batch: dict[str, Any]) -> Batch:
    return batch


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_it_keeps_the_rules(family: str, tmp_path: Path) -> None:
    """Contract, row order, neighbours, determinism, bad samples, the fingerprint in other processes."""
    folder = {"clip": save_clip, "siglip": save_siglip}[family](tmp_path)
    check_labeler(scorer(folder), [sample(row, old="" if row == 2 else None) for row in range(5)], compute_batch=3)


def test_it_keeps_the_rules_where_the_data_set_has_the_old_caption(random_clip: Path) -> None:
    labeler = scorer(random_clip, text("said"), old_caption="alt")
    samples = [sample(row, alt=b"a red box", said_text=caption(*PAIRS[row])) for row in range(4)]
    check_labeler(labeler, samples, compute_batch=2)


@pytest.mark.parametrize(("save", "masked"), [(save_clip, True), (save_siglip, False)])
def test_a_score_is_the_cosine_that_transformers_gives(save: Any, masked: bool, tmp_path: Path) -> None:
    folder = save(tmp_path)
    found = score(scorer(folder), [sample(row) for row in range(4)])
    network = transformers.AutoModel.from_pretrained(folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)(
        [caption(*PAIRS[row]) for row in range(4)], padding="max_length", max_length=BUDGET, return_tensors="pt"
    )
    encoder = load_dual_encoder(local_checkpoint(str(folder)))  # type: ignore[arg-type]
    images = np.stack([scorer(folder).prepare({"image": sample(row)["image"]})["image"] for row in range(4)])
    with torch.inference_mode():
        mask = words["attention_mask"] if masked else None
        said = network.get_text_features(words["input_ids"], attention_mask=mask).pooler_output
        seen = network.get_image_features(encoder.normalisation.apply(torch.from_numpy(images))).pooler_output
    expected = torch.nn.functional.cosine_similarity(seen, said).numpy()
    assert np.abs(found["image_text_score_short"] - expected).max() < 1e-5


def test_a_trained_encoder_tells_right_captions_from_wrong_ones(trained_clip: Path) -> None:
    found = score(scorer(trained_clip), [sample(row) for row in range(len(PAIRS))])
    short, long, old = (found[f"image_text_score_{name}"] for name in ("short", "long", "old"))
    assert (short > long).mean() == 1.0
    assert (short > old).mean() > 0.9
    assert all(((scores >= -1) & (scores <= 1)).all() for scores in (short, long, old))


def test_what_is_over_the_budget_is_cut_and_counted(random_clip: Path) -> None:
    longer = "a red box on blue a a a a"
    found = score(scorer(random_clip), [sample(0, short=longer), sample(0, short="a red box on blue a"), sample(0)])
    assert found["image_text_score_short_cut"].tolist() == [len(longer.split()) + 2 - BUDGET, 0, 0]
    scores = found["image_text_score_short"]
    assert scores[0] == scores[1] != scores[2], "what is cut does not count"


def test_rows_without_an_old_caption_say_so(random_clip: Path) -> None:
    labeler = scorer(random_clip)
    found = score(labeler, [sample(0), sample(1, old=" \n"), sample(2, old="")])
    assert found["image_text_score_old"][1:].tolist() == [NO_TEXT, NO_TEXT]
    assert found["image_text_score_old"][0] > -1
    assert labeler.writes().no_score == NO_TEXT
    assert labeler.writes().rivals == (("short", "old"), ("long", "old"))


def test_styles_are_chosen_and_old_captions_need_not_be_there(random_clip: Path) -> None:
    without = caption_contract("caption", ["short", "long"], logprobs=False, reproducible=True, old=False)
    contract = scorer(random_clip, without, styles=("long",)).writes()
    assert [column.name for column in contract.columns] == ["image_text_score_long", "image_text_score_long_cut"]
    assert contract.rivals is None


def test_an_old_caption_of_the_data_set_wins_over_none(random_clip: Path) -> None:
    labeler = scorer(random_clip, text("said"), old_caption=True)
    assert labeler.wants == ("old_caption",)
    rows = [sample(row, said_text=caption(*PAIRS[row])) for row in range(2)]
    rows[0]["old_caption"] = b"a red box on green"
    found = score(labeler, rows)
    assert found["image_text_score_old"][0] > -1
    assert found["image_text_score_old"][1] == NO_TEXT


@pytest.mark.parametrize(
    ("contract", "parameters", "message"),
    [
        (text("other"), {"styles": ("short",)}, "styles short of the label 'other', which has: text"),
        (caption_contract("caption", ["old", "x"], logprobs=False, reproducible=True, old=False), {}, "called 'old'"),
        (
            caption_contract("caption", ["a", "a_cut"], logprobs=False, reproducible=True, old=False),
            {},
            "Rename a style",
        ),
        (LabelContract(name="caption", kind="score", columns=()), {}, "which has: no text"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    random_clip: Path, contract: LabelContract, parameters: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        scorer(random_clip, contract, **parameters).writes()


def test_a_label_that_no_step_writes_is_refused(random_clip: Path) -> None:
    with pytest.raises(UsageError, match="put the step that writes it before this one"):
        ImageTextScore(ImageTextScoreParameters(model=str(random_clip))).writes()


def test_the_meaning_is_the_weights_and_the_tokens_not_the_place(random_clip: Path, tmp_path: Path) -> None:
    same = save_clip(tmp_path / "moved")
    assert scorer(same).fingerprint() == scorer(random_clip).fingerprint()
    apart = save_clip(tmp_path / "apart", together=False)
    assert scorer(apart).facts["weights"] == scorer(random_clip).facts["weights"]
    words = tmp_path / "moved" / "tokenizer.json"
    words.write_text(words.read_text().replace("Lowercase", "NFC"))
    assert scorer(same).fingerprint() != scorer(random_clip).fingerprint()
    moved = scorer(random_clip)
    moved.parameters = moved.parameters.model_copy(update={"model": str(same)})
    with pytest.raises(Refused, match="tokenizer .* have digest"):
        moved.load("cpu")
    with torch.no_grad():
        other = clip()
    other.save_pretrained(same)
    assert scorer(same).facts["weights"] != scorer(random_clip).facts["weights"]


@pytest.mark.parametrize(("edge", "size"), [(SIZE, (50, 80)), (40, (80, 50)), (SIZE, (33, 32)), (48, (31, 90))])
def test_the_encoder_sees_what_its_own_processor_shows_it(edge: int, size: tuple[int, int], tmp_path: Path) -> None:
    """The square in the middle, up to the rounding of resizing first and cutting then."""
    folder = save_clip(tmp_path, edge=edge)
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    image = (127 + 120 * np.sin(np.stack([6 * x, 7 * y, 3 * x + 4 * y], axis=-1))).astype(np.uint8)
    seen = scorer(folder).prepare({"image": png(image)})["image"]
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    shown = processor(images=image, return_tensors="np", do_normalize=False, do_rescale=False)["pixel_values"][0]
    assert seen.shape == (SIZE, SIZE, 3)
    assert np.abs(seen.transpose(2, 0, 1).astype(float) - shown).mean() < 4


def test_siglip_stretches(tmp_path: Path) -> None:
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, :20] = 255
    seen = scorer(save_siglip(tmp_path)).prepare({"image": png(image)})["image"]
    assert seen[:, 2].min() > 250, "what a cut would leave out is seen"


@pytest.mark.parametrize(
    "processor",
    [
        {"do_resize": True, "size": {"shortest_edge": 32}, "resample": 3},
        {"do_resize": True, "size": {"height": 32, "width": 24}, "resample": 3},
        {"do_resize": True, "size": {"height": 32, "width": 32}, "resample": 1},
        {"do_resize": False, "size": {"height": 32, "width": 32}, "resample": 3},
        {"do_resize": True, "size": {"shortest_edge": 32}, **CUT, "resample": 2},
    ],
)  # fmt: skip
def test_processors_that_do_something_else_are_refused(processor: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="must stretch an image to a square"):
        read_frame(processor, Path("folder"))


def test_frames() -> None:
    crop = {"do_center_crop": True, "crop_size": {"height": 24, "width": 24}}
    assert read_frame({"do_resize": True, "size": {"shortest_edge": 32}, **crop, "resample": 2}, Path()) == Frame(
        24, 0.75, "bilinear"
    )
    square = {"do_resize": True, "size": {"height": 24, "width": 24}, "resample": 3}
    assert read_frame(square, Path()) == read_frame({**square, **crop}, Path()) == Frame(24, None, "bicubic")


def test_models_that_are_no_dual_encoders_are_refused(tmp_path: Path, random_clip: Path) -> None:
    with pytest.raises(Refused, match="does not run on images of 24 x 24"):
        scorer(save_siglip(tmp_path / "small", 24, 24))
    folder = tmp_path / "classifier"
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    transformers.ViTModel(config).save_pretrained(folder)
    with pytest.raises(Refused, match="not an encoder of images and one of texts"):
        scorer(folder)
    words = save_clip(tmp_path / "no words")
    (words / "tokenizer.json").unlink()
    (words / "tokenizer_config.json").unlink()
    with pytest.raises(Refused, match="holds no tokenizer"):
        scorer(words)
    strange = save_clip(tmp_path / "strange words", together=False)
    more = transformers.AutoTokenizer.from_pretrained(strange)
    more.add_tokens(["tractor"])
    more.save_pretrained(strange)
    with pytest.raises(Refused, match="at most the 13 tokens that the encoder knows, got '<pad>' and 14"):
        scorer(strange)


def test_bad_samples_have_reasons(random_clip: Path) -> None:
    labeler = scorer(random_clip, text("said"), old_caption=True)
    for fields, reason in (
        ({"image": "text"}, "not_an_image"),
        ({"image": sample(0)["image"][:200]}, "corrupt_image"),
        ({"image": sample(0)["image"], "old_caption": "a" * 200_000}, "bad_metadata"),
    ):
        with pytest.raises(BadSample) as caught:
            labeler.prepare(fields)
        assert caught.value.reason == reason


def test_every_call_has_one_shape(random_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: set[tuple[int, ...]] = set()
    original = FixedPairs.texts

    def seen(self: FixedPairs, texts: Any) -> Any:
        found = original(self, texts)
        shapes.add((len(texts), *found[0].shape))
        return found

    labeler = scorer(random_clip)
    monkeypatch.setattr(FixedPairs, "texts", seen)
    score(labeler, [sample(0), sample(1, old=""), sample(2, short="a")])
    assert shapes == {(3, 3, 16)}
