"""ONNX engine: a dense classifier as an onnxruntime session on the CPU, in fp32 or static int8 (QDQ, per channel).

The graph is exported for one shape, which is the only one that labels are computed with.
"""

import importlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from ..errors import Refused, UsageError
from .content import Images
from .dense import DenseClassifier

PACKAGES = ("onnx", "onnxruntime")
OPSET = 17
MAX_BYTES = 2**31 - 2**20
"""Of one protobuf file."""
EDGE_CONVOLUTIONS = 3
"""Kept in fp32, with the normalisation and the head: the first ones work on few channels of very different ranges.
On EfficientNet-lite0 that raises the agreement of confident cells from 0.92 to 0.95 and costs nothing measurable."""


class OnnxNetwork:
    """uint8 images to dense logits, as DenseClassifier gives them."""

    device = torch.device("cpu")

    def __init__(self, model: bytes, threads: int) -> None:
        runtime = _package("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Idle threads must not spin: the readers decode on the same cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, pixels: UInt8[Tensor, "n size size 3"]) -> Float32[Tensor, "n classes y x"]:
        """`n` is the batch that the graph was exported for; classes are innermost in memory."""
        (logits,) = self._session.run(None, {"pixels": pixels.numpy()})
        return torch.from_numpy(logits).permute(0, 3, 1, 2)


class _Graph(nn.Module):
    """What is exported: classes last, so that no transpose is left in the graph."""

    def __init__(self, dense: DenseClassifier) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, pixels: Tensor) -> Tensor:
        return self.dense.dense(pixels).permute(0, 2, 3, 1)


def export(dense: DenseClassifier, batch: int, size: int) -> bytes:
    """The network in fp32 for `batch` images of `size` x `size`; raises Refused where it has no ONNX form."""
    weights = sum(weight.nbytes for weight in dense.network.parameters())
    if weights > MAX_BYTES:
        raise Refused(f"the weights are {weights} bytes, one ONNX file holds {MAX_BYTES}: use `engine: torch`.")
    _package("onnx")
    example = (torch.zeros((batch, size, size, 3), dtype=torch.uint8),)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own age, and shapes that are meant to be constant
        path = Path(folder) / "dense.onnx"
        try:
            torch.onnx.export(
                _Graph(dense).eval(), example, path, dynamo=False, opset_version=OPSET,
                input_names=["pixels"], output_names=["logits"],
            )  # fmt: skip
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise Refused(
                f"{type(dense.network).__name__} has no ONNX form: {str(error)[:300]} Use `engine: torch`."
            ) from error
        return path.read_bytes()


def quantise(model: bytes, images: Images, batch: int) -> bytes:
    """Static int8 by the ranges that activations take on `images`; normalisation, first convolutions and head stay."""
    shapes, quantisation = _package("onnxruntime.quantization.shape_inference"), _package("onnxruntime.quantization")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source, folded, target = (Path(folder) / name for name in ("source.onnx", "folded.onnx", "int8.onnx"))
        source.write_bytes(model)
        shapes.quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        quantisation.quantize_static(
            str(folded),
            str(target),
            _calibration_reader(quantisation, images, batch),
            quant_format=quantisation.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantisation.QuantType.QUInt8,
            weight_type=quantisation.QuantType.QInt8,
            calibrate_method=quantisation.CalibrationMethod.MinMax,
            nodes_to_exclude=_kept_nodes(_package("onnx").load(str(folded)).graph.node),
        )
        return target.read_bytes()


def _kept_nodes(nodes: Sequence[Any]) -> list[str]:
    """Names of the nodes that stay in fp32."""
    layers = [index for index, node in enumerate(nodes) if node.op_type in ("Conv", "Gemm", "MatMul")]
    convolutions = [node.name for node in nodes if node.op_type == "Conv"][:EDGE_CONVOLUTIONS]
    return [*(node.name for node in nodes[: layers[0]]), *convolutions, nodes[layers[-1]].name]


def _calibration_reader(quantisation: Any, images: Images, batch: int) -> Any:
    """A reader of `images` for onnxruntime in batches of the graph's shape, the last one filled with its last row."""

    class Reader(quantisation.CalibrationDataReader):  # type: ignore[misc]  # its base is imported late
        def __init__(self) -> None:
            self._batches: Iterator[np.ndarray] = batches(images, batch)

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            chunk = next(self._batches, None)
            return None if chunk is None else {"pixels": chunk}

    return Reader()


def batches(images: Images, batch: int) -> Iterator[Images]:
    """Exactly `batch` rows at a time, the last ones repeated."""
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        yield np.concatenate([chunk, np.repeat(chunk[-1:], batch - len(chunk), axis=0)])


def _package(name: str) -> Any:
    """An optional package (partly untyped, imported only for this engine)."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"engine onnxruntime needs {name.partition('.')[0]}. Run `pip install 'relabel-ray[onnx]'`."
        ) from error
