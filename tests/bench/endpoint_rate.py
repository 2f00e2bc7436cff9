"""Endpoint: many captions from a server that fails now and then, against the ideal of the same server.

The server (a process of its own on loopback) answers after 100 ms, fails 5 % of all requests (a quarter each: 429 with
Retry-After, 500, no JSON, no answer within the time-out of 2 s), and crashes twice, for a second and its own start.

Ideal: the time that it spent on requests, planted failures included, divided by how many are open at a time, and the
time that it was away. Its own clock measured both, and how many were open. Once by the engine alone, in one process;
once by `run`, where the wall time is from the first request to the last, without Ray's start and the commit.

REQUESTS (10,000) and AT_ONCE (16) change it. The client takes about 0.8 ms of one core per request, and so does the
server: a machine that is busy otherwise gives neither enough.
"""

import asyncio
import os
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from measure import report, talk

REQUESTS, AT_ONCE = int(os.environ.get("REQUESTS", "10000")), int(os.environ.get("AT_ONCE", "16"))
LATENCY_SECONDS, TIMEOUT_SECONDS = 0.1, 2.0
TROUBLES = {"throttle": 0.0125, "error": 0.0125, "malformed": 0.0125, "timeout": 0.0125}
PRICE = {"prompt": 0.15, "completion": 0.6}
TARGET = 1.2


def main(folder: Path) -> None:
    from relabel.testing.chat_server import chat_server

    behaviour: dict[str, Any] = {
        "latency_seconds": LATENCY_SECONDS, "troubles": TROUBLES, "crash_at": (REQUESTS // 5, REQUESTS // 2),
    }  # fmt: skip
    with chat_server(folder / "alone", **behaviour) as server:
        begun = time.monotonic()
        texts, spent = asyncio.run(by_engine(server.url))
        wall = time.monotonic() - begun
        lost = sum(text != f"WORD {row}#{row}" for row, text in enumerate(texts))
        tell("engine alone", server.account(), wall, lost, spent)
    with chat_server(folder / "run", **behaviour) as server:
        rows, spent = by_run(folder, server.url)
        lost = sum(text is None or not text.startswith(f"WORD {row}#") for row, text in enumerate(rows))
        account = server.account()
        tell("run", account, account.wall_seconds, lost + abs(len(rows) - REQUESTS), spent)


def config(url: str) -> dict[str, Any]:
    return {"url": url, "model": "m", "at_once": AT_ONCE, "timeout_seconds": TIMEOUT_SECONDS, "price": PRICE}


async def by_engine(url: str) -> tuple[list[str], dict[str, Any]]:
    from relabel.labelers.engines.endpoint import EndpointConfig
    from relabel.labelers.engines.protocol import Decoding, Message, Request

    choice = EndpointConfig(**config(url))
    engine = choice.open({}, "cpu", compute_batch=1, threads=1)
    room = asyncio.Semaphore(choice.concurrency)

    async def one(row: int) -> str:
        async with room:
            request = Request(prompt=(Message("user", f"word {row}"),), decoding=Decoding(), seed=row)
            return (await engine.generate(request)).text

    texts = await asyncio.gather(*map(one, range(REQUESTS)))
    await engine.close()
    return texts, dict(engine.spent())


def by_run(folder: Path, url: str) -> tuple[list[str | None], dict[str, Any]]:
    import relabel
    from pipelines import run

    write_texts(folder / "in.tar")
    outcome = run({
        "source": {"path": str(folder / "in.tar"), "fields": {"text": "txt"}},
        "steps": [{"asked": {"engine": {"kind": "endpoint", **config(url)}}}],
        "store": str(folder / "store"),
        "resources": {"actors": 1, "part_rows": 64},
        "plugins": ["relabel.testing.asked"],
    })  # fmt: skip
    table = relabel.open(str(folder / "store")).release().table("in.tar")
    return table["asked_text"].to_pylist(), dict(outcome.spent["asked"])


def write_texts(path: Path) -> None:
    import io
    import tarfile

    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row in range(REQUESTS):
            data = f"word {row}".encode()
            member = tarfile.TarInfo(f"{row:06d}.txt")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def tell(how: str, account: Any, wall: float, lost: int, spent: dict[str, Any]) -> None:
    """Figures of one pass."""
    ideal = account.busy_seconds / AT_ONCE + account.down_seconds
    told = account.prompt_tokens * Decimal("0.15") + account.completion_tokens * Decimal("0.6")
    difference = abs(Decimal(spent["cost"]) - told / 10**6)
    talk(f"{how}: {account} {spent}")
    report(f"{how}: {REQUESTS:,} captions, wall time", wall, "s", f"ideal {ideal:.1f} s", f"{wall / ideal:.3f}",
           f"<= {TARGET}", wall <= TARGET * ideal)  # fmt: skip
    report(f"{how}: rows lost, doubled or wrong", lost, "rows", target="0", met=not lost)
    report(
        f"{how}: requests open at a time, at most", account.peak, "", f"asked {AT_ONCE}", met=account.peak == AT_ONCE
    )
    report(f"{how}: cost beside what the server reported", float(difference), "", f"{told / 10**6} in all",
           target="0", met=not difference)  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
