"""Packing: prepared samples in one buffer, so that a part travels as one cell and unpacks without a copy.

Layout: 8 bytes little-endian length of a JSON header, the header, then every array at a multiple of 64 bytes. A field
whose samples agree in dtype and shape lies contiguously and unpacks as one stacked array; others unpack as a list.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from ..digests import Json, canonical_json
from ..errors import Refused
from .labeler import Batch, Prepared

ALIGNMENT = 64
LENGTH_BYTES = 8


def pack(samples: Sequence[Prepared]) -> pa.Buffer:
    """All samples of a part, in order; every array is copied once.

    Raises Refused where samples have different fields.
    """
    fields = list(samples[0]) if samples else []
    if other := next((sample for sample in samples if set(sample) != set(fields)), None):
        raise Refused(f"prepare() must give the same fields for every sample, got {fields} and {list(other)}.")
    layouts, cursor = [], 0
    for name in fields:
        layout = _layout(name, [sample[name] for sample in samples], cursor)
        layouts.append(layout)
        cursor = layout.get("end", cursor)
    header = canonical_json({"rows": len(samples), "fields": layouts})
    start = _aligned(LENGTH_BYTES + len(header))
    buffer = pa.allocate_buffer(start + cursor)
    target = np.frombuffer(buffer, np.uint8)
    target[:start] = 0
    target[:LENGTH_BYTES] = np.frombuffer(len(header).to_bytes(LENGTH_BYTES, "little"), np.uint8)
    target[LENGTH_BYTES : LENGTH_BYTES + len(header)] = np.frombuffer(header, np.uint8)
    for layout in layouts:
        if "text" not in layout:
            _write(target[start:], layout, [sample[layout["name"]] for sample in samples])
    return buffer


def check_prepared(sample: object) -> None:
    """Raises Refused where this is nothing that can be packed."""
    if not isinstance(sample, Mapping) or not sample:
        raise Refused(
            f"prepare() must give arrays by name such as {{'image': pixels}}, got {type(sample).__name__}. Return a "
            "dict; a sample that cannot be labelled raises BadSample."
        )
    for name, array in sample.items():
        if not isinstance(array, np.ndarray) or array.dtype.hasobject:
            got = "an array of Python objects" if isinstance(array, np.ndarray) else type(array).__name__
            raise Refused(
                f"prepare() must give numpy arrays of numbers or text, got {got} for {name!r}. Convert it by np.array."
            )


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _layout(name: str, arrays: Sequence[np.ndarray], start: int) -> dict[str, Json]:
    """Where a field's samples lie, relative to the first array; `end` is the next free aligned position."""
    if arrays[0].dtype.kind == "U":
        return {"name": name, "text": [str(array) for array in arrays]}
    stacked = len({(array.dtype.str, array.shape) for array in arrays}) == 1
    offsets = [_aligned(start)]
    for array in arrays:
        offsets.append(offsets[-1] + array.nbytes if stacked else _aligned(offsets[-1] + array.nbytes))
    first = arrays[0]
    if stacked:
        return {
            "name": name,
            "dtype": first.dtype.str,
            "shape": first.shape,
            "offset": offsets[0],
            "end": _aligned(offsets[-1]),
        }
    return {
        "name": name,
        "dtypes": [array.dtype.str for array in arrays],
        "shapes": [array.shape for array in arrays],
        "offsets": offsets[:-1],
        "end": _aligned(offsets[-1]),
    }


def _write(target: np.ndarray, layout: dict[str, Json], arrays: Sequence[np.ndarray]) -> None:
    if "dtype" in layout:
        np.stack(arrays, out=_view(target, layout["dtype"], [len(arrays), *layout["shape"]], layout["offset"]))
        return
    for array, offset in zip(arrays, layout["offsets"], strict=True):
        _view(target, array.dtype.str, array.shape, offset)[...] = array


def _view(data: np.ndarray, dtype: str, shape: Sequence[int], offset: int) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return data[offset : offset + size].view(dtype).reshape(shape)


def unpack(packed: pa.Buffer | bytes | memoryview) -> Batch:
    """The batch that `pack` took: read-only views of `packed`, text as arrays of str."""
    data = np.frombuffer(packed, np.uint8)
    data.flags.writeable = False
    length = int.from_bytes(data[:LENGTH_BYTES].tobytes(), "little")
    header = json.loads(data[LENGTH_BYTES : LENGTH_BYTES + length].tobytes())
    arrays = data[_aligned(LENGTH_BYTES + length) :]
    return {layout["name"]: _read(arrays, header["rows"], layout) for layout in header["fields"]}


def _read(arrays: np.ndarray, rows: int, layout: dict[str, Json]) -> np.ndarray | list[np.ndarray]:
    if "text" in layout:
        return np.array(layout["text"], dtype=np.str_)
    if "dtype" in layout:
        return _view(arrays, layout["dtype"], [rows, *layout["shape"]], layout["offset"])
    places = zip(layout["dtypes"], layout["shapes"], layout["offsets"], strict=True)
    return [_view(arrays, dtype, shape, offset) for dtype, shape, offset in places]
