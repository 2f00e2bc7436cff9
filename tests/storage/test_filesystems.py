"""Filesystems: URLs, storage options, and that no secret stands literally."""

from pathlib import Path

import pytest

from relabel.errors import UsageError
from relabel.storage.filesystems import expand, resolve
from relabel.storage.opening import open_store


def test_local_urls_mean_paths(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    for url in (str(tmp_path / "x"), f"file://{tmp_path}/x", f"{tmp_path}/y/../x"):
        filesystem, path = resolve(url)
        assert filesystem.cat_file(path) == b"1"


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("x/y")[1] == str(tmp_path / "x/y")
    assert open_store("x/y/").url == str(tmp_path / "x/y")


@pytest.mark.parametrize(
    "options",
    [
        {"key": "AKIA"},
        {"secret": "x"},
        {"token": "x"},
        {"client_kwargs": {"aws_secret_access_key": "x"}},
        {"client_kwargs": {"nested": [{"password": "x"}]}},
        {"account_key": "prefix-${HOME}"},
        {"secrets": {"one": "x"}},
        {"sas_token": 7},
    ],
)
def test_a_literal_secret_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r'looks like a secret.*: "\$\{'):
        resolve("s3://bucket/x", options)


def test_variables_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    monkeypatch.setenv("MY_HOST", "h")
    options = {"key": "${MY_KEY}", "secret": None, "endpoint_url": "http://${MY_HOST}:1", "anon": False,
               "client_kwargs": {"token": ["${MY_KEY}"], "region_name": "r"}}  # fmt: skip
    assert expand(options) == {
        "key": "k", "secret": None, "endpoint_url": "http://h:1", "anon": False,
        "client_kwargs": {"token": ["k"], "region_name": "r"},
    }  # fmt: skip


def test_an_unset_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(UsageError, match="NOT_SET"):
        resolve("s3://bucket/x", {"key": "${NOT_SET}"})


@pytest.mark.parametrize("url", ["nosuch://bucket/x", "gs://bucket/x"])
def test_a_protocol_that_cannot_be_served_is_named(url: str) -> None:
    with pytest.raises(UsageError, match=url.partition(":")[0]):
        resolve(url)


def test_credentials_in_the_url_are_refused() -> None:
    with pytest.raises(UsageError, match="credentials"):
        open_store("s3://key:secret@bucket/x")
