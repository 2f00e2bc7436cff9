"""Profiles: which conditions of a request an S3 server honours, and which it only seems to."""

import dataclasses
import re
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

CONDITIONS = ("if-none-match", "if-match", "x-amz-copy-source-if-match", "x-amz-copy-source-if-none-match")
CONDITIONAL = frozenset({"put", "copy", "complete", "delete"})


@dataclasses.dataclass(frozen=True)
class Profile:
    """A kind of server."""

    name: str
    honours: frozenset[str] = CONDITIONAL
    """Kinds of requests (see `kind_of`) whose conditions decide; elsewhere they are ignored."""
    names_condition: bool = True
    """Its 412 says which condition failed."""
    quoted_etags: bool = True
    """It knows an ETag in quotes, as every client sends it; else each If-Match fails."""

    def __repr__(self) -> str:
        return self.name

    def ignored(self, kind: str, headers: Mapping[str, str]) -> list[str]:
        """The headers of a request that this server does not look at."""
        return [] if kind not in CONDITIONAL - self.honours else [name for name in headers if name in CONDITIONS]

    def refuses(self, headers: Mapping[str, str]) -> bool:
        return not self.quoted_etags and headers.get("if-match", "").startswith('"')

    def answer(self, status: int, body: bytes) -> bytes:
        """The body of an answer as this server would have written it."""
        if status != 412 or self.names_condition:
            return body
        return re.sub(rb"<Condition>.*?</Condition>", b"", body)


CORRECT = Profile("correct")
OLD_GATEWAY = Profile("old gateway", frozenset({"put"}), names_condition=False, quoted_etags=False)
"""As Ceph's gateway of 2023: a single PUT is conditional, nothing else is."""
UNCONDITIONAL = Profile("unconditional", frozenset())
"""Every write overwrites: several writers would lose each other's releases."""


def kind_of(method: str, target: str, headers: Mapping[str, str]) -> str:
    """Put | copy | part | start | complete | delete | get | head | list, from a request's first line and headers."""
    query = parse_qs(urlsplit(target).query, keep_blank_values=True)
    if method == "PUT":
        return "part" if "uploadId" in query else "copy" if "x-amz-copy-source" in headers else "put"
    if method == "POST":
        return "complete" if "uploadId" in query else "start" if "uploads" in query else "delete"
    if method == "GET":
        return "list" if "list-type" in query or "prefix" in query else "get"
    return method.lower()
