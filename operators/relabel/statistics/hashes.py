"""Hashes: numbers that a sample's key gives, the same in every run, whatever shard, order or partition it comes in."""

import hashlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64, UInt64

HASH_BYTES = 8


def key_hashes(keys: Iterable[str], purpose: str, seed: int = 0) -> UInt64[np.ndarray, " rows"]:
    """blake2b of key, seed and purpose, as unsigned 64-bit numbers: two purposes choose independently."""
    salt = f"{purpose}\0{seed}\0".encode()
    found = b"".join(
        hashlib.blake2b(salt + str(key).encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
        for key in keys
    )
    return np.frombuffer(found, "<u8").astype(np.uint64)


def shares(hashes: UInt64[np.ndarray, " rows"]) -> Float64[np.ndarray, " rows"]:
    """Each as a number in [0, 1), evenly spread."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53
