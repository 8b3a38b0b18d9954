"""Real damage to real shards, under both policies."""

import io
from collections import Counter

import pytest
import torch
from PIL import Image

from optical_scale.backbones.vision import ImageTransform, Pixels
from optical_scale.errors import ShardError
from optical_scale.records import Caption, CaptionedImage, TextPair
from optical_scale.runtime.world import World
from optical_scale.shards.reader import ShardFolder
from optical_scale.shards.writer import write_shards
from optical_scale.stream.collate import PairCollator
from optical_scale.stream.loader import StreamLoader
from optical_scale.stream.mixing import Mixture
from optical_scale.stream.strand import make_strand, portions_of
from tests.unit.stream.support import COLLATE, characters

SHARD = "bitext-sw-000001.tar"


def text_folder(path):
    pairs = [TextPair(f"k-{i:02}", "sw", f"english {i}", f"swahili {i}", "c") for i in range(24)]
    write_shards(pairs, path, 6)
    return path


def remove(path):
    (path / SHARD).unlink()


def truncate(path):
    data = (path / SHARD).read_bytes()
    (path / SHARD).write_bytes(data[: len(data) // 2])


def corrupt(path):
    data = bytearray((path / SHARD).read_bytes())
    data[1024 + 600] ^= 0xFF  # in the second sample
    (path / SHARD).write_bytes(data)


def ruin_index(path):
    (path / f"{SHARD}.index").write_bytes(b"x" * (16 + 6 * 16))


def loader(path, policy, rank=0, size=1, workers=0, collate=COLLATE):
    sources = [ShardFolder(path).select("sw" if collate is COLLATE else "en")]
    settings = {"seed": 1, "pairs_per_step": 12, "micro_batch_pairs": 3, "policy": policy}
    return StreamLoader(
        [make_strand(sources, collate, Mixture(portions_of(sources)), **settings)],
        world=World(rank, size),
        workers=workers,
    )


DAMAGE = [
    (remove, "missing shard", set(range(6, 12))),
    (truncate, "truncated shard", set(range(6, 12))),
    (corrupt, "damaged sample", {7}),
    (ruin_index, "unreadable shard", set(range(6, 12))),
]


@pytest.mark.parametrize(("damage", "reason", "lost"), DAMAGE)
@pytest.mark.parametrize(("size", "workers"), [(1, 0), (2, 1), (4, 0)])
def test_skipping_loses_exactly_the_damaged_samples_and_counts_them(tmp_path, damage, reason, lost, size, workers):
    damage(text_folder(tmp_path / "s"))
    ranks = [loader(tmp_path / "s", "skip", rank, size, workers) for rank in range(size)]
    batches = [batch for rank in ranks for step in range(2) for batch in rank.take(step)]
    assert len(batches) == 8, "every rank keeps its number of micro-batches"
    assert sorted(key for batch in batches for key in batch.keys) == [f"k-{i:02}" for i in range(24) if i not in lost]
    assert Counter(why for batch in batches for why in batch.skipped) == {reason: len(lost)}
    assert all(len(batch.source.ids_BT) == max(1, len(batch.keys)) for batch in batches)
    for rank in ranks:
        rank.close()


@pytest.mark.parametrize(("damage", "reason", "lost"), DAMAGE)
def test_the_default_stops_at_the_first(tmp_path, damage, reason, lost):
    damage(text_folder(tmp_path / "s"))
    stream = loader(tmp_path / "s", "error")
    with pytest.raises(ShardError) as caught:
        [stream.take(step) for step in range(2)]
    assert caught.value.reason == reason
    assert SHARD in str(caught.value)


def test_a_micro_batch_without_any_good_sample_is_one_row_without_key(tmp_path):
    path = text_folder(tmp_path / "s")
    for shard in path.glob("*.tar"):
        shard.unlink()
    for batch in loader(path, "skip").take(0):
        assert (len(batch), batch.keys, batch.languages) == (0, (), ())
        assert batch.skipped == ("missing shard",) * 3
        assert len(batch.source.ids_BT) == 1


def test_bad_images_and_images_without_caption_are_told_apart(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    images = [
        CaptionedImage(f"i{n:02}", b"no image" if n in (3, 9) else file.getvalue(), "png", 4, 4, (caption,))
        for n in range(12)
        for caption in [Caption("de" if n == 5 else "en", "dog")]
    ]
    write_shards(images, tmp_path / "s", 5)
    transform = ImageTransform(Pixels(8), 4)
    collate = PairCollator(characters, transform_images=transform)
    batches = loader(tmp_path / "s", "skip", collate=collate).take(0)
    reasons = Counter(why for batch in batches for why in batch.skipped)
    assert reasons == {"bad image": 2, "unusable record": 1}
    assert sum(map(len, batches)) == 9
    blank = collate.blank()
    assert blank.target.pixels_BCHW.shape == (1, 3, 8, 8)
    assert torch.all(blank.target.pixels_BCHW == -1)
