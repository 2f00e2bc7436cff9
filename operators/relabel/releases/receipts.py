"""Receipts: the durable records that one label shard is finished.

For one meaning (fingerprint), one shard's bytes (token) and one generation the first receipt wins, whoever writes it.
A generation rises only where a shard is done again: replay, repair, or data found gone.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from ..digests import Json, seal, sha256, unseal
from ..errors import ObjectMissing, StorageError, StoreCorrupt
from ..storage.objects import ObjectStore, settle
from .records import decode_records, encode_records, from_json, to_json
from .stored import Stored, absences, in_threads

NAME = re.compile(r"(?P<token>[0-9a-f]{32})-g(?P<generation>\d{4,})\.json")
FOLD = re.compile(r"fold-(?P<sha256>[0-9a-f]{64})\.parquet")
MAX_GENERATIONS = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one source shard under one fingerprint."""

    shard: str
    """Its name in the source."""
    size: int
    """Of the source shard, in bytes."""
    etag: str
    token: str
    """`Shard.token`: digest of name, size and ETag."""
    content_sha256: str
    """Of the source shard's bytes; "" where they could not be read to their end."""
    fingerprint: str
    """Of the run: all columns' fingerprints and the selection."""
    generation: int
    status: str
    """ok | dead (no data: the shard is a dead letter)."""
    reason: str
    """A reason code where dead, else ""."""
    detail: str
    """For a person, where dead."""
    rows: int
    """rows = ok + dead + filtered."""
    ok: int
    dead: int
    filtered: int
    reasons: Mapping[str, int]
    """Reason code -> rows."""
    keys_sha256: str
    """See `keys_digest`; "" where dead."""
    data: Stored | None
    dead_letters: Stored | None
    numerics: Mapping[str, Json]
    """How it was computed."""
    run_id: str
    attempt: str
    """uuid hex of the attempt that wrote it."""
    summary: str = ""
    """Of its label shard (`labels.summary`); "" where its labels have none, or an older relabel wrote it."""
    usage: str = ""
    """What work on it took: JSON, stage -> wall and CPU seconds. Decides nothing; "" where it is older."""

    def objects(self) -> list[Stored]:
        """What must lie in the store for this receipt to be worth anything."""
        return [each for each in (self.data, self.dead_letters) if each is not None]


@dataclasses.dataclass(frozen=True)
class Finished:
    """What earlier runs finished under one fingerprint."""

    receipts: Mapping[str, Receipt]
    """Shard token -> its newest receipt."""
    damaged: Sequence[str]
    """Receipts that cannot be read, and why; their shards count as not finished, their generations as taken."""
    generations: Mapping[str, int]
    """First 32 digits of a token -> newest generation taken, where `receipts` does not say it."""
    num_loose: int
    """Receipts that are in no fold yet; each costs a request at the next load."""

    def next_generation(self, token: str) -> int:
        """The generation under which a shard that is to be done now is recorded."""
        receipt = self.receipts.get(token)
        return max(receipt.generation if receipt else -1, self.generations.get(token[:32], -1)) + 1


