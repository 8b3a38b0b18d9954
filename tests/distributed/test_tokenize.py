"""`optical-scale tokenize` with several processes, started as from a shell."""

import json

import pytest

from optical_scale.cli.main import main
from tests.support.runs import Workshop

pytestmark = pytest.mark.distributed


def test_the_verb_with_several_processes(tmp_path, capsys):
    workshop = Workshop(tmp_path)
    path = str(workshop.config("a"))
    assert main(["tokenize", path, f"stream.tokens={tmp_path / 'ids'}", "--processes", "2"]) == 0
    assert "96 pairs tokenised" in capsys.readouterr().out
    facts = json.loads((tmp_path / "ids" / "tiny-de" / "tokens.json").read_text())
    assert (facts["pairs"], len(facts["checksums"])) == (48, 1)
