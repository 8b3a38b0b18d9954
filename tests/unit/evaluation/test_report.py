import html.parser
import json
import re

import pytest
from pydantic import ValidationError

from evaluation.reports import full_report, picture
from optical_scale.errors import EvaluationError
from optical_scale.evaluation.report import read_report, terminal_table, write_report
from optical_scale.evaluation.schema import Alignment, PictureAlignment, Report
from tests.support.browser import needs_browser, visit


class Tags(html.parser.HTMLParser):
    """Checks nesting and collects tags, ids and references."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.ids: list[str] = []
        self.references: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name.endswith("href"):
                self.references.add(value)
            self.references |= {f"#{found}" for found in re.findall(r"url\(#([^)]*)\)", value or "")}

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_json_round_trip_matches_the_schema(tmp_path):
    report = full_report()
    write_report(tmp_path, report)
    content = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert content["schema_version"] == 1
    assert Report.model_validate(content) == report
    assert read_report(tmp_path / "report.json") == report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_page_is_well_formed_and_needs_nothing_else(tmp_path):
    write_report(tmp_path, full_report())
    page = (tmp_path / "report.html").read_text("utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not tags.seen & {"link", "iframe"}
    assert not re.search(r"\b(src|href|url\()=?['\"(]?(https?:)?//", page), "nothing comes from elsewhere"
    assert len(tags.ids) == len(set(tags.ids)), "ids of several charts must not collide"
    assert tags.references <= {f"#{name}" for name in tags.ids}
    assert "A &lt;small&gt; run &amp; more" in page
    assert page.count("<svg") == 3


def test_page_is_the_same_every_time_and_carries_no_date(tmp_path):
    write_report(tmp_path / "one", full_report())
    write_report(tmp_path / "two", full_report())
    one, two = (tmp_path / name / "report.html" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert "dc:date" not in one.read_text("utf-8")


def test_alignment_is_text_with_row_shares(tmp_path):
    write_report(tmp_path, full_report())
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<th scope='col' lang='hi' dir='auto'>बिल्ली</th>" in page
    assert "&lt;unk&gt;" in page
    # Row "the": 0.1, 0.1, 0.3 of 0.5.
    row = page[page.index("<th scope='row'>the</th>") :]
    assert re.findall(r">(\d*)</td>", row)[:3] == ["20", "20", "60"]


def test_colours_follow_the_page(tmp_path):
    write_report(tmp_path, full_report())
    page = (tmp_path / "report.html").read_text("utf-8")
    assert not re.search(r"#01020\w", page)
    assert not re.search(r'(fill|stroke)="var', page), "variables work in style only"
    assert "prefers-color-scheme: dark" in page


def test_terminal_table_lines_up_and_orders_by_training_pairs():
    lines = terminal_table(full_report()).splitlines()
    names = [line.split()[0] for line in lines]
    assert names.index("de") < names.index("hi"), "most training pairs first"
    bars = [[i for i, char in enumerate(line) if char == "|"] for line in lines if "|" in line]
    assert len(bars) == 7, "two heading lines, two languages, three means"
    assert all(positions == bars[0] for positions in bars)
    assert any(line.startswith("gap MRR distilled:") for line in lines)


def test_terminal_table_numbers():
    report = full_report()
    first, last = (stage.results[0].metrics["R@1"] for stage in report.stages)
    line = next(line for line in terminal_table(report).splitlines() if line.startswith("de"))
    assert line.split("|")[1].split()[0] == f"{first:.3f}"
    assert line.split("|")[2].split()[0] == f"{last:.3f}"


def test_a_minimal_report_can_be_written(tmp_path):
    full = full_report()
    write_report(tmp_path, Report(title="untrained only", stages=full.stages[:1]))
    assert "mean of high-resource" not in (tmp_path / "report.html").read_text("utf-8")


def test_many_languages_are_summarised_by_group(tmp_path):
    full = full_report()
    points = [p.model_copy(update={"language": f"l{i}"}) for i in range(12) for p in full.learning_curve[:3]]
    report = full.model_copy(update={"learning_curve": (*full.learning_curve, *points)})
    write_report(tmp_path, report)
    assert "mean of high-resource</text>" in (tmp_path / "report.html").read_text("utf-8").replace("\n", "")


def test_wrong_content_is_refused_with_the_field(tmp_path):
    content = full_report().model_dump(mode="json")
    for change, message in (
        ({"schema_version": 2}, "schema_version"),
        ({"titel": "x"}, "titel"),
        ({"stages": []}, "stages"),
    ):
        path = tmp_path / "report.json"
        path.write_text(json.dumps(content | change), "utf-8")
        with pytest.raises(EvaluationError, match=message):
            read_report(path)
    with pytest.raises(EvaluationError, match="no such file"):
        read_report(tmp_path / "missing.json")


def test_a_plan_of_the_wrong_shape_is_refused():
    with pytest.raises(ValidationError, match="expected 2 rows"):
        Alignment(language="hi", source_tokens=("a", "b"), target_tokens=("c",), plan=((1.0,),))


def test_a_picture_plan_of_the_wrong_shape_or_from_elsewhere_is_refused():
    values = {"language": "de", "tokens": ("rot",), "rows": 1, "columns": 2}
    with pytest.raises(ValidationError, match="expected 1 rows"):
        PictureAlignment(**values, picture=picture(), plan=((1.0,),))
    with pytest.raises(ValidationError, match="picture"):
        PictureAlignment(**values, picture="https://example.org/a.png", plan=((0.5, 0.5),))


@needs_browser
def test_a_browser_shows_the_pair_that_is_picked(tmp_path):
    write_report(tmp_path, full_report())
    script = """
      const viewer = document.querySelector('.viewer'), seen = [viewer.hidden];
      const [languages, pairs] = viewer.querySelectorAll('select');
      const texts = selector => [...viewer.querySelectorAll(selector)].map(element => element.textContent);
      const pick = (select, value) => { select.value = value; select.dispatchEvent(new Event('change')); };
      seen.push([...languages.options].map(option => option.value), texts('.plan td').slice(1));
      pick(languages, 'de');
      seen.push([...pairs.options].map(option => option.textContent), texts('.plan th'));
      pick(pairs, pairs.options[2].value);
      const brightness = () => [...viewer.querySelectorAll('.patches div')].map(patch => Number(patch.style.opacity));
      await viewer.querySelector('img').decode();
      seen.push(viewer.querySelector('img').naturalWidth, brightness());
      viewer.querySelectorAll('.words button')[1].click();
      seen.push(brightness(), texts('.words button[aria-pressed="true"]'));
      return JSON.stringify(seen);
    """
    hidden, languages, cells, pairs, heads, width, first, second, pressed = json.loads(
        visit(tmp_path / "report.html", script, tmp_path)
    )
    assert not hidden
    assert languages == ["hi", "de"]
    assert cells == ["20", "20", "60", "100", "", ""]
    assert pairs == ["a </script>", "dog", "image: rot blau"]
    assert heads == ["eine", "Katze", "a", "</script>"]
    assert width == 4
    assert first == pytest.approx([0, 0.85 * 0.75])
    assert second == pytest.approx([0.85, 0])
    assert pressed == ["blau"]


@needs_browser
def test_a_browser_sorts_languages_and_leaves_the_means_below(tmp_path):
    write_report(tmp_path, full_report())
    script = """
      const table = document.querySelectorAll('table.sortable')[1];
      table.querySelector('th[data-column="0"] button').click();
      return JSON.stringify([...table.rows].map(row => row.cells[0].textContent));
    """
    assert json.loads(visit(tmp_path / "report.html", script, tmp_path)) == [
        "language", "R@1", "hi · 800", "de · 12,000", "mean of all", "mean of high-resource", "mean of low-resource",
    ]  # fmt: skip