def keys_digest(keys: Iterable[str]) -> str:
    """sha256 of the newline-joined keys, in order."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


class Receipts:
    """All receipts of one fingerprint in a store; any number of processes may write at once."""

    def __init__(self, store: ObjectStore, fingerprint: str) -> None:
        self.store, self.fingerprint = store, fingerprint
        self.folder = f"receipts/{fingerprint[:16]}"

    def path(self, token: str, generation: int) -> str:
        return f"{self.folder}/{token[:32]}-g{generation:04d}.json"

    def load(self) -> Finished:
        """The newest receipt of every shard; reads the folds, then only what is in none of them."""
        folds: list[str] = []
        taken: dict[str, int] = {}
        for path in self.store.names(self.folder):
            name = path.rpartition("/")[2]
            if (found := NAME.fullmatch(name)) is not None:
                taken[found["token"]] = max(taken.get(found["token"], -1), int(found["generation"]))
            elif FOLD.fullmatch(name):
                folds.append(name)
        damaged: list[str] = []
        newest = self._read_folds(folds, damaged)
        for token, receipt in list(newest.items()):
            if taken.get(token[:32], -1) > receipt.generation:
                del newest[token]
            else:
                taken.pop(token[:32], None)
        read = in_threads(lambda name: self._read(name, taken[name], damaged), list(taken))
        newest.update({receipt.token: receipt for receipt in read if receipt is not None})
        unreadable = {name: taken[name] for name, receipt in zip(taken, read, strict=True) if receipt is None}
        return Finished(newest, sorted(damaged), unreadable, len(taken))

    def find(self, token: str, generation: int) -> Receipt | None:
        """One receipt, where it is there and whole."""
        return self._read(token, generation, [])

    def finish(self, receipt: Receipt) -> Receipt:
        """Record a finished shard; returns the receipt that counts, which may be another attempt's.

        A damaged receipt in its place is passed over: the generation rises by one.
        """
        assert receipt.fingerprint == self.fingerprint
        for generation in range(receipt.generation, receipt.generation + MAX_GENERATIONS):
            mine = dataclasses.replace(receipt, generation=generation)
            path = self.path(receipt.token, generation)
            won = settle(self.store, path, seal(to_json(mine)))
            try:
                return from_json(Receipt, unseal(won, self.store.full_url(path)), path)
            except StoreCorrupt:
                continue
        raise StorageError(
            f"{self.store.full_url(self.folder)}: {MAX_GENERATIONS} damaged receipts of {receipt.shard}."
        )

    def fold(self, receipts: Iterable[Receipt]) -> str:
        """Write many receipts as one object named by its content; returns its path. The single ones stay."""
        data = encode_records(Receipt, sorted(receipts, key=lambda receipt: receipt.token))
        path = self._fold_path(data)
        self.store.put(path, data)
        return path

    def data_present(self, finished: Finished) -> set[str]:
        """Tokens of the shards whose objects all lie in the store at the size that was written."""
        objects = [each for receipt in finished.receipts.values() for each in receipt.objects()]
        gone = absences(self.store, objects)
        if not gone:
            return {*finished.receipts}
        return {
            token
            for token, receipt in finished.receipts.items()
            if not any(each.path in gone for each in receipt.objects())
        }

    def _fold_path(self, data: bytes) -> str:
        return f"{self.folder}/fold-{sha256(data)}.parquet"

    def _read_folds(self, names: Sequence[str], damaged: list[str]) -> dict[str, Receipt]:
        newest: dict[str, Receipt] = {}
        contents = in_threads(lambda name: self._read_fold(name, damaged), names)
        # Decoded in this thread alone: others would only wait for each other, and keep memory of their own.
        for name, data in zip(names, contents, strict=True):
            for receipt in self._decode_fold(name, data):
                if receipt.token not in newest or newest[receipt.token].generation < receipt.generation:
                    newest[receipt.token] = receipt
        return newest

    def read(self, token: str, generation: int) -> Receipt:
        """Raises StoreCorrupt or ObjectMissing."""
        path = self.path(token, generation)
        return from_json(Receipt, unseal(self.store.get(path), self.store.full_url(path)), path)

    def try_fold(self, name: str, damaged: list[str]) -> list[Receipt]:
        """What a fold holds; nothing where it is damaged, which is added to `damaged`: its receipts lie singly, too."""
        return self._decode_fold(name, self._read_fold(name, damaged))

    def _decode_fold(self, name: str, data: bytes) -> list[Receipt]:
        return decode_records(Receipt, data, self.store.full_url(f"{self.folder}/{name}")) if data else []

    def _read_fold(self, name: str, damaged: list[str]) -> bytes:
        """Empty where it is gone or damaged."""
        path = f"{self.folder}/{name}"
        try:
            data = self.store.get(path)
        except ObjectMissing as error:
            damaged.append(str(error))
            return b""
        if self._fold_path(data) != path:
            damaged.append(f"{self.store.full_url(path)} does not have the sha256 in its name; it was damaged.")
            return b""
        return data

    def _read(self, token: str, generation: int, damaged: list[str]) -> Receipt | None:
        try:
            return self.read(token, generation)
        except (StoreCorrupt, ObjectMissing) as error:
            damaged.append(str(error))
            return None
