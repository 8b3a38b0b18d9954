"""Stored token ids: the same batches, and nothing stale or damaged."""

import pickle
import re

import numpy as np
import pytest

from optical_scale.config.loading import load
from optical_scale.config.run import TrainConfig
from optical_scale.errors import ConfigError, StreamError
from optical_scale.recipes.build_inputs import text_tokenizer
from optical_scale.recipes.build_stream import loader
from optical_scale.recipes.tokenize import tokenize
from optical_scale.runtime.world import World
from optical_scale.stream import tokens
from optical_scale.stream.tokens import TokenisedPair
from tests.support.corpus import write_shards, write_tokenizer
from tests.support.runs import Workshop
from tests.unit.stream.support import content

GIVEN = ["stream.bucketing={look_ahead: 32}", "stream.temperature=3"]


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "PART", 20)
    return Workshop(tmp_path)


def config(workshop, stored=True, *given):
    where = [f"stream.tokens={workshop.folder / 'ids'}"] if stored else []
    return load(TrainConfig, workshop.config("a"), [*where, *given])


def open_stream(workshop, given, rank=0, size=1):
    read = text_tokenizer(given.student.backbone)
    lengths = workshop.folder / f"lengths-{size}"
    return loader(given.stream, read, {"pairs": read}, world=World(rank, size), seed=1, lengths=lengths)


@pytest.mark.parametrize("given", [[], GIVEN])
def test_the_same_batches_bit_for_bit(workshop, given):
    assert tokenize(config(workshop)) == 96
    plain, stored = (open_stream(workshop, config(workshop, stored, *given)) for stored in (False, True))
    for step in range(15):
        for mine, theirs in zip(stored.take(step), plain.take(step), strict=True):
            assert content(mine) == content(theirs)
            for side in ("source", "target"):
                for name in ("ids_BT", "attention_BT", "mask_BT"):
                    one, other = getattr(getattr(mine, side), name), getattr(getattr(theirs, side), name)
                    assert one.dtype == other.dtype
                    assert one.equal(other)
    assert stored.state() == plain.state()
    # A run may begin to use stored ids, or stop to.
    resumed = open_stream(workshop, config(workshop, True, *given))
    resumed.restore(plain.state())
    assert [content(batch) for batch in resumed.take(15)] == [content(batch) for batch in plain.take(15)]


def test_pairs_know_their_ids_and_sources_can_be_sent_to_workers(workshop):
    tokenize(config(workshop))
    read = text_tokenizer(config(workshop).student.backbone)
    for source in open_stream(workshop, config(workshop)).strands.strands[0].sources:
        source[0]
        sent = pickle.loads(pickle.dumps(source))
        for index in (0, 19, 20, len(source) - 1):
            pair = sent[index]
            assert isinstance(pair, TokenisedPair)
            assert np.array_equal(pair.source_ids, read.encode([pair.source])[0])
            assert np.array_equal(pair.target_ids, read.encode([pair.target])[0])


def test_only_what_is_missing_or_stale_is_written(workshop):
    tokenize(config(workshop))
    assert tokenize(config(workshop)) == 0
    (workshop.folder / "ids" / "tiny-sw" / "tokens.json").unlink()
    assert tokenize(config(workshop)) == 48
    assert tokenize(config(workshop, True, "student.backbone.max_tokens=9")) == 96


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"ids/tiny-de holds no token ids of tiny:de@.*; run `optical-scale tokenize`"),
        ("limit", r"are stale: student's tokenizer was (\w+), is (?!\1)\w+; run `optical-scale tokenize`"),
        ("tokenizer", r"stale: teacher's tokenizer was \w+, is \w+; student's tokenizer was"),
        ("shards", r"stale: shards was tiny:de@\w+, is tiny:de@\w+; pairs was 48, is 50"),
    ],
)
def test_ids_of_something_else_are_refused(workshop, change, message):
    given = []
    if change != "missing":
        tokenize(config(workshop))
    if change == "limit":
        given = ["student.backbone.max_tokens=9"]
    if change == "tokenizer":
        for path in sorted((workshop.folder / "tokenizer").iterdir()):
            path.unlink()
        (workshop.folder / "tokenizer").rmdir()
        write_tokenizer(workshop.folder / "tokenizer", ("en", "de"))
    if change == "shards":
        write_shards(workshop.folder / "other", 50)
        given = [f"stream.sources=[{{shards: {workshop.folder / 'other'}}}]"]
    changed = config(workshop, True, *given)
    teacher = text_tokenizer(changed.teacher.backbone)
    prepare = {"pairs": text_tokenizer(changed.student.backbone)}
    with pytest.raises(StreamError, match=message):
        loader(changed.stream, teacher, prepare, world=World(), seed=1, lengths=workshop.folder / "l")


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_ids_are_refused_when_they_are_read(workshop, damage):
    tokenize(config(workshop))
    path = workshop.folder / "ids" / "tiny-sw" / "000001.ids.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.unlink()
    if damage != "remove":
        path.write_bytes(data if damage == "flip" else data[:-40])
    stream = open_stream(workshop, config(workshop))
    with pytest.raises(StreamError, match=re.escape(str(path)) + ".*run `optical-scale tokenize`"):
        [stream.take(step) for step in range(12)]


def test_a_configuration_without_a_folder_is_refused(workshop):
    with pytest.raises(ConfigError, match="tokens is not set"):
        tokenize(config(workshop, False))


def test_two_sources_of_one_name_are_refused(workshop):
    write_shards(workshop.folder / "other", 50)
    both = f"stream.sources=[{{shards: {workshop.shards}}}, {{shards: {workshop.folder / 'other'}}}]"
    with pytest.raises(ConfigError, match="would both lie in"):
        tokenize(config(workshop, True, both))
