import re

import pytest

from optical_scale.engine.disk import require_space
from optical_scale.errors import EngineError


def test_space_counts_what_the_run_replaces(tmp_path):
    require_space(tmp_path / "disk", {"student": 1 << 20, "teacher": 1 << 20})
    assert {path.name for path in (tmp_path / "disk").iterdir()} == {"student", "teacher"}
    with pytest.raises(EngineError, match=r"student\.engine\.nvme: .* GiB of space, the run needs 1,048,576\.00 GiB"):
        require_space(tmp_path / "disk", {"student": 1 << 50})
    with (tmp_path / "disk" / "student" / "old.swp").open("wb") as sparse:
        sparse.truncate(1 << 42)
    require_space(tmp_path / "disk", {"student": 1 << 42})


@pytest.mark.parametrize("below", ["file/disk", "/proc/none", "/dev/null"])
def test_a_folder_that_cannot_be_is_named(tmp_path, below):
    (tmp_path / "file").touch()
    disk = tmp_path / below
    with pytest.raises(
        EngineError, match=rf"teacher\.engine\.nvme: {re.escape(str(disk))} cannot take offloaded files"
    ):
        require_space(disk, {"teacher": 1})
