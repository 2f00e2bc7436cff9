"""Reasons: why a row of a label shard, or a whole shard, carries no label. Codes are stable; README lists them."""

from enum import StrEnum


class Status(StrEnum):
    """Every row has one: rows in = ok + dead + filtered."""

    OK = "ok"
    DEAD = "dead"
    FILTERED = "filtered"


class Reason(StrEnum):
    """The codes of dead letters and filtered rows."""

    WHERE = "where"
    """Filtered: the recipe's `where` or `share` says no."""
    WITHDRAWN = "withdrawn"
    """Filtered: the sample or its shard was withdrawn (see `releases.withdrawals`)."""
    NO_LABEL = "no_label"
    """Filtered: the release that is the source has no label for the sample."""
    MISSING_FIELD = "missing_field"
    """The sample lacks the field that the labeler needs."""
    EMPTY_FIELD = "empty_field"
    """The field is there and holds zero bytes."""
    NOT_AN_IMAGE = "not_an_image"
    """No decoder knows these bytes."""
    CORRUPT_IMAGE = "corrupt_image"
    """A known image format, cut off or damaged."""
    IMAGE_TOO_LARGE = "image_too_large"
    """More pixels than the limit."""
    BAD_METADATA = "bad_metadata"
    """A metadata field that `where` reads is not UTF-8 or not JSON."""
    BAD_KEY = "bad_key"
    """The key is not UTF-8 or holds control characters."""
    OPERATOR_ERROR = "operator_error"
    """The operator raised on this sample alone."""
    PROCESS_DIED = "process_died"
    """Alone in its process, this sample ended it, three times."""
    TIMED_OUT = "timed_out"
    """Alone in its call, this sample took longer than the limit, three times."""
    DEVICE_FAILED = "device_failed"
    """Alone in its call, this sample broke the accelerator, three times."""
    ENGINE_ERROR = "engine_error"
    """A language model or its service refused this request, or failed it every time while others were answered."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """The prompt leaves the model no room to answer."""
    UNUSABLE_TEXT = "unusable_text"
    """Every answer was flagged by a guard that rejects (empty, refusal, repetition, ...); the detail names it."""
    BAD_OUTPUT = "bad_output"
    """The operator's output breaks its contract (not finite, wrong shape)."""

    TRUNCATED_SHARD = "truncated_shard"
    """Shard: ends in mid-member, or without its end-of-archive blocks."""
    CORRUPT_SHARD = "corrupt_shard"
    """Shard: bad header checksum, broken compression, not the format that was declared."""
    DUPLICATE_KEYS = "duplicate_keys"
    """Shard: a key occurs twice, or its members are not adjacent."""
    CHANGED_SHARD = "changed_shard"
    """Shard: its bytes changed while it was read."""
    UNSUPPORTED_SHARD = "unsupported_shard"
    """Shard: well-formed but with what relabel does not read (sparse members, unknown columns)."""


FILTERED_REASONS = (Reason.WHERE, Reason.WITHDRAWN, Reason.NO_LABEL)
DEAD_REASONS = tuple(str(reason) for reason in Reason if reason not in FILTERED_REASONS)
"""Of samples and shards that could not be labelled."""
