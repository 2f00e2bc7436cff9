"""Layouts: ways to arrange the bytes of label maps before zstd sees them; all exact."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from relabel.labels.shard_file import ROWS_PER_GROUP

Arrays = Mapping[str, np.ndarray]
Cells = Mapping[str, list[bytes]]
"""By column: one cell of bytes per row."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How ids, scores and residual become cells and, with the shapes at hand, arrays again."""

    encode: Callable[[Arrays], Cells]
    decode: Callable[[Cells, Arrays], dict[str, np.ndarray]]


def packed_bytes(cells: Cells) -> int:
    """Of a Parquet file of these cells as label shards write them; cells of one width are fixed_size_binary."""
    columns = {}
    for name, rows in cells.items():
        widths = {len(row) for row in rows}
        columns[name] = pa.array(rows, pa.binary(widths.pop()) if len(widths) == 1 else pa.binary())
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(columns), sink, row_group_size=ROWS_PER_GROUP, compression="zstd", compression_level=3,
        use_dictionary=False, write_statistics=False, write_page_checksum=True,
    )  # fmt: skip
    return int(sink.getvalue().size)


def as_rows(values: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in values]


def plain(maps: Arrays) -> Cells:
    return {name: as_rows(values) for name, values in maps.items()}


def from_plain(cells: Cells, like: Arrays) -> dict[str, np.ndarray]:
    return {name: np.frombuffer(b"".join(cells[name]), like[name].dtype).reshape(like[name].shape) for name in like}


def split(values: np.ndarray) -> np.ndarray:
    """Byte planes: of every row all low bytes, then all high bytes."""
    return values.reshape(len(values), -1, 1).view(np.uint8).swapaxes(1, 2)


def join(cells: list[bytes], like: np.ndarray) -> np.ndarray:
    planes = np.frombuffer(b"".join(cells), np.uint8).reshape(len(cells), like.itemsize, -1)
    return np.ascontiguousarray(planes.swapaxes(1, 2)).view(like.dtype).reshape(like.shape)


def planes(maps: Arrays) -> Cells:
    """Planes of the floats; ids stay, because zstd finds repeated pairs of classes in them."""
    return {name: as_rows(values if name == "ids" else split(values)) for name, values in maps.items()}


def from_planes(cells: Cells, like: Arrays) -> dict[str, np.ndarray]:
    floats = {name: join(cells[name], like[name]) for name in ("scores", "residual")}
    return {**from_plain(cells, {"ids": like["ids"]}), **floats}


def steps(maps: Arrays) -> Cells:
    """Planes, and of the scores (as integers, falling along k) the first and then what each is below the last."""
    whole = maps["scores"].view(np.uint16)
    fallen = np.concatenate([whole[..., :1], whole[..., :-1] - whole[..., 1:]], axis=-1)
    return planes({**maps, "scores": fallen})


def from_steps(cells: Cells, like: Arrays) -> dict[str, np.ndarray]:
    arrays = from_planes(cells, like)
    fallen = arrays["scores"].view(np.uint16)
    fallen[..., 1:] *= np.uint16(65535)
    return {**arrays, "scores": fallen.cumsum(axis=-1, dtype=np.uint16).view(np.float16)}


def palette(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes of one map, most frequent first, and for every entry its place among them."""
    classes, places, counts = np.unique(ids, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return classes[order], rank[places].reshape(ids.shape)


def with_palettes(encode: Callable[[Arrays], Cells]) -> Callable[[Arrays], Cells]:
    def encoded(maps: Arrays) -> Cells:
        pairs = [palette(ids) for ids in maps["ids"]]
        codes = np.stack([places for _, places in pairs]).astype("<u2")
        cells = dict(encode(maps))
        return {**cells, "ids": as_rows(split(codes)), "palette": [classes.tobytes() for classes, _ in pairs]}

    return encoded


def from_palettes(
    decode: Callable[[Cells, Arrays], dict[str, np.ndarray]],
) -> Callable[[Cells, Arrays], dict[str, np.ndarray]]:
    def decoded(cells: Cells, like: Arrays) -> dict[str, np.ndarray]:
        codes = join(cells["ids"], np.empty(like["ids"].shape, "<u2"))
        classes = [np.frombuffer(row, like["ids"].dtype) for row in cells["palette"]]
        ids = np.stack([row[places] for row, places in zip(classes, codes, strict=True)])
        return {**decode({**cells, "ids": as_rows(codes)}, like), "ids": ids}

    return decoded


LAYOUTS = {
    "plain": Layout(plain, from_plain),
    "byte planes": Layout(planes, from_planes),
    "byte planes, steps along k (in use)": Layout(steps, from_steps),
    "palette and byte planes": Layout(with_palettes(planes), from_palettes(from_planes)),
    "palette, byte planes and steps": Layout(with_palettes(steps), from_palettes(from_steps)),
}
