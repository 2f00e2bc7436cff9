"""Filesystems: from a URL and storage options to an fsspec file system.

No secret is ever written down: options that look like one must name an environment variable.
"""

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ..digests import Json, canonical_json
from ..errors import UsageError
from ..redaction import SECRET_NAME, carries_secret, remember

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
BACKENDS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}


def resolve(url: str, options: Mapping[str, Json] | None = None) -> tuple[Any, str]:
    """An fsspec file system and the path on it; safe to call anywhere: file systems are shared per process.

    `url` is a plain path, file:// or any fsspec URL. `options` are fsspec's (endpoint_url, profile, anon,
    client_kwargs ...); "${NAME}" stands for an environment variable and is the only form in which a secret is
    accepted. Without options S3 follows the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL ...).
    Raises UsageError for an unknown protocol, a literal secret or an unset variable.
    """
    expanded = expand(options or {})
    if is_local(url):
        return LocalFileSystem(), local_path(url)
    check_url(url)
    protocol = url.partition("://")[0]
    filesystem = connect(protocol, canonical_json(expanded), Options(expanded), environment(), os.getpid())
    return filesystem, str(filesystem._strip_protocol(url)).rstrip("/")


def is_local(url: str) -> bool:
    return "://" not in url or url.startswith(("file://", "local://"))


def local_path(url: str) -> str:
    """The absolute path that a plain path or a file:// URL means; `~` is the home folder."""
    try:
        return str(Path(url.partition("://")[2] if "://" in url else url).expanduser().resolve())
    except (ValueError, RuntimeError, OSError) as error:  # NUL; no such user; a circle of links
        raise UsageError(f"{url!r} is no path: {error}.") from error


def check_url(url: str) -> None:
    """Raises UsageError where a URL names no bucket or host, holds control characters, or carries a secret."""
    if not url.isprintable():
        raise UsageError(f"{url!r} holds characters that cannot be printed; no path or URL needs them.")
    if carries_secret(url):
        raise UsageError(
            f"{url} carries credentials, which would be written wherever the URL is. Give them by the environment, a "
            "profile or a role, or name variables in the storage options; for a presigned URL name the object itself."
        )
    if not is_local(url) and not urlsplit(url).netloc.strip("."):
        raise UsageError(f"{url!r} names no bucket: expected {url.partition('://')[0]}://BUCKET/PREFIX.")


def check_options(options: Mapping[str, Json], inside: str = "", secret: bool = False) -> None:
    """Raises UsageError where a secret stands literally; needs no variable to be set."""
    for name, value in options.items():
        check_value(value, f"{inside}{name}", secret or bool(SECRET_NAME.search(str(name))))


def check_value(value: Json, name: str, secret: bool) -> None:
    if isinstance(value, Mapping):
        return check_options(value, name + ".", secret)
    if isinstance(value, list | tuple):
        for item in value:
            check_value(item, name, secret)
        return None
    stands = secret and not (value is None or (isinstance(value, str) and REFERENCE.fullmatch(value)))
    if stands or (isinstance(value, str) and carries_secret(value)):
        variable = re.sub(r"\W", "_", name).upper()
        raise UsageError(
            f'storage option {name!r} looks like a secret and stands literally. Write {name}: "${{{variable}}}" and '
            "set that environment variable instead."
        )
    return None


def environment() -> tuple[tuple[str, str], ...]:
    """What clients take from the environment: a file system made under other values is another one."""
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))


class Options(dict[str, Json]):
    """Options that travel beside their own canonical bytes, by which `connect` remembers them."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 0


@functools.lru_cache(maxsize=32)
def connect(protocol: str, identity: bytes, options: Options, surroundings: tuple[Any, ...], pid: int) -> Any:
    """One file system for equal arguments; a forked process gets its own."""
    try:
        make = fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise UsageError(
            f"unknown protocol {protocol!r}: expected a local path, s3:// or another of fsspec's."
        ) from error
    except ImportError as error:
        package = BACKENDS.get(protocol, "its fsspec backend")
        raise UsageError(f"{protocol}:// needs {package}, which is not installed: pip install {package}.") from error
    # fsspec's own cache ignores the environment, and its listings would hide what other writers publish.
    return make(**{"use_listings_cache": False, **options}, skip_instance_cache=True)


def expand(options: Mapping[str, Json]) -> dict[str, Json]:
    """`options` with every "${NAME}" replaced by that environment variable.

    Raises UsageError where a secret stands literally or a variable is not set.
    """
    check_options(options)
    return expand_section(options)


def expand_section(options: Mapping[str, Json], inside: str = "", secret: bool = False) -> dict[str, Json]:
    return {
        name: expand_value(value, inside + name, secret or bool(SECRET_NAME.search(name)))
        for name, value in options.items()
    }


def expand_value(value: Json, name: str, secret: bool) -> Json:
    if isinstance(value, Mapping):
        return expand_section(value, name + ".", secret)
    if isinstance(value, list | tuple):
        return [expand_value(item, name, secret) for item in value]
    if not isinstance(value, str):
        return value
    expanded = REFERENCE.sub(lambda match: variable_value(match[1], name), value)
    if secret:
        remember(expanded)
    return expanded


def variable_value(variable: str, name: str) -> str:
    value = os.environ.get(variable)
    if value is None:
        raise UsageError(
            f"storage option {name!r} names the environment variable {variable}, which is not set. Set it."
        )
    return value
