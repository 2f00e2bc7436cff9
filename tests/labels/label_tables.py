"""Label tables: small label shards made of random logits, for the tests of labels."""

import numpy as np
import pyarrow as pa

from relabel.digests import sample_digest
from relabel.labels.contract import Classes, Geometry, LabelContract
from relabel.labels.label_map import encode, label_map_contract
from relabel.labels.shard_file import label_schema, label_table

GEOMETRY = Geometry(size=96, interpolation="bilinear", orientation="exif")


def contract_of(num_classes: int = 50, grid: tuple[int, int] = (3, 4), top_k: int = 5) -> LabelContract:
    classes = Classes(digest="c" * 64, count=num_classes)
    return label_map_contract("label_map", classes, grid, top_k, GEOMETRY)


def random_labels(contract: LabelContract, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Label columns of `rows` random maps that keep the contract."""
    assert contract.classes is not None
    assert contract.top_k is not None
    random = np.random.default_rng(seed)
    shape = (rows, contract.classes.count, *contract.column("residual").shape)
    maps = encode(random.normal(0, 4, shape).astype(np.float32), contract.top_k)
    sides = random.integers(1, 900, (2, rows), np.int32)
    return {f"label_map_{name}": values for name, values in maps.items()} | {
        "label_map_height": sides[0],
        "label_map_width": sides[1],
    }


def table_of(statuses: list[str], contract: LabelContract | None = None, seed: int = 0) -> pa.Table:
    """A label table with one row per status."""
    contract = contract or contract_of()
    keys = [f"photo/{row:04d}" for row in range(len(statuses))]
    reasons = [None if status == "ok" else "corrupt_image" for status in statuses]
    schema = label_schema([contract], {"label_map": "f" * 64})
    labels = random_labels(contract, statuses.count("ok"), seed)
    return label_table(schema, keys, [sample_digest(key.encode()) for key in keys], statuses, reasons, labels)
