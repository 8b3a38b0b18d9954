import html.parser
import json
import re

import pytest

from optical_scale.errors import ConfigError
from optical_scale.inspection.schema import Inspection
from optical_scale.inspection.text import printable
from optical_scale.inspection.thumbnails import thumbnail
from optical_scale.recipes.inspect import inspect, write_inspection
from optical_scale.records import TextPair
from optical_scale.shards.manifest import Dropped
from tests.support.browser import needs_browser, visit
from tests.unit.inspection.folders import DROPPED, image, pairs, picture, write, write_tokenizer


@pytest.fixture
def bitext(tmp_path):
    odd = TextPair(
        "odd-sw-0", "sw", "<script>alert(1)</script> & \x1b[31mred", "\u202eevil\x00\u2028end\nline", "<b>odd</b>"
    )
    hebrew = TextPair("odd-he-0", "he", "A dog .", "כלב .", "odd")
    return write(tmp_path / "shards", [*pairs(30), odd, hebrew], DROPPED)


@pytest.fixture
def tokenizer(tmp_path):
    return write_tokenizer(tmp_path / "tokenizer.json")


class Tags(html.parser.HTMLParser):
    """Checks nesting and collects ids, references and texts."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.references, self.sources = [], [], set(), []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name == "src":
                self.sources.append(value)
            if name.endswith("href"):
                self.references.add(value)
            self.references |= {f"#{found}" for found in re.findall(r"url\(#([^)]*)\)", value or "")}

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "br", "img"):
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check(page):
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids)), "ids of several charts must not collide"
    assert tags.references <= {f"#{name}" for name in tags.ids}
    assert not re.search(r"\b(src|href|url\()=?['\"(]?(https?:)?//", page), "nothing comes from elsewhere"
    return tags


def test_text_has_every_number_and_nothing_that_steers_a_terminal(bitext, tokenizer):
    text = inspect(bitext, tokenizers=[tokenizer], samples=40)
    assert re.search(r"news +sw +pairs +30 +7 +blank 3, duplicate 4", text)
    assert re.search(r"lost +yo +pairs +0 +2 +blank 2", text)
    assert "lengths of all 32 pairs" in text
    assert ">512" in text
    assert "so few tokens mean lost text: he english 67%, he target 100%, sw target 100%\n" in text
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "\\u{1b}[31mred" in text
    assert "\\u{202e}evil\\u{0}\\u{2028}end\\nline" in text
    assert printable("می\u200cخواهم") == "می\u200cخواهم", "joiners are spelling"


def test_columns_line_up(bitext, tokenizer):
    for block in inspect(bitext, tokenizers=[tokenizer], samples=0).split("\n\n"):
        lines = block.splitlines()
        if len(lines) > 2 and set(lines[1]) == {"-"}:
            assert len(lines[1]) == max(map(len, [lines[0], *lines[2:]]))


def test_estimates_are_marked(tmp_path):
    folder = write(tmp_path / "s", [*pairs(60), *pairs(60, corpus="web")])
    text = inspect(folder, limit=20)
    assert re.search(r"news +sw +pairs +≈\d+", text)
    assert "lengths of 20 of 120 pairs (at most 20 of each language, chosen by seed 0)" in text
    assert "≈" in inspect(folder, limit=20, form="html")


def test_json_is_the_schema(bitext, tokenizer):
    content = inspect(bitext, tokenizers=[tokenizer], form="json")
    report = Inspection.model_validate_json(content)
    assert json.loads(content)["schema_version"] == 1
    assert report.samples == 32
    assert report.tokenizers[0].pieces == 4


def test_page_is_well_formed_escaped_and_complete_in_itself(bitext, tokenizer):
    page = inspect(bitext, tokenizers=[tokenizer, tokenizer.with_name("tokenizer.json")], samples=40, form="html")
    check(page)
    assert "<script>alert" not in page
    assert "(100% unknown)" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; ␛[31mred" in page
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert '<td class="long" lang="he" dir="auto">כלב .' in page
    assert "\x00" not in page
    assert not re.search(r"#01020\w", page), "colours follow the page"
    assert page == inspect(
        bitext, tokenizers=[tokenizer, tokenizer.with_name("tokenizer.json")], samples=40, form="html"
    )


def test_page_without_tokenizer_or_samples(bitext):
    page = inspect(bitext, samples=0, form="html")
    check(page)
    assert "<h2>Tokens</h2>" not in page
    assert "<h2>Samples</h2>" not in page


def test_page_of_images_has_thumbnails_and_keeps_parts_apart(tmp_path, tokenizer):
    broken = picture()[:300]
    records = [image(i) for i in range(6)] + [image(6, broken)]
    dropped = (Dropped("f30k", "", "part:box_outside", 1234), Dropped("f30k", "", "missing_image", 5))
    page = inspect(write(tmp_path / "s", records, dropped), tokenizers=[tokenizer], samples=7, form="html")
    tags = check(page)
    assert len(tags.sources) == 6
    assert all(source.startswith("data:image/jpeg;base64,") for source in tags.sources)
    assert page.count("cannot be shown") == 1
    assert page.count("1,234") == 1
    assert '<td data-value="5">5</td>' in page
    assert "animals" in page
    text = inspect(tmp_path / "s", samples=1)
    assert "left out of records that were kept:\n  f30k: 1,234 box_outside" in text
    assert re.search(r"f30k +– +images +7 +5 +missing_image 5", text)


def test_thumbnails_are_small_and_refuse_what_is_no_image():
    uri = thumbnail(picture(4000, 1000))
    assert uri is not None
    assert len(uri) < 20_000
    assert thumbnail(b"GIF89a") is None
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\2\0\0\0"
    assert thumbnail(bomb + bytes(4)) is None


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"--output: .* cannot be written"):
        write_inspection(tmp_path / "file" / "report.html", "x")
    with pytest.raises(ConfigError, match="--output"):
        write_inspection(tmp_path, "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@needs_browser
def test_tables_sort_in_a_browser(bitext, tokenizer, tmp_path):
    (tmp_path / "page.html").write_text(inspect(bitext, tokenizers=[tokenizer], form="html"), encoding="utf-8")
    script = """
        const table = document.querySelector('table.sortable'), cells = () => [...table.tBodies[0].rows].map(
            row => row.cells[3].dataset.value).join(' ');
        table.querySelector('th[data-column="3"] button').click();
        const falling = cells();
        table.querySelector('th[data-column="3"] button').click();
        return falling + ' | ' + cells();
    """
    assert visit(tmp_path / "page.html", script, tmp_path) == "30 1 1 0 | 0 1 1 30"
