"""The report: one page that is complete in itself, says what changed, and whose text stays text."""

import html.parser
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import reported_releases
from browser import browser, program
from planted_releases import Rows, publish
from reported_releases import ATTACK, CAPTIONS, MAPS, MASKS, TOPICS, two_releases

from pipelines.command_line import main
from pipelines.report import Report, report, write
from pipelines.report_charts import shares_in, steps_of
from pipelines.report_cost import costs
from pipelines.report_pace import Pace
from pipelines.terminal import CONTROLS
from relabel.errors import UsageError
from relabel.labels.contract import LabelContract
from relabel.labels.distribution import distribution
from relabel.labels.kinds import classes, scores
from relabel.releases.release import Store
from relabel.storage.opening import open_store

KINDS = {"caption": CAPTIONS, "mask": MASKS, "map": MAPS, "topic": TOPICS}

AGREEMENT = {
    "caption": "60 % of 15 samples keep their text.",
    "mask": "100 % of 15 samples keep their class, 87.5 % of the pixels.",
    "label_map": "60 % of 15 samples keep their class, 63.9 % of the cells.",
    "classes": "60 % of 15 samples keep their class.",
}
"""Two of five rows changed; of a mask the background, which is larger, stays."""


class Elements(html.parser.HTMLParser):
    """What a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module", params=KINDS)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, photos: Sequence[tuple[bytes, int]]
) -> Store:
    return two_releases(tmp_path_factory.mktemp(request.param), KINDS[request.param], photos)


@pytest.fixture(scope="module")
def page(store: Store) -> Report:
    return report(store)


def kind_of(store: Store) -> LabelContract:
    [contract] = store.release().labels.values()
    return contract


def test_text_stays_text(store: Store, page: Report) -> None:
    found = Elements(page.html)
    assert found.tags["script"] == found.tags["iframe"] == found.tags["object"] == found.tags["form"] == 0
    assert found.tags["main"] == 1
    assert [each for each in found.attributes if each[1].startswith("on")] == []
    links = [value for _, name, value in found.attributes if name in ("src", "href", "xlink:href", "action")]
    assert [link for link in links if not link.startswith(("data:", "#"))] == []
    # The declared change, the recipe, the dead letters; a caption, the names of classes or the labelled text.
    assert found.text.count(ATTACK.translate(CONTROLS)) >= 4
    assert "\u202e" not in page.html, "it would turn what follows around"
    assert page.notes == []


def test_it_says_what_changed_and_what_failed(store: Store, page: Report) -> None:
    text = " ".join(Elements(page.html).text.split())
    assert "gate passed" in text
    assert "Declared: a larger teacher" in text
    assert "another label than before" in text
    reason = "prompt_too_long" if kind_of(store).name == "topic" else "corrupt_image"
    assert f"{reason} 3" in text
    assert "15 samples of 3 of 3 shards that were labelled since" in text
    assert AGREEMENT[kind_of(store).kind] in text
    assert page.samples == 15


def test_what_changed_most_comes_first(store: Store, page: Report) -> None:
    order = [page.html.index(why) for why in (">most changed", ">most doubtful")]
    assert order == sorted(order)
    changed = page.html[order[0] : order[1]].count("most changed")
    assert changed == 6, "two of the five labelled rows of each shard"


def test_photographs_and_overlays_are_in_the_page(store: Store, page: Report) -> None:
    pictures = [value for tag, name, value in Elements(page.html).attributes if (tag, name) == ("img", "src")]
    kind = kind_of(store).kind
    samples = {"caption": 15, "mask": 45, "label_map": 45, "classes": 0}[kind]
    dead = 0 if kind == "classes" else 3
    assert len(pictures) == samples + dead, "of a dead image the part that can be decoded"
    assert len(page.html) < 1_500_000


def test_equal_releases_have_equal_pages(store: Store, page: Report) -> None:
    assert report(store).html == page.html


def test_a_first_release_has_nothing_to_be_compared_with(store: Store) -> None:
    found = report(store, "1")
    text = " ".join(Elements(found.html).text.split())
    assert "nothing: the first release" in text
    assert "No gate" in text or "no gate" in text
    assert "most changed" not in text


def test_media_that_are_gone_are_said_and_the_rest_is_shown(
    tmp_path: Path, photos: Sequence[tuple[bytes, int]], capfd: pytest.CaptureFixture[str]
) -> None:
    two_releases(tmp_path, CAPTIONS, photos)
    (tmp_path / "in" / "0.tar").unlink()
    with (tmp_path / "in" / "1.tar").open("ab") as tar:
        tar.write(bytes(512))
    out = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "store"), "-o", str(out), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["samples"] == 15
    assert told["bytes"] == out.stat().st_size
    assert [note for note in told["notes"] if "0.tar" in note and "no longer in the source" in note]
    assert [note for note in told["notes"] if "1.tar" in note and "changed since" in note]
    assert "What this page could not show" in out.read_text()
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    assert main(["report", str(tmp_path / "store"), "-o", str(out)]) == 0
    assert "note: No media are shown" in capfd.readouterr().out


def test_labels_that_are_gone_are_said(tmp_path: Path, photos: Sequence[tuple[bytes, int]]) -> None:
    store = two_releases(tmp_path, CAPTIONS, photos)
    entry = store.release().entry("1.tar")
    assert entry.data is not None
    store.objects.delete(entry.data.path)
    found = report(store)
    assert [note for note in found.notes if "Release 2, shard 1.tar" in note]
    assert found.samples == 10


def test_half_a_character_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reported_releases, "ATTACK", "\ud800 half")
    rows = Rows({"s_value": np.zeros(3, np.float32)}, {"operator_error": 1}, detail="\ud800 half")
    publish(tmp_path / "store", scores("s", "value"), {"a": rows})
    write(report(Store(open_store(str(tmp_path / "store")))), tmp_path / "report.html")
    assert "? half" in (tmp_path / "report.html").read_text("utf-8")


def test_reading_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = classes("kind", ("dog", "cat"))
    ids = np.zeros((600, 1), np.uint16)
    many = {
        f"{number:03}": Rows(
            {"kind_ids": ids + number % 2, "kind_scores": np.full((600, 1), 0.9, np.float32)}, {"timed_out": 2}
        )
        for number in range(40)
    }
    publish(tmp_path / "store", kinds, many, ("dog", "cat"))
    publish(tmp_path / "store", kinds, many, ("dog", "cat"), teacher="large", run_id="run-2")
    store = Store(open_store(str(tmp_path / "store")))
    read: list[str] = []
    get = type(store.objects).get
    monkeypatch.setattr(type(store.objects), "get", lambda self, path: (read.append(path), get(self, path))[1])
    found = report(store)
    assert sum(path.endswith(".parquet") and path.startswith("data/") for path in read) <= 24
    assert sum(path.endswith(".dead.jsonl") for path in read) <= 3
    assert "4,096 samples of 8 of 40 shards" in found.html
    assert len(found.html) < 200_000


@pytest.mark.parametrize("samples", [0, 49])
def test_wrong_questions_are_refused(store: Store, samples: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="between 1 and 48"):
        report(store, samples=samples)
    with pytest.raises(UsageError, match="a folder that exists"):
        write(Report("1", "", 0, []), tmp_path / "none" / "x.html")


def test_phases_of_a_run() -> None:
    seconds = [10.0, *(10.0 + 2 * number for number in range(1, 20)), 90.0]
    pace = Pace("run", 21, seconds, [100 * number for number in range(1, 22)], leased=True)
    assert [(each.name, each.begin, each.end) for each in pace.phases] == [
        ("start-up", 0.0, 10.0), ("steady state", 10.0, 48.0), ("tail", 48.0, 90.0),
    ]  # fmt: skip
    assert pace.rate(10.0, 48.0) == pytest.approx(50.0)
    assert Pace("short", 3, [1.0, 2.0, 3.0], [1, 2, 3], leased=False).phases == []


@pytest.mark.parametrize("whole", [False, True])
def test_steps_hold_what_a_distribution_holds(whole: bool) -> None:
    numbers = np.random.default_rng(0).normal(40, 9, 5000)
    numbers = np.trunc(numbers) if whole else numbers
    found = distribution(numbers, whole=whole)
    assert found is not None
    steps = steps_of(found.smallest, found.largest, whole)
    shares = shares_in(found, steps)
    assert shares.sum() == pytest.approx(1.0, abs=0.01)
    counts = np.histogram(numbers, steps)[0] / len(numbers)
    assert np.abs(np.cumsum(shares) - np.cumsum(counts)).max() < 0.06


@pytest.mark.skipif(program() is None, reason="no Chromium on this machine: the page was not opened in a browser")
def test_it_opens_in_a_browser(store: Store, page: Report, tmp_path: Path) -> None:
    write(page, tmp_path / "report.html")
    with browser(tmp_path) as tab:
        for width in (390, 1400):
            for dark in (False, True):
                tab.open(tmp_path / "report.html", width, dark)
                assert tab.complaints == []
                assert tab.value("document.documentElement.scrollWidth") <= width
                assert tab.value("document.querySelectorAll('main').length") == 1
                assert tab.value("[...document.images].every(each => each.naturalWidth > 0)") is True
                background = tab.value("getComputedStyle(document.body).backgroundColor")
                assert background == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")


@pytest.mark.skipif(program() is None, reason="no Chromium on this machine")
def test_the_browser_would_complain(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<script>console.error('x')</script><img src='http://127.0.0.1:9/y.png'>")
    with browser(tmp_path) as tab:
        tab.open(tmp_path / "bad.html", 390)
        assert [each for each in tab.complaints if "asked for http://127.0.0.1:9/y.png" in each]
        assert [each for each in tab.complaints if '"x"' in each]


def test_costs_are_told_where_a_release_has_them() -> None:
    assert costs(None) is None
    stages = {"idle": {"wall": 30.0, "cpu": 0.0}, "infer": {"wall": 70.0, "cpu": 60.0}}
    slots = {
        "device": {"slots": 2, "held_seconds": 100.0, "stages": stages},
        "reader": {"slots": 1, "held_seconds": 50.0, "stages": {"read": {"wall": 50.0, "cpu": 1.0}}},
    }  # fmt: skip
    usage = {
        "wall_seconds": 60.0, "slots": slots, "bottleneck": {"text": "infer is the bottleneck"},
        "cost": {"device_hours": 0.5, "usd": 1.25, "devices_usd": 1.25, "usd_per_million": 80.0},
    }  # fmt: skip
    found = costs(usage)
    assert found is not None
    assert found.bottleneck == "infer is the bottleneck"
    assert dict(found.figures) == {
        "Wall time": "60 seconds", "Device hours": "0.5", "Cost": "1.25 USD", "of which": "devices 1.25",
        "Cost per million labels": "80.00 USD",
    }  # fmt: skip
    assert list(found.slots[0].stages) == ["infer", "idle"]
    assert found.key[-1] == ("var(--before)", "idle")
    assert 'aria-label="device: infer 70 %, idle 30 %; reader: read 100 %"' in str(found.chart)
