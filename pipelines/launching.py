"""Launching: what a Kubernetes CronJob runs: it creates tonight's RayJob from a suspended one, and waits for its end.

It may create and read RayJobs, nothing else. A pod that starts again finds tonight's RayJob by its name and goes on
waiting. Only an end with exit code 1 (a node, the network, an interruption) is tried again; refusals are final.
"""

import dataclasses
import datetime as dt
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
import zoneinfo
from collections.abc import Callable
from pathlib import Path

from relabel.digests import Json
from relabel.errors import AccessDenied, RelabelError, StorageError, UsageError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
POLL_SECONDS = 10.0
REQUEST_SECONDS = 30.0
MIN_SECONDS = 60
"""A RayJob is given at least so long."""
FAILED = re.compile(r"failed with exit code (-?\d+)")
"""As Ray's job server words it; KubeRay passes it on."""
EXIT_CODES = range(1, 10)
"""Of the program; whatever else ends a job is a 1."""
ENDS = {"Complete", "Failed", "ValidationFailed"}
SCHEDULED = re.compile(r"-(2[2-9]\d{6}|[3-9]\d{7})$")
"""The minute since 1970 at which a CronJob was due, as the names of its Jobs end; `by-hand-20261130` ends in none."""

Say = Callable[[str], None]


class ServerAway(StorageError):
    """The API server does not answer, or not yet."""


class Late(RelabelError):
    """The RayJob has not ended in time."""


@dataclasses.dataclass(frozen=True)
class Api:
    """The Kubernetes API server, for the RayJobs of one namespace."""

    server: str
    namespace: str
    account: Path = ACCOUNT

    @classmethod
    def of_pod(cls, server: str | None, account: Path = ACCOUNT) -> "Api":
        """That of the cluster whose pod this is. Raises UsageError anywhere else."""
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if (server is None and host is None) or not (account / "namespace").is_file():
            raise UsageError(
                "`launch` runs in a pod of Kubernetes with a service account (`relabel manifest` prints the CronJob "
                "around it); here there is none."
            )
        name = f"[{host}]" if host and ":" in host else host
        return cls(server or f"https://{name}:{port}", (account / "namespace").read_text().strip(), account)

    def get(self, name: str) -> Json | None:
        """None where there is no such RayJob."""
        status, found = self._ask("GET", name)
        return None if status == 404 else self._good(status, found, f"get rayjobs/{name}")

    def create(self, rayjob: Json) -> Json | None:
        """As the server made it; None where the name is taken."""
        status, found = self._ask("POST", "", rayjob)
        return None if status == 409 else self._good(status, found, f"create rayjobs/{rayjob['metadata']['name']}")

    def _good(self, status: int, found: Json, what: str) -> Json:
        said = found.get("message") or found.get("reason") or "" if isinstance(found, dict) else ""
        if status in (200, 201):
            return found
        if status in (401, 403):
            raise AccessDenied(
                f"the API server refuses to {what} in the namespace {self.namespace} ({status}: {said}). The Role "
                "`relabel-launch` allows get and create of rayjobs: is it bound to this pod's service account?"
            )
        if status == 429 or status >= 500:
            raise ServerAway(f"the API server cannot {what} now ({status}: {said}).")
        raise RelabelError(f"the API server does not {what} ({status}: {said}). Is KubeRay 1.7 or newer installed?")

    def _ask(self, verb: str, name: str, body: Json = None) -> tuple[int, Json]:
        """The status and the JSON of the answer. Raises ServerAway where there is none."""
        url = f"{self.server}/apis/ray.io/v1/namespaces/{self.namespace}/rayjobs" + (f"/{name}" if name else "")
        token = (self.account / "token").read_text().strip()  # anew each time: it is exchanged within the hour
        request = urllib.request.Request(  # noqa: S310  the server's address, not a user's
            url,
            method=verb,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        authority = self.account / "ca.crt"
        context = ssl.create_default_context(cafile=str(authority)) if authority.is_file() else None
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_SECONDS, context=context) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, parsed(error.read())
        except (OSError, ValueError) as error:  # no connection, or an answer that is cut off
            raise ServerAway(f"the API server {self.server} does not answer ({error}).") from error


def parsed(text: bytes) -> Json:
    try:
        return json.loads(text)
    except ValueError:
        return {"message": text[:200].decode(errors="replace")}


@dataclasses.dataclass(frozen=True)
class Owner:
    """The Job of the CronJob, by which tonight's RayJob is named and with which it is deleted."""

    name: str
    uid: str


