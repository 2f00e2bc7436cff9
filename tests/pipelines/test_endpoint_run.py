"""A run through an endpoint that fails now and then: every row accounted for, nothing doubled, the bill exact."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from releases_of_photos import open_release, write_tar

from pipelines import run
from pipelines.progress import Tally, cost_of, describe
from relabel.errors import AccessDenied, EngineUnreachable
from relabel.labelers.engine_labeler import seed_of
from relabel.reasons import Reason
from relabel.testing.chat_server import chat_server
from relabel.testing.servers import free_ports

pytestmark = pytest.mark.usefixtures("ray_cluster")
PRICE = {"prompt": 0.15, "completion": 0.6}


def recipe(tmp_path: Path, url: str, texts: list[str], **engine: Any) -> dict[str, Any]:
    write_tar(tmp_path / "in" / "a.tar", {f"{row:05d}.txt": text.encode() for row, text in enumerate(texts)})
    return {
        "source": {"path": str(tmp_path / "in" / "a.tar"), "fields": {"text": "txt"}},
        "steps": [{"asked": {"engine": {"kind": "endpoint", "url": url, "model": "m", **engine}}}],
        "store": str(tmp_path / "store"),
        "resources": {"actors": 1, "part_rows": 32},
        "plugins": ["relabel.testing.asked"],
    }


def rows_of(store: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = open_release(store).table("a.tar").to_pylist()
    return rows


def test_nothing_is_lost_or_doubled_and_the_bill_is_exact(tmp_path: Path) -> None:
    texts = ["poison" if row == 77 else f"word{row}" for row in range(240)]
    troubles = {"throttle": 0.0125, "error": 0.0125, "malformed": 0.0125, "timeout": 0.0125}
    behaviour = {"latency_seconds": 0.05, "troubles": troubles, "words": {"poison": "400 not this"}}
    with chat_server(tmp_path / "server", crash_at=(60, 150), **behaviour) as server:
        outcome = run(recipe(tmp_path, server.url, texts, at_once=16, timeout_seconds=1.0, price=PRICE))
        account = server.account()
    rows = rows_of(str(tmp_path / "store"))
    assert [row["key"] for row in rows] == [f"{row:05d}" for row in range(240)]
    assert [row["reason"] for row in rows if row["status"] != "ok"] == [Reason.ENGINE_ERROR]
    for row, text in zip(rows, texts, strict=True):
        assert text == "poison" or row["asked_text"] == f"{text.upper()}#{seed_of(row['key'])}"
    spent = outcome.spent["asked"]
    assert (account.peak, server.lives) == (16, 3)
    told = account.prompt_tokens, account.completion_tokens
    assert (spent["prompt_tokens"], spent["completion_tokens"]) == told
    expected = (told[0] * Decimal("0.15") + told[1] * Decimal("0.6")) / 10**6
    assert Decimal(spent["cost"]) == expected
    assert spent["requests"] == 239
    assert outcome.to_json()["spent"] == {"asked": spent}


def test_a_service_that_is_not_there_costs_no_sample(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}/v1"
    with pytest.raises(EngineUnreachable, match="run again to go on"):
        run(recipe(tmp_path, url, ["a", "b"], patience_seconds=0.5))
    assert not list((tmp_path / "store").glob("versions/*"))


def test_no_key_ends_the_run_and_says_which_variable(tmp_path: Path) -> None:
    with (
        chat_server(tmp_path / "server", key="right") as server,
        pytest.raises(AccessDenied, match="engine.api_key_env"),
    ):
        run(recipe(tmp_path, server.url, ["a", "b"]))


def test_progress_tells_the_cost_rounded_up_to_the_cent() -> None:
    tally = Tally(1)
    tally.first_event = 0.0
    assert cost_of(tally) == ""
    tally.account.spent = {"short": {"requests": 3, "cost": "1.001"}, "long": {"cost": "2"}, "free": {"cost": "0"}}
    assert "cost 3.01" in describe(tally)
    assert tally.to_json()["spent"]["long"] == {"cost": "2"}
