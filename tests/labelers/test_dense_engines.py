"""Engines: the same photos through every engine give the same confident classes, and the contract says how exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import save_model

from relabel.errors import Refused, UsageError
from relabel.labelers import dense, dense_engines, onnx_engine
from relabel.labelers.checkpoints import find_checkpoint
from relabel.labelers.dense_engines import Choice, Measured, compare, logits_of, open_engine
from relabel.labelers.families import load_classifier
from relabel.labelers.images import decode_image, resize_square
from relabel.labelers.label_map import LabelMapLabeler, LabelMapParameters
from relabel.labelers.lock import Lock
from relabel.labels.contract import EngineError

Photos = list[tuple[bytes, int]]
SIZE = 224
CHOICES = {
    "bf16": (Choice(dtype="bf16"), 0.97),
    "onnxruntime": (Choice(engine="onnxruntime"), 0.97),
    "int8": (Choice(engine="onnxruntime-int8"), 0.90),
}


def opened(model: str | Path, choice: Choice, size: int = SIZE, compute_batch: int = 4) -> dense_engines.Opened:
    classifier = load_classifier(find_checkpoint(str(model)))
    return open_engine(classifier, choice, "cpu", size=size, compute_batch=compute_batch, threads=1)


@pytest.fixture(scope="module")
def squares(photos: Photos) -> np.ndarray:
    return np.stack([resize_square(decode_image(data), SIZE, "bilinear") for data, _ in photos])


@pytest.fixture(scope="module")
def expected(squares: np.ndarray) -> torch.Tensor:
    found = opened("efficientnet-lite0", Choice())
    assert found.measured is None
    return logits_of(found.network, squares, 4)


@pytest.fixture(scope="module")
def lites() -> dict[str, dense_engines.Opened]:
    """The real network, opened once per engine."""
    return {name: opened("efficientnet-lite0", choice) for name, (choice, _) in CHOICES.items()}


@pytest.mark.parametrize("name", CHOICES)
def test_confident_cells_of_real_photos_agree(
    name: str, lites: dict[str, dense_engines.Opened], squares: np.ndarray, expected: torch.Tensor
) -> None:
    (choice, least), engine = CHOICES[name], lites[name]
    on_photos = compare(expected, logits_of(engine.network, squares, 4))
    assert on_photos.confident_cells > 400
    assert on_photos.agreement >= least
    assert engine.measured is not None
    assert engine.measured.confident_cells > 300
    bounds = engine.measured.bounds(choice.description)
    # What the contract says of fixed content holds for the photos.
    assert not on_photos.breaks(bounds)
    assert engine.measured.max_logit_error <= bounds.max_logit_error
    assert bounds.confident_agreement is not None
    assert bounds.confident_agreement <= engine.measured.agreement
    if choice.engine == "onnxruntime":
        assert bounds == EngineError(engine="onnxruntime", max_logit_error=2.0**-10, confident_agreement=1.0)


@pytest.mark.parametrize("name", ["onnxruntime", "int8"])
def test_neighbours_do_not_change_a_bit(name: str, lites: dict[str, dense_engines.Opened], squares: np.ndarray) -> None:
    network = lites[name].network
    whole = logits_of(network, squares[:8], 4)
    for rows in ([5], [3, 0, 7], [1, 1, 1, 1, 1]):
        assert torch.equal(logits_of(network, squares[rows], 4), whole[rows])


@pytest.mark.parametrize("family", ["ResNet", "RegNet", "MobileNetV2", "EfficientNet", "ViT", "Swin", "Dinov2"])
def test_every_family_runs_on_onnxruntime(family: str, tmp_path: Path) -> None:
    found = opened(save_model(tmp_path, family), Choice(engine="onnxruntime"), size=96).measured
    assert found is not None
    assert found.agreement >= 0.99
    assert found.max_logit_error < 2e-3


@pytest.mark.parametrize("family", ["ResNet", "ViT"])
def test_convolutions_and_transformers_are_quantised(family: str, tmp_path: Path) -> None:
    found = opened(save_model(tmp_path, family), Choice(engine="onnxruntime-int8"), size=96).measured
    assert found is not None
    assert 1e-3 < found.max_logit_error < 4
    assert found.agreement >= 0.75


def labeler(model: str | Path, **parameters: object) -> LabelMapLabeler:
    made = LabelMapLabeler(LabelMapParameters.model_validate({"model": str(model), "input_size": 96, **parameters}))
    made.facts = made.inspect()
    return made


def test_the_contract_carries_the_error_and_the_fingerprint_follows(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "ResNet")
    made = {engine: labeler(folder, engine=engine) for engine in ("torch", "onnxruntime", "onnxruntime-int8")}
    assert made["torch"].writes().engine_error is None
    for engine in ("onnxruntime", "onnxruntime-int8"):
        error = made[engine].writes().engine_error
        assert error is not None
        assert error.engine == engine
        assert made[engine].facts["measured"]["max_logit_error"] <= error.max_logit_error
    assert len({one.fingerprint() for one in made.values()}) == 3
    assert "measured" not in made["onnxruntime"].identity()


def scores_of(made: LabelMapLabeler) -> np.ndarray:
    """Of three noise images, the labeler loaded on the CPU."""
    made.load("cpu")
    images = np.random.default_rng(1).integers(0, 256, (3, 96, 96, 3), np.uint8)
    labels = made({"image": images, **{side: np.full(3, 96, np.int32) for side in ("height", "width")}})
    return np.asarray(labels["label_map_scores"]).astype(np.float32)


def test_onnx_labels_and_its_versions_are_numerics(tmp_path: Path) -> None:
    made = labeler(save_model(tmp_path, "ResNet"), engine="onnxruntime")
    reference = labeler(tmp_path)
    assert np.abs(scores_of(made) - scores_of(reference)).max() <= 2**-8
    assert {"onnx", "onnxruntime", "transformers"} <= made.numerics().keys()
    assert "onnxruntime" not in reference.numerics()


def test_calibration_images_are_part_of_the_fingerprint(tmp_path: Path, photos: Photos) -> None:
    folder = save_model(tmp_path / "model", "ResNet")
    for name, count in (("few", 2), ("same", 2), ("more", 3)):
        (tmp_path / name).mkdir()
        for index in range(count):
            (tmp_path / name / f"{name}{index}.jpg").write_bytes(photos[index][0])
    few, same, more = (
        labeler(folder, engine="onnxruntime-int8", calibration=str(tmp_path / name)) for name in ("few", "same", "more")
    )
    own = labeler(folder, engine="onnxruntime-int8")
    assert few.fingerprint() == same.fingerprint()
    assert len({one.fingerprint() for one in (few, more, own)}) == 3
    assert str(tmp_path) not in str(few.identity())
    (tmp_path / "few" / "few1.jpg").unlink()
    with pytest.raises(Refused, match="the calibration of .* Put the same files on every machine"):
        few.load("cpu")


def test_changed_calibration_images_are_inspected_again(tmp_path: Path, photos: Photos) -> None:
    folder = save_model(tmp_path / "model", "ResNet")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(photos[0][0])
    parameters = LabelMapParameters(
        model=str(folder), input_size=96, engine="onnxruntime-int8", calibration=str(tmp_path / "images")
    )
    before = Lock(tmp_path / "lock.json").facts(LabelMapLabeler(parameters))
    assert Lock(tmp_path / "lock.json").facts(LabelMapLabeler(parameters)) == before
    (tmp_path / "images" / "a.jpg").write_bytes(photos[1][0])
    made = LabelMapLabeler(parameters)
    made.facts = Lock(tmp_path / "lock.json").facts(made)
    assert made.facts["calibration"] != before["calibration"]
    made.load("cpu")


def test_an_engine_that_is_worse_here_than_planned_is_refused(tmp_path: Path) -> None:
    made = labeler(save_model(tmp_path, "ResNet"), engine="onnxruntime-int8")
    made.facts["engine_error"]["max_logit_error"] = 2.0**-10
    with pytest.raises(Refused, match=r"less exact on this machine than the contract says: .* needs a CPU with VNNI"):
        made.load("cpu")


def test_an_engine_that_loses_the_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model(tmp_path, "ResNet")
    monkeypatch.setattr(dense_engines, "compare", lambda expected, found: Measured(9.0, 0.5, 100))
    with pytest.raises(Refused, match=r"onnxruntime loses this model: only 50% of 100 confident cells"):
        opened(folder, Choice(engine="onnxruntime"), size=96)


def test_bounds_are_rounded_outward() -> None:
    assert Measured(3.1, 0.9299, 400).bounds("x") == EngineError(
        engine="x", max_logit_error=4.0, confident_agreement=0.9
    )
    assert Measured(4.0, 0.95, 400).bounds("x").max_logit_error == 4.0
    assert Measured(4.0, 0.95, 400).bounds("x").confident_agreement == 0.95
    assert Measured(0.0, 1.0, 29).bounds("x").confident_agreement is None
    bounds = Measured(3.1, 0.93, 400).bounds("x")
    assert not Measured(8.0, 0.86, 400).breaks(bounds)
    assert Measured(8.1, 0.93, 400).breaks(bounds)
    assert Measured(3.1, 0.84, 400).breaks(bounds)
    assert Measured(float("inf"), 1.0, 0).breaks(bounds)


def test_nan_is_an_infinite_error() -> None:
    logits = torch.zeros(1, 3, 2, 2)
    assert compare(logits, torch.full_like(logits, torch.nan)).max_logit_error == float("inf")


def test_onnxruntime_is_for_cpus(tmp_path: Path) -> None:
    classifier = load_classifier(find_checkpoint(str(save_model(tmp_path, "ResNet"))))
    with pytest.raises(UsageError, match=r"engine onnxruntime runs on CPUs. Set `resources.gpus: 0`"):
        open_engine(classifier, Choice(engine="onnxruntime"), "cuda", size=96, compute_batch=2, threads=1)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_packages_are_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model(tmp_path, "ResNet")
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UsageError, match=rf"engine onnxruntime needs {package}. Run `pip install 'relabel-ray\[onnx\]"):
        opened(folder, Choice(engine="onnxruntime"), size=96)


def test_a_model_beyond_one_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model(tmp_path, "ResNet")
    monkeypatch.setattr(onnx_engine, "MAX_BYTES", 1000)
    with pytest.raises(Refused, match="one ONNX file holds 1000: use `engine: torch`"):
        opened(folder, Choice(engine="onnxruntime"), size=96)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "onnxruntime", "dtype": "bf16"}, "leave them out with engine onnxruntime"),
        ({"engine": "onnxruntime-int8", "compile": True}, "compile are torch's"),
        ({"calibration": "images"}, "calibration is for engine onnxruntime-int8"),
        ({"engine": "tensorrt"}, "'torch', 'onnxruntime' or 'onnxruntime-int8'"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelMapParameters.model_validate({"model": "efficientnet-lite0", "input_size": 96, **changes})


def test_compiling_without_a_compiler_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model(tmp_path, "ResNet")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler, found none of no-such-compiler. Install g\+\+"):
        opened(folder, Choice(compile=True), size=96)
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(dense.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"found none of g\+\+, clang\+\+, c\+\+"):
        opened(folder, Choice(compile=True), size=96)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs Triton on a GPU"):
        dense.check_compiler(torch.device("cuda"))


@pytest.mark.slow
def test_a_compiled_network_is_measured_and_keeps_its_contract(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "ResNet")
    made = labeler(folder, compile=True)
    assert made.writes().engine_error == EngineError(
        engine="torch fp32 compiled", max_logit_error=2.0**-10, confident_agreement=None
    )
    assert np.abs(scores_of(made) - scores_of(labeler(folder))).max() <= 2**-8
