import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from optical_scale.backbones.encoder import Encoder
from optical_scale.backbones.fresh import build_backbone
from optical_scale.engine.consolidate import StoredModel
from optical_scale.errors import CheckpointError
from tests.unit.export.checkpoints import checkpoints, step_folder


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    runs = checkpoints(tmp_path_factory.getbasetemp() / "trained")
    return {name: step_folder(run) for name, run in runs.items()}


def read_all(checkpoint):
    model = StoredModel(checkpoint)
    tensors = {name: stored.read() for stored in model.tensors for name in stored.names}
    model.finish()
    return tensors


@pytest.mark.parametrize("name", ["stage0", "stage1", "stage2", "stage3"])
def test_tensors_are_the_trained_module(steps, name):
    # stages 2 and 3 were trained by two processes; the word embeddings are frozen everywhere
    architecture = json.loads((steps[name] / "assets" / "config.json").read_text())
    encoder = Encoder(build_backbone(architecture), 32, 8).eval()
    encoder.load_state_dict(read_all(steps[name]), strict=True)
    reference = load_file(steps[name] / "reference.safetensors")
    with torch.no_grad():
        x_BTD = encoder(input_ids=reference["ids_BT"], attention_mask=reference["attention_BT"].long())
    assert torch.equal(x_BTD, reference["x_BTD"])


def test_16_bit_run_yields_fp32_master_weights(steps):
    tensors = read_all(steps["bf16"])
    assert "backbone.embeddings.word_embeddings.weight" in tensors
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    weight = tensors["backbone.encoder.layer.0.output.dense.weight"]
    assert not torch.equal(weight, weight.bfloat16().float())


@pytest.fixture
def broken(steps, tmp_path):
    return {name: shutil.copytree(steps[name], tmp_path / name) for name in ("stage0", "stage1", "stage3")}


@pytest.mark.parametrize("name", ["stage0", "stage1", "stage3"])
def test_truncated_shard(broken, name):
    for path in (broken[name] / "student").glob("*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"student.* cannot be read"):
        StoredModel(broken[name])


def test_missing_optimizer_shards_at_stage_3(broken):
    for path in (broken["stage3"] / "student").glob("*_optim_states.pt"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"no \*_optim_states.pt files"):
        StoredModel(broken["stage3"])


def test_tensor_without_elements(broken):
    path = broken["stage0"] / "student" / "mp_rank_00_model_states.pt"
    states = torch.load(path, weights_only=False)
    states["module"]["head.weight"] = torch.empty(0)
    torch.save(states, path)
    with pytest.raises(CheckpointError, match=r"head\.weight has 0 elements"):
        StoredModel(broken["stage0"])


def test_foreign_folder(tmp_path):
    with pytest.raises(CheckpointError, match="holds no"):
        StoredModel(tmp_path)


def test_a_rank_without_its_shard(broken):
    next((broken["stage3"] / "student").glob("*rank_1_*_optim_states.pt")).unlink()
    with pytest.raises(CheckpointError, match="holds the shards of 1 ranks, 2 wrote it"):
        StoredModel(broken["stage3"])


def test_a_changed_byte_of_a_weight(broken):
    path = next((broken["stage3"] / "student").glob("*rank_1_*_optim_states.pt"))
    weight = read_all(broken["stage3"])["backbone.encoder.layer.1.output.dense.weight"].flatten()
    data = bytearray(path.read_bytes())
    data[data.index(weight[-32:].numpy().tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged: the checksum"):
        read_all(broken["stage3"])


def test_another_frameworks_checkpoint(tmp_path):
    (tmp_path / "student").mkdir()
    torch.save({"state_dict": {"w": torch.ones(2)}}, tmp_path / "student" / "mp_rank_00_model_states.pt")
    with pytest.raises(CheckpointError, match="was not written by this project's training"):
        StoredModel(tmp_path)
    (tmp_path / "student" / "mp_rank_01_model_states.pt").touch()
    with pytest.raises(CheckpointError, match="tensor-parallel run"):
        StoredModel(tmp_path)
