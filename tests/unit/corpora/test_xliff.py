import gzip

import pytest

from optical_scale.corpora.xliff import XliffCorpus
from optical_scale.errors import CorpusError

VERSION_1 = """<?xml version="1.0" encoding="UTF-8"?>
<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">
 <file original="a.html" source-language="en-US" target-language="sw"><body>
  <group id="g"><trans-unit id="1"><source>A <g id="1">red</g> dog<x id="2"/>.</source>
   <seg-source><mrk mtype="seg">A red dog.</mrk></seg-source>
   <target state="final">Mbwa <bpt id="3">&lt;b&gt;</bpt>mwekundu<ept id="3">&lt;/b&gt;</ept>.</target>
   <alt-trans><source>A dog</source><target>Paka</target></alt-trans></trans-unit></group>
  <trans-unit id="2"><source>Untranslated</source></trans-unit></body></file>
 <file original="b.html" source-language="en-US" target-language="fr"><body>
  <trans-unit id="1"><source>A dog.</source><target>Un chien.</target></trans-unit></body></file>
 <file original="c.html" source-language="sw_TZ" target-language="en"><body>
  <trans-unit id="1"><source>Paka.</source><target>A   cat.</target></trans-unit></body></file>
</xliff>"""

VERSION_2 = """<x:xliff version="2.0" srcLang="en" trgLang="pt-BR" xmlns:x="urn:oasis:names:tc:xliff:document:2.0">
 <x:file id="f"><x:unit id="1"><x:originalData><x:data id="d">&lt;b&gt;</x:data></x:originalData>
  <x:segment><x:source>One <x:pc id="1" dataRefStart="d">dog</x:pc>.</x:source><x:target>Um cão.</x:target></x:segment>
  <x:ignorable><x:source> </x:source><x:target> </x:target></x:ignorable>
  <x:segment><x:source>Two.</x:source><x:target>Dois.</x:target></x:segment></x:unit></x:file>
</x:xliff>"""


def corpus(tmp_path, text, language, **options):
    path = tmp_path / "x.xlf"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return XliffCorpus("docs", path, language, **options)


def test_version_1_in_both_directions_without_markup_and_suggestions(tmp_path):
    pairs = corpus(tmp_path, VERSION_1, "sw")
    assert pairs.count() == 3
    assert [(pair.key, pair.source, pair.target) for pair in pairs] == [
        ("docs-sw-00000001", "A red dog.", "Mbwa mwekundu."),
        ("docs-sw-00000002", "Untranslated", ""),
        ("docs-sw-00000004", "A cat.", "Paka."),
    ]
    assert [pair.target for pair in corpus(tmp_path, VERSION_1, "fr")] == ["Un chien."]


def test_version_2_with_prefixes_and_compressed(tmp_path):
    pairs = corpus(tmp_path, gzip.compress(VERSION_2.encode()), "pt-BR", code="pt")
    assert [(pair.source, pair.target) for pair in pairs] == [("One dog.", "Um cão."), ("Two.", "Dois.")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VERSION_1, r"x.xlf: no unit between `en` and `am`; the file has en-US to fr, en-US to sw, sw_TZ to en"),
        ("<xliff version='1.2'/>", r"the file has no units"),
        (VERSION_1[:-20], r"x.xlf:\d+: not well-formed XML"),
        (VERSION_1.replace("<?xml", "<!--x--><?xml"), r"x.xlf:1: not well-formed XML"),
        ('<!DOCTYPE x [<!ENTITY e "eeee">]><xliff>&e;</xliff>', "entities can make a small file expand"),
    ],
)
def test_mistakes(tmp_path, text, message):
    with pytest.raises(CorpusError, match=message):
        corpus(tmp_path, text, "am").count()
