"""Fixtures: a pytest plugin that gives tests a real S3 server; load it by `pytest_plugins`."""

import contextlib
import uuid

import pytest

from .servers import S3Server, seaweedfs


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> S3Server:
    """One SeaweedFS for the whole session."""
    # Not a generator: checked shapes wrap this function, and pytest would not see that it yields.
    stack = contextlib.ExitStack()
    request.addfinalizer(stack.close)
    return stack.enter_context(seaweedfs(tmp_path_factory.mktemp("seaweedfs")))


@pytest.fixture
def s3_root(seaweed: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix that nobody used before; the environment leads every S3 client to its server."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{seaweed.bucket}/{uuid.uuid4().hex}"
