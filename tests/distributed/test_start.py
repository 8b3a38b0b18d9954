import subprocess
import sys

import pytest

from tests.support.processes import ROOT, environment


@pytest.mark.distributed
def test_a_process_that_never_comes_is_told_in_time():
    code = (
        "import datetime\n"
        "from optical_scale.engine.start import start\n"
        "from optical_scale.errors import EngineError\n"
        "from optical_scale.runtime.world import World\n"
        "try: start(World.from_env(), seed=0, patience=datetime.timedelta(seconds=2))\n"
        "except EngineError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(0, 2), cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert done.stdout.startswith("not all 2 processes met at 127.0.0.1:"), done.stderr
    assert "within 0:00:02" in done.stdout
