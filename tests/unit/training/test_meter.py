import time

import pytest
import torch

from optical_scale.backbones.flops import Flops
from optical_scale.batch import PairBatch, PatchBatch, TokenBatch
from optical_scale.runtime.devices import peak_flops
from optical_scale.runtime.phases import Phase
from optical_scale.training.meter import Meter, Work, speed_of


def texts(*lengths):
    attention_BT = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return TokenBatch(attention_BT.long(), attention_BT, attention_BT)


def batch(target):
    return PairBatch(texts(3, 5), target, ("sw", "tl"), ("a", "b"))


def test_padding_counts_nothing_and_both_sides_count():
    meter = Meter()
    meter.add([batch(texts(2, 4)), batch(texts(1, 1))], loss=1.0)
    time.sleep(0.01)
    values = meter.close(10, {})
    assert values["tokens_per_second_per_rank"] / values["pairs_per_second_per_rank"] == pytest.approx(24 / 4)
    assert 10 * 0.01 / 3600 < values["hours_left"] < 1
    assert values["memory_gib"] > 0.01
    assert not {"mfu", "objective_share", "loss_texts"} & set(values)


def test_the_objective_has_a_share_and_waiting_another():
    meter = Meter()
    meter.add([batch(texts(1, 1))], loss=1.0)
    meter.wait(0.5)
    values = meter.close(0, {"objective": Phase(1.0), "student": Phase(3.0)})
    assert values["objective_share"] == 0.25
    assert values["data_wait"] > 0.5


def test_towers_are_told_apart_once_both_were_seen():
    meter = Meter()
    meter.add([batch(texts(1, 1))], loss=1.0)
    meter.add([batch(PatchBatch(torch.zeros(2, 3, 4, 4)))], loss=3.0)
    values = meter.close(1, {})
    assert (values["loss_texts"], values["loss_images"]) == (1.0, 3.0)


def test_work_is_that_of_the_networks_that_ran():
    small = Flops(weights=10, trained=10, layers=1, width=2)
    images = Flops(weights=7, trained=7, layers=1, width=2, patches=5)
    work = Work(teacher=Flops(weights=100, trained=0, layers=1, width=2), texts=small, images=images, peak=1.0)
    teacher = 2 * 100 * 8 + 4 * 2 * (9 + 25)
    assert work.flops(batch(texts(2, 4))) == teacher + 3 * (2 * 10 * 6 + 4 * 2 * (4 + 16))
    assert work.flops(batch(PatchBatch(torch.zeros(2, 3, 4, 4)))) == teacher + 3 * (2 * 7 * 10 + 4 * 2 * 50)
    alone = Work(texts=small, both_sides=True)
    assert alone.flops(batch(texts(2, 4))) == small.forward([3, 5, 2, 4]) + small.backward([3, 5, 2, 4])


def test_the_share_of_the_peak_is_of_time():
    meter = Meter(work=Work(texts=Flops(10, 10, 1, 2), peak=1e12))
    meter.add([batch(texts(2, 4))], loss=1.0)
    values = meter.close(0, {})
    flops_per_token = values["mfu"] * 1e12 / values["tokens_per_second_per_rank"]
    assert flops_per_token == pytest.approx(Work(texts=Flops(10, 10, 1, 2)).flops(batch(texts(2, 4))) / 14)


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("GTX", None)],
)
def test_peaks_of_known_devices(name, peak):
    assert peak_flops(name) == peak


def test_the_bar_tells_the_speed_in_short():
    values = {"loss": 1.0, "tokens_per_second_per_rank": 12345.6, "mfu": 0.413, "data_wait": 0.02, "memory_gib": 61.27}
    assert speed_of(values) == ["12,346 tokens/s", "MFU 41%", "data 2%", "61.3 GiB"]
