import re
import subprocess
import sys

import pytest

from optical_scale.cli.main import VERBS

HEAVY = ("torch", "transformers", "deepspeed", "webdataset", "matplotlib")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_fresh_process_has_examples_and_loads_nothing_heavy(verb):
    command = [sys.executable, "-X", "importtime", "-m", "optical_scale", verb, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, _, examples = done.stdout.partition("\nexamples:\n")
    assert f"  optical-scale {verb}" in examples
    loaded = set(re.findall(r"\|\s*([\w.]+)$", done.stderr, flags=re.MULTILINE))
    assert "optical_scale.cli.main" in loaded
    assert loaded & set(HEAVY) == set()
