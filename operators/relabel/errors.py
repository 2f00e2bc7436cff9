"""Errors: everything that relabel raises on purpose, drawn as a tree.

RelabelError                     exit code 1
├── UsageError                   2  a recipe, option or argument is wrong
│   └── UnknownName                 a field, operator, key or release that does not exist
├── Refused                      3  a check said no: contract, surgery, gate, verify, doctor
│   ├── StoreCorrupt                stored bytes are not the bytes that were written
│   └── Recalled                    the release was recalled, and its reader wants to fail then
├── TooManyDeadLetters           4  the error budget is spent
├── OverBudget                   4  the money or the device time that a run may cost is spent
├── StoreConflict                5  another run got there first
├── AwaitsApproval               6  what was made passed the gate and waits for people
├── StorageError                 1  the object store did not answer as it should
│   ├── ObjectMissing
│   ├── ObjectExists
│   └── AccessDenied
├── EngineUnreachable            1  a service that answers requests stays away
├── DeviceFailed                 1  the accelerator or engine failed; its process is not to be used again
│   └── DeviceFull                  the accelerator or the machine is out of memory
├── BadShard                        a source shard that cannot be read to its end: a shard dead letter
└── BadSample                       a sample that cannot be labelled: a dead letter

RecallWarning                       the same as Recalled, where its reader wants to be warned
"""

import difflib
from collections.abc import Iterable

from .redaction import redacted

DETAIL_CHARACTERS = 500
"""Of why something is a dead letter, whoever says so: a service or an engine may quote a whole prompt."""


class RelabelError(Exception):
    """What relabel raises on purpose; the message says what was expected, what was got and what to do."""

    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(redacted(each) if isinstance(each, str) else each for each in args))


class UsageError(RelabelError, ValueError):
    """A recipe, option or argument is wrong."""

    exit_code = 2


class UnknownName(UsageError, LookupError):
    """A name that does not exist; the message offers the nearest that does."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        super().__init__(describe_unknown(kind, name, self.known) + (f" {hint}" if hint else ""))

    def __reduce__(self) -> tuple[type["UnknownName"], tuple[str, str, list[str]]]:
        return UnknownName, (self.kind, self.name, self.known)


class Refused(RelabelError):
    """A check said no; nothing was published."""

    exit_code = 3


class StoreCorrupt(Refused):
    """Stored bytes are not the bytes that were written; the message names the object."""


class Recalled(Refused):
    """The release that is open was recalled, or retired; the message says why."""


class RecallWarning(UserWarning):
    """The release that is open was recalled, or retired; the message says why."""


class TooManyDeadLetters(RelabelError):
    """More samples or shards failed than the recipe allows."""

    exit_code = 4


class OverBudget(RelabelError):
    """A run has cost what it may cost; what is finished is kept."""

    exit_code = 4


class AwaitsApproval(RelabelError):
    """What was made passed the gate and is published once people approve; the message says who and how."""

    exit_code = 6


class StoreConflict(RelabelError):
    """Another run owns the store or committed first."""

    exit_code = 5


class StorageError(RelabelError):
    """The object store or file system did not answer as it should; trying again may help."""


class StorageFull(StorageError):
    """A disk or a quota has no room left."""


class ObjectMissing(StorageError, LookupError):
    """No object of that name."""


class ObjectExists(StorageError):
    """A create-once found an object of that name; whose it is must be read back."""


class AccessDenied(StorageError):
    """No credentials, or credentials that may not do this."""


class EngineUnreachable(RelabelError):
    """A service that answers requests stays away; no sample is to blame, and running again goes on."""


class DeviceFailed(RelabelError):
    """The accelerator or an engine on it failed; labels computed after it cannot be trusted to this process."""


class DeviceFull(DeviceFailed):
    """The accelerator or the machine is out of memory; less at a time may fit."""


class DeadLetter(RelabelError):
    """Something that cannot be labelled: a reason code (see `reasons`) and a detail for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = str(reason)
        self.detail = redacted(detail)[:DETAIL_CHARACTERS]  # in this order: half a secret is not found
        super().__init__(f"{self.reason}: {self.detail}")

    def __reduce__(self) -> tuple[type["DeadLetter"], tuple[str, str]]:
        return type(self), (self.reason, self.detail)


class BadShard(DeadLetter):
    """A source shard that cannot be read to its end; none of its rows is published."""

    def of(self, path: str) -> "BadShard":
        """The same, naming the file where it does not yet."""
        return self if path in self.detail else BadShard(self.reason, f"{path}: {self.detail}")


class BadSample(DeadLetter):
    """One sample that cannot be labelled; the rest of its shard can."""


def describe_unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """`unknown step 'lable_map'; did you mean 'label_map'?`, or the list of what is known."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"unknown {kind} {name!r}; did you mean {near[0]!r}?"
    return f"unknown {kind} {name!r}; known are: {', '.join(names) or 'none'}."
