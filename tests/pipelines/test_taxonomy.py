"""The command `taxonomy`: a sample of a source, a service on loopback that finds topics, versions in a store."""

import contextlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from releases_of_photos import write_tar

from pipelines.command_line import main
from pipelines.taxonomy import induce, load_taxonomy, sample
from relabel.errors import UsageError

TOPICS = ("SPORT", "FILM", "LAW")


class Topics(http.server.BaseHTTPRequestHandler):
    """Names the topics that it is shown; what `renamed` says is called otherwise."""

    renamed: Mapping[str, str] = {}
    summarised: ClassVar[list[str]] = []
    """Texts of which summaries were asked for."""
    pause_seconds = 0.0

    def do_GET(self) -> None:
        self.send({"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = request["messages"][-1]["content"]
        reply = self.reply(prompt)
        if "response_format" in request:
            reply = json.dumps({"answer": reply})
        self.send({
            "choices": [{"message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        })  # fmt: skip

    def reply(self, prompt: str) -> str:
        if "Summarise" in prompt:
            time.sleep(self.pause_seconds)
            self.summarised.append(prompt)
            return str(prompt.partition("Text: ")[2].partition("\n")[0])
        shown = prompt.partition("Summaries:" if "Summaries:" in prompt else "Text: ")[2]
        found = [topic for topic in TOPICS if topic.lower() in shown]
        if "Summaries:" not in prompt:
            return self.renamed.get(found[0], found[0]) if found else "Other"
        ids = {name: each for each, name in re.findall(r"- \[(t\d+)\] (\w+)", prompt)}
        names = [*dict.fromkeys([*(n for n in TOPICS if n in ids or self.renamed.get(n) in ids), *found])]
        told = [{"id": ids.get(n, ids.get(self.renamed.get(n, ""), "")), "name": self.renamed.get(n, n)} for n in names]
        return json.dumps({"rating": 90, "categories": told})

    def send(self, answer: Any) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def topics(renamed: dict[str, str], **fields: Any) -> Iterator[str]:
    handler = type("Renaming", (Topics,), {"renamed": renamed, **fields})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    for shard in range(2):
        texts = {f"{row}.txt": f"{TOPICS[row % 3].lower()} of day {shard} {row}".encode() for row in range(20)}
        write_tar(tmp_path / "in" / f"{shard}.tar", texts)
    return {
        "source": {"path": f"{tmp_path}/in/*.tar", "fields": {"text": "txt"}}, "samples": 24,
        "engine": {"kind": "endpoint", "url": "set below", "model": "m"},
        "build": {"minibatch": 8, "patience": 2}, "store": str(tmp_path / "taxonomy"),
    }  # fmt: skip


def with_engine(recipe: dict[str, Any], url: str, **changed: Any) -> dict[str, Any]:
    return {**recipe, "engine": {**recipe["engine"], "url": url}, **changed}


def test_versions_follow_each_other_and_ids_stay(
    recipe: dict[str, Any], tmp_path: Path, ray_cluster: None, capfd: pytest.CaptureFixture[str]
) -> None:
    with topics({}) as url:
        first = induce(load_taxonomy(with_engine(recipe, url)))
        again = induce(load_taxonomy(with_engine(recipe, url)))
    assert set(first.taxonomy.names) == set(TOPICS)
    assert (first.fresh, again.fresh, again.path) == (True, False, first.path)
    assert first.built.coverage == 1.0
    held = json.loads((tmp_path / "taxonomy" / "taxonomies" / "t0001.json").read_bytes())
    assert held["how"]["sample"]["texts"] == 24
    assert held["sha256"] == first.taxonomy.digest
    assert [entry["what"] for entry in held["how"]["trace"]][-1] == "review"
    with topics({"FILM": "CINEMA"}) as url:
        file = tmp_path / "recipe.yaml"
        file.write_text(json.dumps(with_engine(recipe, url)))
        assert main(["taxonomy", str(file)]) == 0
    printed = capfd.readouterr().out
    film = next(each.id for each in first.taxonomy.categories if each.name == "FILM")
    assert f"renamed   {film}: 'FILM' is now 'CINEMA'" in printed
    assert "coverage  100.0% of the validation texts" in printed
    assert "t0002.json" in printed
    second = json.loads((tmp_path / "taxonomy" / "taxonomies" / "t0002.json").read_bytes())
    assert second["parent"] == first.taxonomy.digest
    assert {each["id"] for each in second["classes"]} == set(first.taxonomy.ids)


def test_the_sample_is_the_same_however_shards_are_cut_and_drawn_anew_on_demand(
    recipe: dict[str, Any], tmp_path: Path, ray_cluster: None
) -> None:
    def digest_of(store: str, number: int) -> Any:
        return json.loads((tmp_path / store / "taxonomies" / f"t{number:04d}.json").read_bytes())["how"]["sample"]

    with topics({}) as url:
        induce(load_taxonomy(with_engine(recipe, url)))
        texts = {
            f"{s}-{row}.txt": f"{TOPICS[row % 3].lower()} {s} {row}".encode() for s in range(2) for row in range(20)
        }
        for name, members in {"one": [[*texts]], "many": [[name] for name in texts]}.items():
            for index, keys in enumerate(members):
                write_tar(tmp_path / name / f"{index:02d}.tar", {key: texts[key] for key in keys})
            source = {"path": f"{tmp_path}/{name}/*.tar", "fields": {"text": "txt"}}
            induce(load_taxonomy(with_engine(recipe, url, source=source, store=str(tmp_path / f"of-{name}"))))
        assert digest_of("of-one", 1) == digest_of("of-many", 1)
        write_tar(tmp_path / "in" / "2.tar", {f"{row}.txt": b"law again" for row in range(100, 200)})
        begun = {"begin": str(tmp_path / "taxonomy" / "taxonomies" / "t0001.json")}
        induce(load_taxonomy(with_engine(recipe, url, **begun)))
        assert digest_of("taxonomy", 2) == digest_of("taxonomy", 1), "frozen"
        induce(load_taxonomy(with_engine(recipe, url, **begun)), refit=True)
        assert digest_of("taxonomy", 3) != digest_of("taxonomy", 1)


def test_a_build_that_is_killed_goes_on_with_its_summaries(
    recipe: dict[str, Any], tmp_path: Path, ray_cluster: None
) -> None:
    write_tar(tmp_path / "in" / "2.tar", {f"{row}.txt": f"law {row}".encode() for row in range(100)})
    texts, summarised, file = 140, list[str](), tmp_path / "recipe.yaml"
    with topics({}, summarised=summarised, pause_seconds=0.05) as url:
        wanted = with_engine(recipe, url, samples=texts)
        wanted["engine"]["at_once"] = 2
        sample(load_taxonomy(wanted), False)
        file.write_text(json.dumps(wanted))
        command = [sys.executable, "-m", "pipelines", "taxonomy", str(file)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as build:
            while len(summarised) < 80:
                assert build.poll() is None
                time.sleep(0.02)
            build.send_signal(signal.SIGTERM)
        assert build.returncode == -signal.SIGTERM
        before = len(summarised)
        assert before < 112
        assert any((tmp_path / "taxonomy" / "states").rglob("*.json"))
        induced = induce(load_taxonomy(wanted))
    assert induced.fresh
    assert len(summarised) - 112 <= 32 + 5, "at most those that were not put away, and those that were open"
    assert len(set(summarised)) == 112
    assert not any((tmp_path / "taxonomy" / "states").rglob("*.json"))


def test_what_is_wrong_is_said(recipe: dict[str, Any], tmp_path: Path, ray_cluster: None) -> None:
    build = {"minibatch": 200, "summarise": False}
    with pytest.raises(
        UsageError, match="'build': .*texts of 2003 characters fit, got minibatch: 200. Lower minibatch"
    ):
        load_taxonomy(with_engine(recipe, "http://127.0.0.1:1/v1", build=build))
    with pytest.raises(UsageError, match="unknown field 'sample'; did you mean 'samples'?"):
        load_taxonomy(with_engine(recipe, "http://127.0.0.1:1/v1", sample=3))
    with pytest.raises(UsageError, match="expected a source of texts"):
        load_taxonomy(with_engine(recipe, "http://127.0.0.1:1/v1", source=str(tmp_path)))
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UsageError, match=r"bad.json: a taxonomy is"):
        induce(load_taxonomy(with_engine(recipe, "http://127.0.0.1:1/v1", begin=str(tmp_path / "bad.json"))))
    write_tar(tmp_path / "few" / "0.tar", {"0.txt": b"law"})
    few = {"path": f"{tmp_path}/few/*.tar", "fields": {"text": "txt"}}
    with pytest.raises(UsageError, match="needs at least 2 texts, the source has 1"):
        induce(load_taxonomy(with_engine(recipe, "http://127.0.0.1:1/v1", source=few)))
