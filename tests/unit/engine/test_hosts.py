import pytest

from optical_scale.engine.hosts import ask, read_hostfile
from optical_scale.errors import EngineError


def test_hosts_and_their_processes_in_order(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# two machines\n\nnode-02 slots=4\n  node-01   slots=8  # the larger one\n")
    assert list(read_hostfile(path).items()) == [("node-02", 4), ("node-01", 8)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a slots=2\na slots=2\n", "line 2: a is named twice; give it one line"),
        ("a slots=two\n", r"line 1: found 'a slots=two'; expected `HOST slots=NUMBER`"),
        ("a slots=0\n", "line 1: found 'a slots=0'"),
        ("a\n", "line 1: found 'a'"),
        ("# nobody\n", "names no host"),
    ],
)
def test_a_wrong_hostfile_is_refused_with_the_line(tmp_path, text, words):
    path = tmp_path / "hosts"
    path.write_text(text)
    with pytest.raises(EngineError, match=words):
        read_hostfile(path)


def test_a_missing_hostfile_is_no_run_on_this_machine_alone(tmp_path):
    with pytest.raises(EngineError, match=r"nowhere cannot be read: No such file"):
        read_hostfile(tmp_path / "nowhere")


def test_every_host_that_does_not_answer_is_named(monkeypatch, tmp_path):
    """Two names that no machine has; ssh itself may be missing here."""
    answers = ask(["a.invalid", "b.invalid"])
    assert list(answers) == ["a.invalid", "b.invalid"]
    assert all(answer.problem and not answer.versions for answer in answers.values())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask(["a.invalid"])["a.invalid"].problem == "ssh is not on PATH here"
