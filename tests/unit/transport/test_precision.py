import threading

import pytest
import torch

from optical_scale.transport.precision import full_precision


def fail_inside():
    with full_precision(torch.device("cpu")):
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        raise KeyError("stop")


def test_settings_are_restored_after_an_error():
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(KeyError, match="stop"):
            fail_inside()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_threads_that_overlap_leave_the_setting_as_it_was():
    before = torch.backends.mkldnn.matmul.fp32_precision
    entered, leave = threading.Event(), threading.Event()

    def stay():
        with full_precision(torch.device("cpu")):
            entered.set()
            leave.wait(10)

    other = threading.Thread(target=stay)
    with full_precision(torch.device("cpu")):
        other.start()
        entered.wait(10)
    assert torch.backends.mkldnn.matmul.fp32_precision == "ieee", "the other thread is still inside"
    leave.set()
    other.join()
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_autocast_is_off_inside():
    x = torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with full_precision(torch.device("cpu")):
            assert (x @ x).dtype == torch.float32
