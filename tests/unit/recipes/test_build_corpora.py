import pytest

from optical_scale.config.convert import Filters
from optical_scale.corpora.duplicates import KeptPairs
from optical_scale.corpora.filters import DropCounts, filtered
from optical_scale.corpora.seen import SeenDigests
from optical_scale.recipes.build_corpora import build_digests, build_rules
from optical_scale.records import TextPair

PAIRS = [
    ("a man is walking his dog", "mwanamume anatembea na mbwa wake", None),
    ("A man is walking his dog!", "mwanamume anatembea, na mbwa wake", "near_duplicate"),
    ("a man is walking his dog", "mwanamume anatembea na mbwa wake", "duplicate"),
    ("mwanamke anasoma kitabu chake", "the woman is reading her book", "swapped"),
    ("एक आदमी अपने कुत्ते को घुमा रहा है", "the man is walking with his dog", "swapped"),
    ("the woman is reading a book", "Die Frau liest gerade ein Buch", "language"),
    ("Die Frau liest gerade ein Buch", "mwanamke anasoma kitabu", "language_en"),
]


def reasons(filters, folder):
    counts = DropCounts()
    pairs = [TextPair(f"k{i}", "sw", source, target, str(i)) for i, (source, target, _) in enumerate(PAIRS)]
    config = Filters.model_validate(filters)
    kept = list(filtered(pairs, build_rules(config, folder), counts))
    digests = build_digests(config)
    with SeenDigests(len(pairs) * digests.per_pair) as seen:
        found, _ = KeptPairs(seen, digests.exact).judge([digests(pair) for pair in kept])
    judged = {int(pair.corpus): reason for pair, reason in zip(kept, found, strict=True)}
    return judged | {int(corpus): reason for corpus, _, reason in counts.dropped}


def test_every_new_rule_gives_its_reason(tmp_path):
    pytest.importorskip("py3langid")
    filters = {"language_id": {}, "drop_swapped": True, "near_duplicates": {}}
    assert reasons(filters, tmp_path) == {i: reason for i, (_, _, reason) in enumerate(PAIRS)}


def test_without_a_model_scripts_still_tell_swapped_sides(tmp_path):
    assert reasons({"drop_swapped": True}, tmp_path) == {0: None, 1: None, 2: "duplicate", 3: None, 4: "swapped"} | {
        5: None,
        6: None,
    }


def test_near_duplicates_cover_equal_pairs_too(tmp_path):
    found = reasons({"drop_duplicates": False, "near_duplicates": {"bands": 0}}, tmp_path)
    assert [found[i] for i in range(3)] == [None, "near_duplicate", "near_duplicate"]
