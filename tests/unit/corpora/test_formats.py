"""What the formats do beside what the conformance test asks of all."""

import gzip
import json
import zipfile

import pytest

from optical_scale.corpora.bible import BibleCorpus
from optical_scale.corpora.jsonl import JsonLinesCorpus
from optical_scale.corpora.opus import OpusCorpus
from optical_scale.corpora.parallel import ParallelCorpus
from optical_scale.corpora.parquet import ParquetCorpus
from optical_scale.corpora.squad import SquadCorpus
from optical_scale.errors import CorpusError


def jsonl(folder, text):
    (folder / "x").write_text(text)
    return JsonLinesCorpus("j", folder / "x", "sw", "pair.en", "sw")


def test_json_lines_keep_blank_and_null_as_blank_pairs(tmp_path):
    pairs = jsonl(tmp_path, '{"pair": {"en": " a "}, "sw": null}\n\n{"pair": {"en": "c"}, "sw": "d", "id": 3}')
    assert pairs.count() == 3
    assert [(pair.source, pair.target) for pair in pairs] == [("a", ""), ("", ""), ("c", "d")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no field 'pair.en'; expected 'pair', found list"),
        ('{"pair": {"de": "x"}}', "no field 'pair.en'; expected 'en', found 'de'"),
        ('{"pair": {"en": 3}, "sw": ""}', "field 'pair.en' is int 3; expected a string"),
        ('{"pair": {"en": "\\ud800"}, "sw": ""}', "field 'pair.en' has no UTF-8 form"),
    ],
)
def test_json_lines_name_file_and_line(tmp_path, line, message):
    with pytest.raises(CorpusError, match=f"x:2: {message}"):
        list(jsonl(tmp_path, '{"pair": {"en": "a"}, "sw": "b"}\n' + line))


def opus(folder, members, code=""):
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return OpusCorpus("o", folder / "x.zip", "pt-BR", code)


def test_opus_members_are_read_in_place(tmp_path):
    members = {"README": "x", "../../C.en-pt_br.en": "a\nb\n", "C.en-pt_br.pt_br": gzip.compress(b"x\ny\n")}
    pairs = opus(tmp_path, members, "pt_br")
    assert [(pair.key, pair.source, pair.target) for pair in pairs] == [
        ("o-pt-br-00000001", "a", "x"),
        ("o-pt-br-00000002", "b", "y"),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"], "nothing is unpacked"


def test_opus_mistakes(tmp_path):
    with pytest.raises(CorpusError, match=r"x\.zip: 0 members end in \.pt-BR; .* It holds C\.en, C\.pt_br; give"):
        opus(tmp_path, {"C.en": "a\n", "C.pt_br": "b\n"}).count()
    with pytest.raises(CorpusError, match=r"C\.en has 1 lines, .*x\.zip!C\.pt has 2; .*!C\.pt:2 has no partner: 'c'"):
        opus(tmp_path, {"C.en": "a\n", "C.pt": "b\nc\n"}, "pt").count()
    content = (tmp_path / "x.zip").read_bytes()
    at = content.index(b"C.pt") + 4
    (tmp_path / "x.zip").write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    with pytest.raises(CorpusError, match="damaged or cut short"):
        OpusCorpus("o", tmp_path / "x.zip", "pt-BR", "pt").count()


def test_verses_are_joined_by_id_and_none_is_lost(tmp_path):
    def write(code, **verses):
        seg = "".join(f'<seg id="b.{verse}" type="verse">\n {text}\n</seg>' for verse, text in verses.items())
        (tmp_path / code).write_text(f"<cesDoc><p>stray</p>{seg}</cesDoc>")

    write("en", A="a", B="b", C="c")
    write("sw", C="z", B="y\n y", D="w")
    pairs = BibleCorpus("b", tmp_path / "en", tmp_path / "sw", "sw")
    assert {pair.key: (pair.source, pair.target) for pair in pairs} == {
        "b-sw-b_a": ("a", ""),
        "b-sw-b_b": ("b", "y y"),
        "b-sw-b_c": ("c", "z"),
        "b-sw-b_d": ("", "w"),
    }
    write("sw", X="x")
    with pytest.raises(CorpusError, match=r"no verse of .*en \(b\.A, …\) is in .*sw \(b\.X, …\)"):
        BibleCorpus("b", tmp_path / "en", tmp_path / "sw", "sw").count()
    (tmp_path / "sw").write_text('<c>\n<seg id="1">a</seg>\n<seg id="1">b</seg></c>')
    with pytest.raises(CorpusError, match="sw:3: a <seg> with the id '1' of an earlier one"):
        BibleCorpus("b", tmp_path / "en", tmp_path / "sw", "sw").count()


def squad(*questions):
    return json.dumps(
        {"data": [{"paragraphs": [{"context": "c", "qas": [{"id": name, "question": "q"} for name in questions]}]}]}
    )


def test_questions_without_partner_and_repeated_ids(tmp_path):
    pairs = SquadCorpus("x", tmp_path / "en", tmp_path / "de", "de", ("questions",))
    (tmp_path / "en").write_text(squad("a", "b"))
    (tmp_path / "de").write_text(squad("b", "a"))
    assert [pair.key for pair in pairs] == ["x-de-q-a", "x-de-q-b"]
    (tmp_path / "de").write_text(squad("a"))
    with pytest.raises(CorpusError, match=r"have no partner; the first is q-b, which is in .*en and not in .*de"):
        SquadCorpus("x", tmp_path / "en", tmp_path / "de", "de").count()
    (tmp_path / "de").write_text(squad("a", "a"))
    with pytest.raises(CorpusError, match="the question id 'a' occurs twice"):
        SquadCorpus("x", tmp_path / "en", tmp_path / "de", "de").count()


def test_parallel_sets_share_or_repeat_the_english_side(tmp_path):
    for name, text in {"dev.en": "a\n", "dev.x": "x\n", "dev.y": "y\n", "en-y.en": "A\n"}.items():
        (tmp_path / name).write_text(text)
    shared = ParallelCorpus("p", tmp_path, "dev.en", "dev.{code}", {"sw": "x", "tl": "y"})
    assert [(pair.language, pair.source, pair.target) for pair in shared] == [("sw", "a", "x"), ("tl", "a", "y")]
    assert next(iter(ParallelCorpus("p", tmp_path, "en-{code}.en", "dev.{code}", {"tl": "y"}))).source == "A"
    with pytest.raises(CorpusError, match=r"expected at least one language, and `\{code\}`"):
        ParallelCorpus("p", tmp_path, "dev.en", "dev.x", {"sw": "x"})


def test_parquet_nulls_types_and_missing_columns(tmp_path):
    arrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = {"t": [{"en": "a"}, None, {"en": None}], "sw": ["x", "y", None], "n": [1, 2, 3]}
    files.write_table(arrow.table(rows), tmp_path / "x")
    pairs = ParquetCorpus("q", tmp_path / "x", "sw", "t.en", "sw")
    assert pairs.count() == 3
    assert [(pair.source, pair.target) for pair in pairs] == [("a", "x"), ("", "y"), ("", "")]
    with pytest.raises(CorpusError, match=r"no column 'de'; it has t\.en, sw, n"):
        ParquetCorpus("q", tmp_path / "x", "sw", "de", "sw").count()
    with pytest.raises(CorpusError, match="row 1, column 'n' is int 1; expected a string"):
        list(ParquetCorpus("q", tmp_path / "x", "sw", "n", "sw"))
