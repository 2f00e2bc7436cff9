"""Label map bytes: one real network's maps in our file, in what others use, and in layouts that might do better.

Maps are 15 x 15 cells of 5 classes: EfficientNet-lite0 at 480 px over crops of real photographs, neighbours from
different photographs. Every format holds ids, scores, residual, height and width, exactly; Parquet files hold key and
digest of every row beside them and count whole, as do the folders of single files (without what a file system or a tar
adds to each). The layouts are timed and counted by their columns alone.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from layouts import LAYOUTS, Layout, packed_bytes
from measure import best_of_each, report, talk
from photos import variants

from relabel.digests import sample_digest
from relabel.labelers.images import resize_square
from relabel.labelers.label_map import LabelMapLabeler, LabelMapParameters
from relabel.labelers.lock import Lock
from relabel.labels.contract import LabelContract
from relabel.labels.label_map import decode_column
from relabel.labels.shard_file import decode_label_shard, encode_label_shard, label_schema, label_table

Arrays = dict[str, np.ndarray]
ROWS = 256
TARGET_BYTES, NEXT_TARGET_BYTES, TARGET_OF_NPZ = 3_600, 3_000, 0.9


def main() -> None:
    contract, columns = real_maps(ROWS)
    maps = {name.removeprefix("label_map_"): values for name, values in columns.items()}
    report_formats(contract, columns, maps)
    report_layouts({name: maps[name] for name in ("ids", "scores", "residual")})


def real_maps(count: int) -> tuple[LabelContract, Arrays]:
    """The label columns of `count` crops, as the labeler gives them."""
    labeler = LabelMapLabeler(LabelMapParameters(model="efficientnet-lite0", input_size=480, top_k=5))
    labeler.facts = Lock(None).facts(labeler)
    labeler.threads = 2
    labeler.load("cpu")
    crops = [np.asarray(crop) for crop in variants(count)]
    heights, widths = np.array([crop.shape[:2] for crop in crops], np.int32).T
    images = np.stack([resize_square(np.ascontiguousarray(crop), 480, "bilinear") for crop in crops])
    labels = labeler({"image": images, "height": heights, "width": widths})
    talk(f"{count} maps made")
    return labeler.writes(), {name: np.asarray(values) for name, values in labels.items()}


def report_formats(contract: LabelContract, columns: Arrays, maps: Arrays) -> None:
    table = shard_table(contract, columns)
    encoders: Mapping[str, Callable[[], list[bytes]]] = {
        "npz, compressed": lambda: [npz(row) for row in rows_of(maps)],
        "torch .pt": lambda: [pt(row) for row in rows_of(maps)],
        "FixedShapeTensor Parquet, zstd": lambda: [tensor_parquet(table, maps)],
        "label shard": lambda: [encode_label_shard(table)],
    }
    decoders: Mapping[str, Callable[[bytes], object]] = {
        "npz, compressed": read_npz,
        "torch .pt": lambda data: torch.load(io.BytesIO(data)),
        "FixedShapeTensor Parquet, zstd": read_tensors,
        "label shard": lambda data: decode_column(contract, decode_label_shard(data)),
    }
    files = {name: encode() for name, encode in encoders.items()}
    readers = {name: lambda name=name: [decoders[name](data) for data in files[name]] for name in files}
    writing, reading = best_of_each(encoders, 5), best_of_each(readers, 5)
    sizes = {name: sum(map(len, parts)) / ROWS for name, parts in files.items()}
    for name, size in sizes.items():
        report_size(name, size, sizes["npz, compressed"])
        report(f"{name}: write", writing[name] / ROWS * 1e6, "us/sample")
        report(f"{name}: read", reading[name] / ROWS * 1e6, "us/sample")


def report_size(name: str, size: float, npz_size: float) -> None:
    baseline, ratio = f"npz {npz_size:.0f} B", f"{size / npz_size:.2f}"
    if name == "label shard":
        target = f"<= {TARGET_BYTES} B and {TARGET_OF_NPZ:g} of npz, then <= {NEXT_TARGET_BYTES} B"
        met = size <= TARGET_BYTES and size <= TARGET_OF_NPZ * npz_size
        report(f"{name}: size", size, "B/sample", baseline, ratio, target, met)
    else:
        report(f"{name}: size", size, "B/sample", baseline, ratio)


def report_layouts(maps: Arrays) -> None:
    plain = packed_bytes(LAYOUTS["plain"].encode(maps))
    for name, layout in LAYOUTS.items():
        size, cpu = measure_layout(layout, maps)
        title = f"columns alone, {name}"
        report(f"{title}: size", size / ROWS, "B/sample", f"plain {plain / ROWS:.0f} B", f"{size / plain:.2f}")
        report(f"{title}: arrange", cpu["arrange"] / ROWS * 1e6, "us/sample")
        report(f"{title}: restore", cpu["restore"] / ROWS * 1e6, "us/sample")


def measure_layout(layout: Layout, maps: Arrays) -> tuple[int, dict[str, float]]:
    """Bytes of the file, and CPU seconds; what comes back is what went in."""
    encoded = layout.encode(maps)
    decoded = layout.decode(encoded, maps)
    assert all(np.array_equal(decoded[field], maps[field]) for field in maps)
    calls = {"arrange": lambda: layout.encode(maps), "restore": lambda: layout.decode(encoded, maps)}
    return packed_bytes(encoded), best_of_each(calls, 5)


def shard_table(contract: LabelContract, columns: Arrays) -> pa.Table:
    keys = [f"{row:07d}" for row in range(ROWS)]
    digests = [sample_digest(key.encode()) for key in keys]
    schema = label_schema([contract], {contract.name: "f" * 64})
    return label_table(schema, keys, digests, ["ok"] * ROWS, [None] * ROWS, columns)


def rows_of(maps: Arrays) -> list[Arrays]:
    return [{name: values[row] for name, values in maps.items()} for row in range(ROWS)]


def npz(row: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **row)
    return buffer.getvalue()


def read_npz(data: bytes) -> Arrays:
    with np.load(io.BytesIO(data)) as held:
        return {name: held[name] for name in held.files}


def pt(row: Arrays) -> bytes:
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(np.array(values)) for name, values in row.items()}, buffer)
    return buffer.getvalue()


def tensor_parquet(table: pa.Table, maps: Arrays) -> bytes:
    """As a user of pyarrow would write it: tensor columns, zstd, all else by default."""
    columns = {name: table[name] for name in ("key", "sample_digest", "status")}
    for name, values in maps.items():
        columns[name] = pa.array(values) if values.ndim == 1 else pa.FixedShapeTensorArray.from_numpy_ndarray(values)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd", row_group_size=ROWS)
    return bytes(sink.getvalue())


def read_tensors(data: bytes) -> Arrays:
    table = pq.read_table(pa.BufferReader(data))
    return {name: table[name].combine_chunks().to_numpy_ndarray() for name in ("ids", "scores", "residual")}


if __name__ == "__main__":
    main()
