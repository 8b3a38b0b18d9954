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
    (tmp_path / "checkpoints" / "step_1000000").mkdir()
    (tmp_path / "checkpoints" / "step_1000000" / "COMPLETE").touch()
    assert choose_checkpoint(tmp_path).name == "step_1000000"


def test_foreign_and_missing_folders(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint of this project; expected checkpoints/step_"):
        choose_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="nowhere is not a folder"):
        choose_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "a model of transformers, which needs no export"),
        ("global_step10/mp_rank_00_model_states.pt", r"plain DeepSpeed \(zero_to_fp32.py converts that\)"),
        ("epoch=1.ckpt", "Lightning"),
        (".metadata", "distributed checkpoint of torch"),
        ("model.safetensors", "weights without a description"),
    ],
)
def test_folders_of_other_frameworks(tmp_path, file, message):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(CheckpointError, match=rf"holds .*{message}, and no checkpoint of this project"):
        choose_checkpoint(tmp_path)


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
