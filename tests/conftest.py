"""What holds for all tests, however they are started."""

import os

import pytest

# Before torch is imported. A network reloaded in a process with more threads sums in another order, and the tests of
# exports compare bits with what a process with one thread computed.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# They train a dozen tiny students once per process, which takes longer than the tests.
TRAINED = ("tests/unit/export/", "tests/unit/engine/test_consolidate.py", "tests/unit/cli/test_export.py")


def pytest_collection_modifyitems(items):
    """Give them one process where pytest-xdist divides the tests (``--dist loadgroup``)."""
    for item in items:
        if item.nodeid.startswith(TRAINED):
            item.add_marker(pytest.mark.xdist_group("trained"))