def due(owner: Owner | None, now: dt.datetime) -> dt.datetime:
    """When the CronJob was due, not when its pod came to start; `now` where no schedule made the Job."""
    minute = SCHEDULED.search(owner.name) if owner else None
    return dt.datetime.fromtimestamp(int(minute[1]) * 60, dt.UTC) if minute else now


def tonight(template: str, moment: dt.datetime, zone: str) -> str:
    """`relabel-maps-202611300200`."""
    return f"{template}-{moment.astimezone(zoneinfo.ZoneInfo(zone)):%Y%m%d%H%M}"


def dated(template: Json, name: str, owner: Owner | None, seconds: int, date: dt.date | None) -> Json:
    """The RayJob of that name: what the suspended one says, with so many seconds to end in, and the night's date."""
    kept = {key: dict(template["metadata"].get(key) or {}) for key in ("labels", "annotations")}
    kept["annotations"].pop("kubectl.kubernetes.io/last-applied-configuration", None)
    metadata = {"name": name, **kept}
    if owner is not None:
        metadata["ownerReferences"] = [{"apiVersion": "batch/v1", "kind": "Job", "name": owner.name, "uid": owner.uid}]
    limit = min(seconds, template["spec"].get("activeDeadlineSeconds") or seconds)
    spec = {**template["spec"], "suspend": False, "activeDeadlineSeconds": max(limit, MIN_SECONDS)}
    if date is not None:
        spec["entrypoint"] = f"{spec['entrypoint']} --date {date}"
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}


class Launch:
    """One night's work."""

    def __init__(
        self, api: Api, say: Say, deadline: float, date: dt.date | None = None, poll: float = POLL_SECONDS
    ) -> None:
        """`deadline` in seconds from now. `date`: what every attempt is told, however late it starts; None: nothing."""
        self.api, self.say, self.date, self.poll = api, say, date, poll
        self.ends = time.monotonic() + deadline

    def run(self, template: str, name: str, owner: Owner | None, retries: int) -> int:
        """The exit code of the night's last RayJob. Raises RelabelError where there is none."""
        found = self.patiently(lambda: self.api.get(template))
        if found is None:
            raise UsageError(
                f"no RayJob {template} in the namespace {self.api.namespace} to copy: apply what `relabel manifest` "
                "prints."
            )
        for attempt in range(retries + 1):
            code = self.attempt(found, f"{name}-r{attempt}" if attempt else name, owner)
            if code != 1 or attempt == retries:
                return code
            self.say("exit code 1: what is finished is kept; a fresh cluster goes on")
        raise AssertionError

    def attempt(self, template: Json, name: str, owner: Owner | None) -> int:
        """Create the RayJob, or find it, and wait for its end."""
        rayjob = dated(template, name, owner, int(self.ends - time.monotonic()), self.date)
        created = self.patiently(lambda: self.api.create(rayjob))
        self.say(f"created the RayJob {name}" if created else f"the RayJob {name} is there already; waiting for it")
        self.say(f"its log: kubectl --namespace {self.api.namespace} logs --follow job/{name}")
        return self.wait(name)

    def wait(self, name: str) -> int:
        last = ""
        while True:
            found = self.patiently(lambda: self.api.get(name))
            if found is None:
                self.say(f"the RayJob {name} was deleted: that ends it")
                return 1
            status = found.get("status") or {}
            state = f"{status.get('jobDeploymentStatus') or 'New'} {status.get('jobStatus') or ''}".strip()
            if state != last:
                self.say(f"{name}: {state}")
            if status.get("jobDeploymentStatus") in ENDS:
                return self.result(name, status)
            last = state
            self.rest(f"the RayJob {name} is {state}. Its own deadline ends it; what is finished is kept.")

    def result(self, name: str, status: Json) -> int:
        """The exit code of the program, from what Ray says of it; 1 where it says none."""
        if status.get("jobStatus") == "SUCCEEDED":
            return 0
        message = str(status.get("message") or "")
        self.say(
            f"{name} ended: {status.get('reason') or status.get('jobStatus') or 'no reason given'}\n{message}".rstrip()
        )
        code = FAILED.search(message)
        return int(code[1]) if code and int(code[1]) in EXIT_CODES else 1

    def patiently(self, question: Callable[[], Json | None]) -> Json | None:
        """The answer, once the API server gives one."""
        said = False
        while True:
            try:
                return question()
            except ServerAway as error:
                if not said:
                    self.say(f"{error} Trying again until the deadline.")
                said = True
                self.rest(str(error))

    def rest(self, why: str) -> None:
        """Raises Late where there is no time left."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise Late(f"the deadline has passed: {why}")
        time.sleep(min(self.poll, left))
