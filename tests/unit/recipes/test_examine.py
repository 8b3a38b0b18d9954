import logging

import pytest

from optical_scale.config.convert import ConvertConfig
from optical_scale.errors import CorpusError
from optical_scale.recipes.build_corpora import build_corpus
from optical_scale.recipes.examine import examined


def setting(folder, **options):
    """A corpus of 600 lines whose other side lost line 200."""
    lengths = [1 + (i * i * 31 + i * 7) % 53 for i in range(600)]
    (folder / "a.en").write_text("".join("word " * n + "end\n" for n in lengths))
    moved = lengths[:199] + lengths[200:] + [5]
    (folder / "a.so").write_text("".join("eray " * n + "dhamaad\n" for n in moved))
    corpus = {"format": "moses", "name": "a", "source": "a.en", "target": "a.so", "language": "brx"}
    config = ConvertConfig.model_validate({"output": "out", "folder": folder, "corpora": [corpus], **options})
    return config, [build_corpus(corpus, config.folder) for corpus in config.corpora]


def examine(config, corpora, **options):
    with examined(config, corpora, **options):
        pass


@pytest.mark.parametrize("aside", [False, True])
def test_misalignment_is_a_warning_an_error_or_nothing(tmp_path, caplog, aside):
    caplog.set_level(logging.WARNING, logger="optical_scale")
    with examined(*setting(tmp_path), aside=aside):
        assert len(caplog.messages) == (0 if aside else 1)
    (warning,) = caplog.messages
    assert "a (brx): 400 pairs, about a-brx-00000201 to a-brx-00000600, look shifted by -1 lines" in warning
    with pytest.raises(CorpusError, match=r"shifted by -1 lines .*; repair the files"):
        examine(*setting(tmp_path, misaligned="error"), aside=aside)
    caplog.clear()
    examine(*setting(tmp_path, misaligned="ignore"))
    assert caplog.messages == []


def test_languages_that_cannot_be_identified_are_named_once(tmp_path, caplog):
    pytest.importorskip("py3langid")
    caplog.set_level(logging.WARNING, logger="optical_scale")
    examine(*setting(tmp_path, misaligned="ignore", filters={"language_id": {}}))
    (warning,) = caplog.messages
    assert "no label for them: brx;" in warning
