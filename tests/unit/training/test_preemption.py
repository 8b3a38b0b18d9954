import os
import signal

import pytest

from optical_scale.training.preemption import Preemption
from tests.support.processes import run_ranks


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_becomes_a_decision(number):
    before = signal.getsignal(number)
    with Preemption() as preemption:
        assert not preemption.agreed()
        os.kill(os.getpid(), number)
        assert preemption.agreed()
        assert preemption.agreed()
    assert signal.getsignal(number) is before


def test_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="inside"), Preemption():
        raise RuntimeError("inside")
    assert signal.getsignal(signal.SIGTERM) is before


def only_one_rank_is_asked():
    with Preemption() as preemption:
        assert not preemption.agreed()
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.agreed()


@pytest.mark.distributed
def test_one_rank_decides_for_all():
    run_ranks("tests.unit.training.test_preemption", "only_one_rank_is_asked")
