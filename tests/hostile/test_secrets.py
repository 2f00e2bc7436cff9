"""Secrets: planted where they come from, and found nowhere: not in the store, a file, a log, a message or a pickle."""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from archives import make_tar
from confined import ROOT

from pipelines import cluster
from pipelines.dead_letters import attempt
from pipelines.loading import load
from pipelines.plan import make_job
from pipelines.recipe import Resources
from relabel.errors import BadSample, RelabelError, StorageError
from relabel.redaction import redacted
from relabel.storage.failures import translated
from relabel.storage.opening import open_store
from relabel.testing.servers import S3Server

SECRETS = {
    "PLANTED_PASSWORD": "pl4nted/env+password==",
    "PLANTED_URL_PASSWORD": "pl4nted-url-password",
    "PLANTED_SIGNATURE": "pl4nted0signature0of0a0url",
}
PLUGIN = '''
"""Leaky: raises what it knows."""
import os
from relabel import Labeler, Parameters, register, scores

class LeakyParameters(Parameters):
    size: int = 1

@register
class Leaky(Labeler[LeakyParameters]):
    """Raises on every second sample."""
    name, version = "leaky", 1

    def writes(self):
        return scores(self.label, "mean")

    def prepare(self, sample):
        import numpy as np
        if sample["image"].startswith(b"bad"):
            raise RuntimeError(
                f"cannot get https://me:{os.environ['PLANTED_URL_PASSWORD']}@host/x?X-Amz-Signature="
                f"{os.environ['PLANTED_SIGNATURE']}&X-Amz-Date=1 with {os.environ['PLANTED_PASSWORD']} and "
                f"{os.environ['AWS_SECRET_ACCESS_KEY']} " + "x" * 480 + os.environ["PLANTED_PASSWORD"])
        return {"x": np.zeros(1, np.float32)}

    def __call__(self, batch):
        import numpy as np
        return self.columns(mean=np.asarray(batch["x"])[:, 0])
'''


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return SECRETS


def found_in(data: bytes, secrets: Iterator[str] | list[str]) -> list[str]:
    return [secret for secret in secrets if secret.encode() in data]


def test_a_run_leaks_nothing(tmp_path: Path, seaweed: S3Server, s3_root: str, planted: dict[str, str]) -> None:
    (tmp_path / "in.tar").write_bytes(make_tar([("a.jpg", b"good"), ("b.jpg", b"bad"), ("c.jpg", b"good")]))
    (tmp_path / "leaky.py").write_text(PLUGIN)
    options = {"endpoint_url": seaweed.endpoint, "key": "${AWS_ACCESS_KEY_ID}", "secret": "${AWS_SECRET_ACCESS_KEY}"}
    recipe = {"source": str(tmp_path / "in.tar"), "steps": ["leaky"], "plugins": ["leaky.py"],
              "store": {"url": s3_root, "storage_options": options}}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    logs = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines", "run", str(tmp_path / "recipe.yaml")], capture_output=True, check=False,
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{ROOT}/operators:{ROOT}", "RAY_TMPDIR": logs},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        secrets = [*planted.values(), seaweed.secret_key]
        assert not found_in(done.stdout + done.stderr, secrets)
        for path in [*Path(logs).rglob("*"), *tmp_path.rglob("*")]:
            if path.is_file():
                assert not found_in(path.read_bytes(), secrets), path
    finally:
        shutil.rmtree(logs, ignore_errors=True)
    store = open_store(s3_root, options)
    objects = {info.path: store.get(info.path) for info in store.list("")}
    assert any(path.endswith(".dead.jsonl") for path in objects)
    for path, data in objects.items():
        assert not found_in(data, secrets), path
    letter = next(data for path, data in objects.items() if path.endswith(".dead.jsonl"))
    assert b"https://***@host/x?***" in letter


@pytest.mark.usefixtures("s3_root")
def test_a_job_is_pickled_with_names_only(planted: dict[str, str], seaweed: S3Server) -> None:
    options = {"endpoint_url": seaweed.endpoint, "secret": "${PLANTED_PASSWORD}", "key": "${AWS_ACCESS_KEY_ID}"}
    recipe = load({
        "source": {"path": "s3://bucket/a.tar", "storage_options": options},
        "steps": [{"label_map": {"model": "efficientnet-lite0", "input_size": 64}}],
        "store": {"url": "s3://bucket/labels", "storage_options": options},
    })  # fmt: skip
    job = make_job(recipe)
    data = pickle.dumps([job, job.open_store()])
    assert b"${PLANTED_PASSWORD}" in data
    assert not found_in(data, [*planted.values(), seaweed.secret_key])


def test_rays_runtime_environment_names_no_secret(planted: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(cluster.ray, "init", lambda *_, **options: given.append(options))
    cluster.start_local(Resources(), 1)
    cluster.join("auto")
    assert len(given) == 2
    assert not found_in(repr(given).encode(), list(planted.values()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://me:pass@bucket/x is gone", "s3://***@bucket/x is gone"),
        ("https://token@host/x", "https://***@host/x"),
        ("https://u:p@ss@host/x", "https://***@host/x"),
        ("GET https://h/x?X-Amz-Credential=a%2Fb&X-Amz-Signature=abc failed", "GET https://h/x?*** failed"),
        ("https://acc.blob.core.windows.net/c/x?sv=1&sig=abc%3D", "https://acc.blob.core.windows.net/c/x?***"),
        ("https://h/x?page=2 and why?", "https://h/x?page=2 and why?"),
        ("key AKIAIOSFODNN7EXAMPLE is unknown", "key *** is unknown"),
        ("s3://bucket/a@b/c.tar", "s3://bucket/a@b/c.tar"),
        ("photos-001.tar: member 'me@home.jpg'", "photos-001.tar: member 'me@home.jpg'"),
    ],
)
def test_urls_are_redacted(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert str(RelabelError(text)) == expected
    assert redacted(expected) == expected


def test_every_error_of_ours_is_redacted(planted: dict[str, str]) -> None:
    password = planted["PLANTED_PASSWORD"]

    def work() -> None:
        raise OSError(f"x {password} and s3://me:{password}@bucket?sig={planted['PLANTED_SIGNATURE']}")

    with pytest.raises(StorageError) as caught, translated(f"s3://bucket/{password}"):
        work()
    outcome = attempt(work)
    assert isinstance(outcome, BadSample)
    long = attempt(lambda: {}["x" * 480 + password])
    assert isinstance(long, BadSample)
    for error in (caught.value, outcome, long, pickle.loads(pickle.dumps(outcome)), BadSample("x", password)):
        said = f"{error} {error.args} {getattr(error, 'detail', '')}".encode()
        assert not found_in(said, list(planted.values()))
        assert b"pl4nted" not in said


def test_a_variable_of_any_name_is_secret_where_an_option_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNOCENT", "pl4nted-in-innocence")
    open_store("s3://bucket/x", {"secret": "${INNOCENT}", "key": "${INNOCENT}"})
    assert str(RelabelError("it was pl4nted-in-innocence")) == "it was ***"
