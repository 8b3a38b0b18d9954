"""What holds for all tests, however they are started."""

import importlib.util
import os

import pytest

# Before torch is imported. A network reloaded in a process with more threads sums in another order, and the tests of
# exports compare bits with what a process with one thread computed.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# As tests/unit/transport/test_triton.py sets it.
if os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton"):
    from tests.support.interpreter import search_once

    search_once()

# They train a dozen tiny students once per process, which takes longer than the tests.
TRAINED = ("tests/unit/export/", "tests/unit/engine/test_consolidate.py", "tests/unit/cli/test_export.py")

# Half a minute each: begun last, one would run alone while the other processes have nothing left.
LONGEST = ("tests/unit/transport/test_triton.py::test_kernels_in_the_interpreter", "tests/realdata/")


# First, because pytest-xdist reads the mark in the same hook; not with pytest 9.2, which has lost what it writes to.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What belongs together gets one process where pytest-xdist divides the tests, and the longest come first."""
    for item in items:
        if item.nodeid.startswith(TRAINED):
            item.add_marker(pytest.mark.xdist_group("trained"))
    items.sort(key=lambda item: (not item.nodeid.startswith(LONGEST), not item.nodeid.startswith(TRAINED)))
