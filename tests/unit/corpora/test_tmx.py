import tracemalloc

import pytest

from optical_scale.corpora.tmx import TmxCorpus
from optical_scale.errors import CorpusError

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<tmx version="1.4"><body>\n'


def unit(*variants):
    return "<tu>" + "".join(f'<tuv xml:lang="{code}"><seg>{text}</seg></tuv>' for code, text in variants) + "</tu>\n"


def corpus(folder, *units, head=HEAD, tail="</body></tmx>", encoding="utf-8", **changes):
    (folder / "x.tmx").write_bytes((head + "".join(units) + tail).encode(encoding))
    return TmxCorpus(**{"name": "t", "path": folder / "x.tmx", "language": "sw"} | changes)


def texts(pairs):
    return [(pair.key, pair.source, pair.target) for pair in pairs]


def test_units_become_pairs_and_none_is_lost(tmp_path):
    pairs = corpus(
        tmp_path,
        unit(("EN-US", "one"), ("de", "eins"), ("sw-KE", "moja")),
        unit(("en", "only"), ("de", "nur")),
        unit(("sw", "tatu"), ("sw", "3"), ("en", "three")),
        unit(("enm", "oon"), ("sw", "moja")),
    )
    assert pairs.count() == 5
    assert texts(pairs) == [
        ("t-sw-00000001", "one", "moja"),
        ("t-sw-00000002", "only", ""),
        ("t-sw-00000003", "three", "tatu"),
        ("t-sw-00000003-2", "three", "3"),
        ("t-sw-00000004", "", "moja"),
    ]


def test_markup_is_left_out_and_highlighted_text_stays(tmp_path):
    text = 'a <bpt i="1">&lt;b&gt;<sub>title</sub></bpt><hi>bold</hi><ept i="1">x</ept>\n  &amp; <ph/>plain &#x41;'
    assert texts(corpus(tmp_path, unit(("en", text), ("sw", "s"))))[0][1] == "a bold & plain A"


def test_the_declared_encoding_counts(tmp_path):
    head = HEAD.replace("UTF-8", "UTF-16")
    assert texts(corpus(tmp_path, unit(("en", "é"), ("sw", "ü")), head=head, encoding="utf-16"))[0][1:] == ("é", "ü")


def test_a_language_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"none of 1 units has .* in `sw`; the file has en, swh"):
        corpus(tmp_path, unit(("en", "a"), ("swh", "b"))).count()
    assert corpus(tmp_path, unit(("en", "a"), ("swh", "b")), code="swh").count() == 1


BOMB = '<!DOCTYPE tmx [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>\n<tmx><body>'
FILE = '<!DOCTYPE tmx [<!ENTITY f SYSTEM "file:///etc/passwd">]>\n<tmx><body>'


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("&b;", {"head": BOMB}, r"x\.tmx:1: defines or uses the entity 'a'"),
        ("&f;", {"head": FILE}, r"x\.tmx:1: defines or uses the entity 'f'"),
        ("&nbsp;", {}, r"x\.tmx:4: defines or uses the entity 'nbsp'"),
        ("a", {"tail": ""}, r"x\.tmx:5: not well-formed XML \(no element found"),
        ("<b>", {}, r"x\.tmx:4: not well-formed XML \(mismatched tag"),
        ("a" * (1 << 20) + "bb", {}, r"x\.tmx:4: a text of more than 1,048,576 characters"),
        ("a", {"head": '<?xml version="1.0" encoding="klingon"?><tmx><body>'}, r"x\.tmx:1: .*klingon|unknown encoding"),
    ],
)
def test_mistakes_and_attacks_name_file_and_line(tmp_path, text, changes, message):
    with pytest.raises(CorpusError, match=message):
        list(corpus(tmp_path, unit(("en", text), ("sw", "b")), **changes))


def test_a_variant_without_language(tmp_path):
    with pytest.raises(CorpusError, match=r"x\.tmx:4: <tuv> without xml:lang"):
        corpus(tmp_path, "<tu><tuv><seg>a</seg></tuv></tu>").count()


def test_memory_does_not_grow_with_the_file(tmp_path):
    pairs = corpus(tmp_path, unit(("en", "word " * 40), ("sw", "neno " * 40)) * 6_000)  # 3 MB
    tracemalloc.start()
    assert sum(1 for _ in pairs) == 6_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_500_000
