"""The sets of real bitext that are out of step, and no others."""

import os
from pathlib import Path

import pytest

from optical_scale.corpora.alignment import find_misaligned
from optical_scale.corpora.moses import MosesCorpus

DATA = Path(os.environ.get("OPTICAL_SCALE_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not (DATA / "tico19").is_dir(), reason="no real data beside the checkout"),
]


def test_tico19_is_out_of_step_in_somali_and_partly_in_french_only():
    found = {}
    for folder in sorted((DATA / "tico19").glob("en-*")):
        language = folder.name.removeprefix("en-")
        sides = (folder / f"tico19.{folder.name}.{code}" for code in ("en", language))
        for stretch in find_misaligned(MosesCorpus("t", *sides, language)):
            found[language, stretch.shift] = stretch.first, stretch.last
    assert found == {
        ("fr", None): ("t-fr-00000501", "t-fr-00000700"),
        ("so", -1): ("t-so-00000801", "t-so-00001900"),
    }


@pytest.mark.parametrize("language", ["de", "fr", "cs"])
def test_multi30k_is_in_step(language):
    raw = DATA / "multi30k" / "task1" / "raw"
    english, other = (next(raw.glob(f"train.{code}*")) for code in ("en", language))
    assert list(find_misaligned(MosesCorpus("m", english, other, language))) == []
