"""Wire faults: a real S3 server behind a proxy that fails a request, and behind the habits of worse servers."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from relabel.errors import Refused, RelabelError
from relabel.releases.commit import commit
from relabel.releases.doctor import diagnose, require_commits
from relabel.releases.verify import verify
from relabel.releases.versions import Version, read_history, version_numbers
from relabel.storage import remote
from relabel.storage.filesystems import resolve
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store
from relabel.testing.profiles import CORRECT, OLD_GATEWAY, UNCONDITIONAL
from relabel.testing.proxy import WIRE_FAULTS, Proxy, WireFault, faulty_proxy
from relabel.testing.servers import S3Server
from relabel.testing.toy import draft, finish_shards

SOURCE = {"a.tar": "0"}
CLIENT = {"config_kwargs": {"read_timeout": 1, "retries": {"max_attempts": 1}}}


@pytest.fixture(scope="module")
def proxy(seaweed: S3Server, request: pytest.FixtureRequest) -> Proxy:
    stack = ExitStack()
    request.addfinalizer(stack.close)
    return stack.enter_context(faulty_proxy(seaweed))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries as ever, of which the client library's own are fewer and none waits long."""
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 2)
    monkeypatch.setattr(remote, "PAUSES_SECONDS", (0.0, 0.0))


def through(proxy: Proxy, url: str) -> ObjectStore:
    """The store as a client behind the proxy sees it, which waits a second at most."""
    return open_store(url, {**proxy.server.options, **CLIENT})


def publish(store: ObjectStore, run_id: str) -> Version:
    numbers = version_numbers(store)
    receipts = finish_shards(store, run_id, SOURCE, "small")
    return commit(store, draft(run_id, numbers[-1] if numbers else 0, receipts, "small"))


def check(store: ObjectStore, run_id: str) -> None:
    assert [version.run_id for version in read_history(store)] == [run_id]
    assert verify(store, "latest", "full").problems == []


@pytest.mark.parametrize("fault", WIRE_FAULTS, ids=str)
def test_a_request_fails_on_its_way(proxy: Proxy, s3_root: str, fault: WireFault) -> None:
    publish(through(proxy, f"{s3_root}/undisturbed"), "undisturbed")
    count = len(proxy.seen)
    assert count > 10
    for at in range(WIRE_FAULTS.index(fault), count, 17):
        url = f"{s3_root}/{at}"
        proxy.arm(fault, at)
        # The client asks again by itself: one failure is never the end of a run.
        version = publish(through(proxy, url), "ours")
        proxy.disarm()
        assert version.run_id == "ours"
        check(open_store(url), "ours")


@pytest.mark.parametrize("fault", WIRE_FAULTS[:3], ids=str)
def test_a_server_that_stays_away(proxy: Proxy, s3_root: str, fault: WireFault) -> None:
    proxy.arm(fault, at=12, times=10_000)
    with pytest.raises(RelabelError):
        publish(through(proxy, s3_root), "ours")
    proxy.disarm()
    direct = open_store(s3_root)
    for number in version_numbers(direct):
        assert verify(direct, number, "full").problems == []
    publish(direct, "ours")
    check(direct, "ours")


@pytest.fixture
def behind(seaweed: S3Server, s3_root: str, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    with faulty_proxy(seaweed, request.param) as proxy:
        yield proxy


def put_twice(store: ObjectStore, how: str) -> bytes:
    """What lies there after a conditional write over an object, by the way that is named."""
    filesystem, root = resolve(store.url, store.options)  # type: ignore[attr-defined]
    bucket, _, prefix = root.partition("/")
    name = {"Bucket": bucket, "Key": f"{prefix}/{how}"}
    filesystem.pipe_file(f"{root}/{how}", b"first")
    filesystem.pipe_file(f"{root}/other", b"second")
    try:
        if how == "put":
            filesystem.call_s3("put_object", **name, Body=b"second", IfNoneMatch="*")
        elif how == "quoted":
            etag = filesystem.info(f"{root}/{how}")["ETag"]
            filesystem.call_s3("put_object", **name, Body=b"second", IfMatch=f'"{etag.strip(chr(34))}"')
        else:
            upload = filesystem.call_s3("create_multipart_upload", **name)["UploadId"]
            etag = filesystem.call_s3("upload_part", **name, UploadId=upload, PartNumber=1, Body=b"second")["ETag"]
            parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
            filesystem.call_s3(
                "complete_multipart_upload", **name, UploadId=upload, MultipartUpload=parts, IfNoneMatch="*"
            )
    except OSError:
        pass
    return bytes(filesystem.cat_file(f"{root}/{how}"))


@pytest.mark.parametrize(
    ("behind", "written"),
    [
        (CORRECT, {"put": b"first", "complete": b"first", "quoted": b"second"}),
        (OLD_GATEWAY, {"put": b"first", "complete": b"second", "quoted": b"first"}),
        (UNCONDITIONAL, {"put": b"second", "complete": b"second", "quoted": b"second"}),
    ],
    indirect=["behind"],
    ids=str,
)
def test_profiles_are_what_they_say(behind: Proxy, s3_root: str, written: dict[str, bytes]) -> None:
    store = through(behind, s3_root)
    assert {how: put_twice(store, how) for how in written} == written


@pytest.mark.parametrize("behind", [OLD_GATEWAY], indirect=True, ids=str)
def test_an_old_gateway_is_safe(behind: Proxy, s3_root: str) -> None:
    """The only condition that a run ever relies on is that of a single PUT."""
    store = through(behind, s3_root)
    assert [each for each in diagnose(store) if not each.ok] == []
    require_commits(store)
    publish(store, "ours")
    publish(store, "theirs")
    check(open_store(s3_root), "ours")
    conditional = Counter(request.kind for request in behind.seen if has_condition(request.headers))
    assert set(conditional) == {"put"}
    assert {request.kind for request in behind.seen} <= {"put", "get", "head", "list", "delete"}
    assert not any("if-match" in request.headers for request in behind.seen)


def has_condition(headers: dict[str, str]) -> bool:
    return any(name.startswith("if-") for name in headers)


@pytest.mark.parametrize("behind", [UNCONDITIONAL], indirect=True, ids=str)
def test_a_server_without_conditions_is_refused(behind: Proxy, s3_root: str) -> None:
    store = through(behind, s3_root)
    failed = {check.name: check.detail for check in diagnose(store) if not check.ok}
    assert "not honoured" in failed["create once"]
    with pytest.raises(Refused, match="conditional create is not honoured"):
        require_commits(store)
    assert list(open_store(s3_root).list("")) == []
