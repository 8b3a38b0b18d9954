import shutil

import pytest

from tests.unit.export.checkpoints import checkpoints, step_folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Run folders that must not be changed, by name."""
    return checkpoints(tmp_path_factory.getbasetemp() / "trained")


@pytest.fixture
def damaged(runs, tmp_path):
    """A copy of a checkpoint to break."""
    return shutil.copytree(step_folder(runs["stage3"]), tmp_path / "run" / "checkpoints" / "step_000002")
