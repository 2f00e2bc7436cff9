"""Failures: what the exceptions of file systems and S3 clients mean.

Backends report one event in many shapes (an errno, an HTTP status, a service's error code, a class of their own);
here they become the few errors of `errors.py`, with the URL in the message.
"""

import contextlib
import errno
import sys
from collections.abc import Iterator

from ..errors import AccessDenied, ObjectExists, ObjectMissing, StorageError, StorageFull

EXISTS_CODES = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
DENIED_CODES = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403", "401"}
)
TRANSIENT_CODES = frozenset(
    {
        "SlowDown",
        "InternalError",
        "ServiceUnavailable",
        "RequestTimeout",
        "OperationAborted",
        "500",
        "502",
        "503",
        "504",
    }
)
TRANSIENT_ERRNOS = frozenset({errno.EBUSY, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE})
TRANSIENT_CLASSES = frozenset(
    {"ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "HTTPClientError", "ResponseStreamingError",
     "ServerDisconnectedError", "ClientPayloadError"}
)  # fmt: skip
DENIED_CLASSES = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"})
FULL_CODES = frozenset(
    {"507", "InsufficientStorage", "QuotaExceeded", "QuotaExceededException", "XMinioAdminBucketQuotaExceeded",
     "XMinioStorageFull"}
)  # fmt: skip
"""What S3 servers and gateways say of a full disk or a spent quota: none of these goes away by asking again."""
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
# Client libraries raise their own hierarchies; they are known only once somebody has imported them.
CLIENT_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
)


def backend_errors() -> tuple[type[Exception], ...]:
    """Every class that a file system of this process may raise for a failed request."""
    # Another thread may be in the middle of importing one of them.
    found = [getattr(sys.modules.get(module), name, None) for module, name in CLIENT_ERRORS]
    return (OSError, *(each for each in found if each is not None))


def error_code(error: BaseException | None) -> str:
    """The service's error code ("PreconditionFailed", "404"), looked for along the causes; "" where there is none."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def is_transient(error: BaseException | None) -> bool:
    """Whether the same request may succeed a moment later."""
    code = error_code(error)
    if code:
        return code in TRANSIENT_CODES
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    return type(error).__name__ in TRANSIENT_CLASSES or getattr(error, "errno", None) in TRANSIENT_ERRNOS


def meaning(error: Exception, url: str) -> StorageError:
    """The error of ours that says what `error` means for the object at `url`."""
    code, number = error_code(error), getattr(error, "errno", None)
    if code == "NoSuchBucket":
        return StorageError(f"{url}: there is no such bucket. Create it, or correct the URL.")
    if isinstance(error, FileExistsError) or code in EXISTS_CODES:
        return ObjectExists(f"{url} exists already.")
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return ObjectMissing(f"{url}: no object of that name.")
    if type(error).__name__ in DENIED_CLASSES:
        return AccessDenied(
            f"{url}: no usable credentials ({error}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or "
            'AWS_PROFILE), or name variables in the storage options (key: "${NAME}"), or give anon: true there.'
        )
    if isinstance(error, PermissionError) or code in DENIED_CODES or number == errno.EROFS:
        return AccessDenied(f"{url}: access denied ({error}). Check the credentials or permissions of this process.")
    if number in FULL_ERRNOS or code in FULL_CODES:
        return StorageFull(f"{url}: the disk or quota is full ({error}). Free some space and run again.")
    return StorageError(f"{url}: {type(error).__name__}: {error}")


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Inside, a backend's errors about `url` leave as StorageError or one of its kinds, the original as their cause."""
    try:
        yield
    except backend_errors() as error:
        raise meaning(error, url) from error
