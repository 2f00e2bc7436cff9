"""A real Ray head on loopback, with dashboard and job server, which wants a token and does not know this checkout."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from pathlib import Path

from relabel.testing.servers import free_ports

TOKEN = "0123456789abcdef0123456789abcdef"
READY_SECONDS = 120


class RayHead:
    """Starts, ends and starts again at the same address."""

    def __init__(self) -> None:
        names = [
            "port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port", "metrics-export-port",
            "dashboard-agent-grpc-port", "node-manager-port", "object-manager-port",
        ]  # fmt: skip
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.folder = Path(tempfile.mkdtemp(prefix="rh", dir="/tmp"))  # Ray's sockets need short paths
        self.address = f"http://127.0.0.1:{self.ports['dashboard-port']}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Of the head, and of who may submit to it."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {**kept, "PATH": path, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_TMPDIR": str(self.folder)}

    def start(self) -> None:
        """Returns once the job server answers."""
        ports = [f"--{name}={port}" for name, port in self.ports.items()]
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *ports, "--num-cpus=6",
            "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--object-store-memory=100000000",
            f"--temp-dir={self.folder / str(time.monotonic_ns())}", "--disable-usage-stats",
        ]  # fmt: skip
        with (self.folder / "head.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + READY_SECONDS
        while not self.answers():
            ended = self._process.poll() is not None or time.monotonic() > deadline
            assert not ended, (self.folder / "head.log").read_text()[-3000:]
            time.sleep(0.2)

    def answers(self) -> bool:
        request = urllib.request.Request(f"{self.address}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        """`ray start --block` ends all that it started."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def code_as_wheel(root: Path, folder: Path) -> Path:
    """This checkout as `pip wheel` lays it out; test_wheel proves that of the real one."""
    wheel = folder / "relabel_ray-0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for source, place in ((root / "operators" / "relabel", "relabel"), (root / "pipelines", "relabel/pipelines")):
            for path in sorted(source.rglob("*")):
                if path.suffix in (".py", ".yaml") and "__pycache__" not in path.parts:
                    archive.write(path, f"{place}/{path.relative_to(source).as_posix()}")
    return wheel
