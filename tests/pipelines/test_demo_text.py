"""The text demo, smaller: every step runs, and what it says is what its releases hold."""

from pathlib import Path

import numpy as np
import pytest
from releases_of_photos import open_release

from pipelines.articles import TOPICS, articles
from pipelines.demo_text import TextSizes, audited, demo_text
from pipelines.text_picture import Audited, draw_audit
from relabel.releases.verify import verify


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_step_runs_and_a_second_demo_does_nothing_again(tmp_path: Path, smollm2: Path, ray_cluster: None) -> None:
    sizes = TextSizes(articles=24, taxonomy=6, model=str(smollm2))
    with (tmp_path / "said").open("w") as stream:
        assert demo_text(str(tmp_path / "demo"), stream, sizes) == 0
    said = (tmp_path / "said").read_text()
    topics, audit = (open_release(str(tmp_path / "demo" / name)) for name in ("topics", "audit"))
    known = audited(topics, audit)
    gold = {article.key: TOPICS.index(article.topic) for article in articles(24)}
    assert {key: int(topic) for key, topic in zip(known.keys, known.truth, strict=True)} == gold
    assert f"{known.accuracy(known.raw):.3f} right as the model said them" in said
    assert f"{len(known.flagged)} labels are doubted" in said
    assert "taxonomy" in said
    assert (tmp_path / "demo" / "text.png").read_bytes().startswith(b"\x89PNG")
    for release in (topics, audit):
        assert verify(release.objects, release.number, "full").problems == []
    with (tmp_path / "again").open("w") as stream:
        assert demo_text(str(tmp_path / "demo"), stream, sizes) == 0
    assert [open_release(str(tmp_path / "demo" / name)).number for name in ("topics", "audit")] == [1, 1]


def test_articles_are_chosen_by_their_names_and_have_known_topics() -> None:
    few, more = articles(20), articles(60)
    assert few == more[:20]
    assert {article.topic for article in more} == set(TOPICS)
    assert len(articles()) == 2225


def test_the_picture_of_nothing_doubted_and_of_much(tmp_path: Path) -> None:
    truth = np.arange(40) % 5
    for flagged in ([], list(range(30))):
        known = Audited(TOPICS, [f"{row}" for row in range(40)], truth, truth, (truth + 1) % 5, truth, flagged)
        draw_audit(known, ["a text " * 40] * len(flagged), tmp_path / f"{len(flagged)}.png")
        assert (tmp_path / f"{len(flagged)}.png").stat().st_size > 10_000
    assert known.wrong_among_flagged == 30
    assert known.accuracy(known.centred) == 0
