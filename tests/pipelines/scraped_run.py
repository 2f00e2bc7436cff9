"""Scraped run: a run on a Ray that exports metrics, asked for them as Prometheus asks, until they are all there.

Run as a program with an empty folder; prints one line of JSON: exported name -> the tags of its samples.
"""

import json
import logging
import os
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import ray
from prometheus_client.parser import text_string_to_metric_families
from test_endpoint_run import PRICE, recipe

from pipelines import metrics, run
from relabel.testing.chat_server import chat_server
from relabel.testing.servers import free_ports


def scrape(port: int) -> dict[str, list[dict[str, str]]]:
    """What Ray exports of relabel's now."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    found: dict[str, list[dict[str, str]]] = {}
    for family in families:
        for sample in family.samples:
            if sample.name.startswith("ray_relabel"):
                found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


def main(folder: Path) -> None:
    [port] = free_ports(1)
    metrics.SECONDS = 0.5
    ray.init(
        "local",
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 1000},
        _temp_dir=tempfile.mkdtemp(prefix="ray", dir="/tmp"),
    )
    seen: dict[str, list[dict[str, str]]] = {}
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.5):
            try:
                seen.update(scrape(port))
            except OSError as error:
                print(f"not there yet: {error}", file=sys.stderr)

    thread = threading.Thread(target=look)
    thread.start()
    texts = ["poison" if row == 1 else f"word{row}" for row in range(600)]
    behaviour = {"latency_seconds": 0.1, "words": {"poison": "400 not this"}}
    begun = time.monotonic()
    with chat_server(folder / "server", **behaviour) as server:
        wanted = recipe(folder, server.url, texts, at_once=4, price=PRICE)
        (folder / "in" / "broken.tar").write_bytes(b"no tar" * 1000)
        wanted["source"]["path"] = str(folder / "in" / "*.tar")
        wanted |= {"name": "scraped", "meta": {"team": "vision"}, "dead_letters": {"max_fraction": 1.0}}
        run(wanted)
    print(f"{time.monotonic() - begun:.1f} s", file=sys.stderr)
    done.set()
    thread.join()
    ray.shutdown()
    print(json.dumps(seen))


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    main(Path(sys.argv[1]))
