import numpy as np
import pytest
import torch.distributed as dist

from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.config.stream import Stream
from optical_scale.errors import ConfigError
from optical_scale.recipes.build_stream import collator, sources, tokenizers
from optical_scale.recipes.count_tokens import document_frequencies
from optical_scale.runtime.world import World
from optical_scale.stream.tokens import TokenisedSource, parts_of, write_facts, write_part
from tests.support.corpus import write_shards, write_tokenizer
from tests.support.processes import run_ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counted")
    write_shards(folder / "shards", 1500)
    write_tokenizer(folder / "tokenizer")
    return folder


def opened(folder):
    tokenize = TextTokenizer.load(folder / "tokenizer", 24)
    stream = Stream.model_validate(
        {"sources": [{"shards": str(folder / "shards")}], "pairs_per_step": 8, "micro_batch_pairs": 8}
    )
    found = sources(stream, "bitext")
    return tokenize, found, collator(tokenize, tokenize)[1]


def tables(folder, found=None, world=None):
    tokenize, plain, collate = opened(folder)
    options = {"tolerant": False, "world": world or World(), "device": "cpu"}
    sides = document_frequencies(found or plain, collate, tokenize, tokenize, **options)
    return {f"{number} {tag}": table for number, side in enumerate(sides) for tag, table in side.tables.items()}


def test_both_sides_are_counted_by_their_own_tokenizers_and_languages(folder):
    tokenize, found, _ = opened(folder)
    counted = tables(folder)
    assert set(counted) == {"0 en", "1 sw", "1 de"}
    for source in found:
        rows = [set(row.tolist()) for row in tokenize([pair.target for pair in source]).ids_BT]
        token = int(tokenize([source[0].target]).ids_BT[0, 1])
        expected = np.log((len(rows) + 2) / (1 + sum(token in row for row in rows)))
        assert counted[f"1 {source.language}"][token] == pytest.approx(expected, rel=1e-6)


def test_stored_token_ids_give_the_same_tables(folder, tmp_path):
    tokenize, found, _ = opened(folder)
    known = tokenizers(tokenize, tokenize)
    for source in found:
        write_facts(tmp_path, source, known, [write_part(tmp_path, source, known, part) for part in parts_of(source)])
    stored = tables(folder, [TokenisedSource(source, tmp_path, known) for source in found])
    for name, table in tables(folder).items():
        assert (stored[name] == table).all()


def compare_ranks(folder):
    from pathlib import Path

    found = tables(Path(folder), world=World(dist.get_rank(), dist.get_world_size()))
    expected = np.load(Path(folder) / "alone.npz")
    assert all((found[name] == expected[name]).all() for name in expected)


@pytest.mark.distributed
def test_two_ranks_have_the_tables_of_one(folder):
    np.savez(folder / "alone.npz", **tables(folder))
    run_ranks("tests.unit.recipes.test_count_tokens", "compare_ranks", folder)


def test_a_language_without_data_is_refused_by_its_key(folder):
    stream = {"sources": [{"shards": str(folder / "shards"), "languages": ["sw", "fr"]}], "pairs_per_step": 8}
    with pytest.raises(ConfigError, match=r"^stream.sources.0.languages: .*nothing in language `fr`; it has de, sw"):
        sources(Stream.model_validate(stream | {"micro_batch_pairs": 8}), "bitext")
