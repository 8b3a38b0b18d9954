import pytest

from optical_scale.errors import CheckpointError
from optical_scale.export.source import check_files, choose_checkpoint


def test_newest_complete_checkpoint_of_a_run(tmp_path):
    for step, complete in ((0, True), (100, True), (200, False)):
        folder = tmp_path / "checkpoints" / f"step_{step:06d}"
        folder.mkdir(parents=True)
        if complete:
            (folder / "COMPLETE").touch()
    assert choose_checkpoint(tmp_path).name == "step_000100"
    assert choose_checkpoint(tmp_path / "checkpoints").name == "step_000100"
    assert choose_checkpoint(tmp_path / "checkpoints" / "step_000000").name == "step_000000"
    with pytest.raises(CheckpointError, match=r"step_000200 has no COMPLETE file.*export another"):
        choose_checkpoint(tmp_path / "checkpoints" / "step_000200")


def test_foreign_and_missing_folders(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint; expected checkpoints/step_"):
        choose_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="nowhere is not a folder"):
        choose_checkpoint(tmp_path / "nowhere")


def test_sound_checkpoint(damaged):
    check_files(damaged)


def test_all_damage_is_named(damaged):
    shards = sorted((damaged / "student").glob("*.pt"))
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-10])
    text = (damaged / "train_state.json").read_text()
    (damaged / "train_state.json").write_text(text.replace("2", "3"))
    with pytest.raises(CheckpointError) as caught:
        check_files(damaged)
    message = str(caught.value)
    assert f"student/{shards[0].name} is missing" in message
    assert f"student/{shards[1].name} has" in message
    assert "train_state.json has changed" in message


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_damaged_list_of_files(damaged, content):
    (damaged / "files.json").unlink()
    if content is not None:
        (damaged / "files.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"files.json cannot be read|assets/config.json is not recorded"):
        check_files(damaged)
