import os
import signal

import pytest

from optical_scale.runtime.collectives import any_rank
from optical_scale.runtime.stopping import StopRequests
from tests.support.processes import run_ranks


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted(number):
    before = signal.getsignal(number)
    with StopRequests() as requests:
        assert not requests.asked
        os.kill(os.getpid(), number)
        assert requests.asked
    assert signal.getsignal(number) is before


def test_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="inside"), StopRequests():
        raise RuntimeError("inside")
    assert signal.getsignal(signal.SIGTERM) is before


def only_one_rank_is_asked():
    with StopRequests() as requests:
        assert not any_rank(requests.asked)
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        assert any_rank(requests.asked)


@pytest.mark.distributed
def test_one_rank_decides_for_all():
    run_ranks("tests.unit.runtime.test_stopping", "only_one_rank_is_asked")
