"""Which tests share a process where pytest-xdist divides them (``--dist loadgroup``)."""

import pytest

# They train a dozen tiny students once per process, which takes longer than the tests.
TRAINED = ("tests/unit/export/", "tests/unit/engine/test_consolidate.py", "tests/unit/cli/test_export.py")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid.startswith(TRAINED):
            item.add_marker(pytest.mark.xdist_group("trained"))
