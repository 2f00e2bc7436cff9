"""Naming: the keys of rows that have none of their own: by a column, else by the digest of what they hold."""

from collections import Counter
from collections.abc import Mapping

from ..digests import sample_digest
from ..errors import BadShard
from ..reasons import Reason
from .keys import BAD_KEY, decode_key, is_good_key
from .limits import KEY_OVERHEAD_BYTES, MAX_KEYS_BYTES, MAX_NAME_BYTES
from .shard import Sample, Value


class Namer:
    """Gives every row of one shard its key; remembers all of them, within bounds."""

    def __init__(self, where: str = "") -> None:
        self._where = where
        """Where keys come from, for messages: `column 'id'`."""
        self._seen: Counter[str] = Counter()
        self._size = 0

    def by_content(self, row: int, fields: Mapping[str, Value], content: bytes) -> Sample:
        """The digest of the content, and how often it came before."""
        digest = sample_digest(content).hex()
        self._seen[digest] += 1
        self._remember(digest)
        return Sample(f"{digest}-{self._seen[digest] - 1}", row, fields)

    def by_value(self, row: int, fields: Mapping[str, Value], value: Value) -> Sample:
        """Raises BadShard(DUPLICATE_KEYS) where two rows carry one key."""
        if isinstance(value, bytes):
            key, good = decode_key(value)
        else:
            key, good = (f"null-{row}", False) if value is None else (str(value), True)
        if self._seen[key]:
            raise BadShard(Reason.DUPLICATE_KEYS, f"two rows have the key {key!r} in {self._where}")
        if len(key) > MAX_NAME_BYTES:
            raise BadShard(Reason.UNSUPPORTED_SHARD, f"row {row} has a key of {len(key)} characters")
        self._seen[key] = 1
        self._remember(key)
        return Sample(key, row, fields if good and is_good_key(key) else {**fields, BAD_KEY: True})

    def _remember(self, key: str) -> None:
        # Rows that repeat a key count too: a few bytes can claim more of them than anybody can read.
        self._size += len(key) + KEY_OVERHEAD_BYTES
        if self._size > MAX_KEYS_BYTES:
            raise BadShard(Reason.UNSUPPORTED_SHARD, f"more than {len(self._seen) - 1} rows; write smaller shards")
