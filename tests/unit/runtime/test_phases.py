import time

import pytest
import torch

from optical_scale.runtime.phases import Phases, peak_bytes, reset_peak


def test_parts_add_up_until_they_are_read():
    phases = Phases()
    for _ in range(2):
        with phases("sleep"):
            time.sleep(0.02)
    with phases("nothing"):
        pass
    done = phases.close()
    assert list(done) == ["sleep", "nothing"]
    assert done["sleep"].seconds >= 0.04
    assert done["nothing"].seconds < 0.02
    assert phases.close() == {}


def test_the_peak_belongs_to_the_part_that_reached_it():
    reset_peak()
    if peak_bytes() == 0:
        pytest.skip("this system does not tell the memory of a process")
    phases = Phases(memory=True)
    with phases("small"):
        torch.ones(1 << 20)
    with phases("large"):
        torch.ones(64 << 20)
    done = phases.close()
    assert done["large"].peak_bytes - done["small"].peak_bytes > 200 << 20
