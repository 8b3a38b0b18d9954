import pytest

from optical_scale.corpora.scripts import ScriptShare
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair

SCRIPTS = {"am": ["Ethi"], "ja": ["Jpan"], "sr": ["Cyrl", "Latn"], "zh-Hans": ["Hans"]}


@pytest.mark.parametrize(
    ("language", "source", "target", "reason"),
    [
        ("am", "a dog", "ውሻ", None),
        ("am", "a dog", "a dog", "script"),
        ("am", "ውሻ", "a dog", "swapped"),
        ("am", "Windows 95", "Windows 95 ውሻ ነው ውሻ ነው", None),
        ("am", "1, 2", "3!", None),
        ("ja", "a dog", "犬カいぬ", None),
        ("sr", "a dog", "пас", None),
        ("sr", "пас", "pas", "script"),
        ("zh-Hans", "a dog", "ውሻ", "script"),
        ("sw", "ውሻ", "ውሻ", None),
    ],
)
def test_each_side_in_its_script(language, source, target, reason):
    assert ScriptShare(0.5, SCRIPTS)(TextPair("k", language, source, target)) == reason


def test_an_unknown_script_is_refused():
    with pytest.raises(CorpusError, match="Klingon is no script of ISO 15924"):
        ScriptShare(0.5, {"tlh": ["Klingon"]})
