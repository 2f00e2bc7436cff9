"""Pseudo-labels: a text classifier trained on wrong labels, on those after an audit, and on a language model's.

BBC's articles of five topics, the student of `bag_of_words`, accuracy on articles that nothing here was shown with
their topics. All labels come from releases (`article_releases`). Of 30 % errors, two kinds: every wrong topic alike, or
each topic taken for the one that it is nearest to. What was labelled stays in the folder; run again, only students are
trained.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import bbc
import numpy as np
import torch
from gains import article_releases, bag_of_words
from gains.arms import Claim, Row, conclude
from gains.distinct_articles import split
from jaxtyping import Float32, Int64
from measure import report, talk

from pipelines.articles import TOPICS, Article
from relabel.labelers.routed_label import CLASSIFIER

SEEDS = range(5)
WRONG = 0.3
"""The share of labels that are."""
KINDS = {"uniform": "30 % wrong, any other topic", "confusable": "30 % wrong, the nearest topic"}
AS_GIVEN, FILTERED, FLIPPED = "as given", "audited, filtered", "audited, flipped"
CLEAN = "no errors: what people said"
ASKED, ROUTED = "SmolLM2 alone: every fifth article", "SmolLM2 alone: and its classifier, all articles"

Labels = Mapping[str, int]
"""Of the articles that a student is trained on, by key."""


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    articles = split()
    texts = bag_of_words.Texts([each.text for each in articles.train], [each.text for each in articles.test])
    people, truth = topics_of(articles.train), topics_of(articles.test)
    planted = plant(people, texts.train.toarray().astype(np.float32))
    arms = {**audited(folder, articles.train, planted), **by_model(folder, articles.train)}
    rows, notes = [], {}
    for arm, labels_of in arms.items():
        talk(arm)
        sizes, right = [], []
        for seed, labels in zip(SEEDS, labels_of, strict=True):
            chosen = np.array([row for row, each in enumerate(articles.train) if each.key in labels])
            given = np.array([labels[articles.train[row].key] for row in chosen])
            said = bag_of_words.learn(texts.train[chosen], given, texts.test, len(TOPICS), seed)
            rows.append(Row(arm, seed, float((said == truth).mean())))
            sizes.append(len(chosen))
            right.append((given == people[chosen]).mean())
        notes[arm] = f"{np.mean(right):.3f} of {np.mean(sizes):.0f} labels right"
    nearest = {TOPICS[true]: TOPICS[given] for true, given in zip(people, planted["confusable_0"], strict=True)
               if true != given}  # fmt: skip
    about = {"train": len(articles.train), "test": len(articles.test), "copies left out": articles.copies}
    title = f"Accuracy on {len(articles.test)} articles with clean topics"
    conclude(title, rows, claims(), folder, notes, {**about, "wrong": WRONG, "nearest": nearest})


def claims() -> list[Claim]:
    """An audit helps; a model's labels help, and more so where a classifier spreads them."""
    found = []
    for panel in KINDS.values():
        given = f"{panel}: {AS_GIVEN}"
        found += [Claim(f"{panel}: {better}", given) for better in (FILTERED, FLIPPED)] + [Claim(ROUTED, given)]
    return [*found, Claim(ROUTED, ASKED)]


def audited(
    folder: Path, articles: Sequence[Article], planted: Mapping[str, Int64[np.ndarray, " rows"]]
) -> dict[str, list[Labels]]:
    """By arm and seed."""
    names = {label: [TOPICS[topic] for topic in topics] for label, topics in planted.items()}
    noisy = article_releases.read(article_releases.noisy(folder, articles, names))
    audit = article_releases.read(article_releases.audit(folder, list(planted)))
    found: dict[str, list[Labels]] = {CLEAN: [ids(noisy, "people")] * len(SEEDS)}
    for kind, panel in KINDS.items():
        for seed in SEEDS:
            label = f"{kind}_{seed}"
            given, doubts = ids(noisy, label), f"doubts_{label}"
            issue = {key for key, row in audit.items() if row[f"{doubts}_issue"]}
            flipped = {key: audit[key][f"{doubts}_guess"] if key in issue else given[key] for key in given}
            kept = {key: topic for key, topic in given.items() if key not in issue}
            for name, labels in ((AS_GIVEN, given), (FILTERED, kept), (FLIPPED, flipped)):
                found.setdefault(f"{panel}: {name}", []).append(labels)
    return found


def by_model(folder: Path, articles: Sequence[Article]) -> dict[str, list[Labels]]:
    """By arm; the same for every seed: the model is asked once."""
    release = article_releases.centred(folder, articles)
    alone = ids(article_releases.read(release), "centred")
    routed = article_releases.read(article_releases.routed(folder, release))
    by_classifier = np.mean([row["routed_source"] == CLASSIFIER for row in routed.values()])
    report("SmolLM2 alone: labelled by its classifier", float(by_classifier), f"of {len(routed)} articles")
    return {ASKED: [alone] * len(SEEDS), ROUTED: [ids(routed, "routed")] * len(SEEDS)}


def plant(
    people: Int64[np.ndarray, " rows"], vectors: Float32[np.ndarray, "rows words"]
) -> dict[str, Int64[np.ndarray, " rows"]]:
    """Label -> topics [rows], of every kind and seed."""
    found = {}
    for seed in SEEDS:
        found[f"uniform_{seed}"] = bbc.uniform_errors(people, WRONG, seed)
        found[f"confusable_{seed}"] = bbc.confusable_errors(people, vectors, WRONG, seed)
    return found


def topics_of(articles: Sequence[Article]) -> Int64[np.ndarray, " rows"]:
    return np.array([TOPICS.index(each.topic) for each in articles])


def ids(rows: Mapping[str, Mapping[str, object]], label: str) -> Labels:
    """The best class of a label, by key."""
    return {key: int(np.asarray(row[f"{label}_ids"])[0]) for key, row in rows.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
