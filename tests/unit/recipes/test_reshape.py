import pytest

from optical_scale.config.loading import dump, load
from optical_scale.config.run import TrainConfig
from optical_scale.errors import CheckpointError
from optical_scale.recipes.reshape import reshape
from optical_scale.runtime.world import World
from tests.support.runs import Workshop


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("reshape"))


def checkpoint(folder, config):
    folder.mkdir()
    (folder / "config.yaml").write_text(dump(config), encoding="utf-8")
    (folder / "random_00000.pt").touch()
    return folder


@pytest.fixture
def configs(workshop, tmp_path):
    engine = {"zero_stage": 3, "offload_optimizer": "nvme", "nvme": str(tmp_path / "disk")}
    plain = load(TrainConfig, workshop.config("plain"))
    return plain, load(TrainConfig, workshop.config("files", student={"engine": engine}))


@pytest.mark.parametrize("when", ["then", "now"])
def test_a_run_does_not_change_to_files_or_from_them(configs, tmp_path, when):
    plain, files = configs
    saved = checkpoint(tmp_path / "step_000004", plain if when == "now" else files)
    with pytest.raises(CheckpointError, match=r"offload_optimizer: \w+ .* has \w+ and none; a run cannot change"):
        reshape(saved, plain if when == "then" else files, World())


def test_shards_in_files_are_for_as_many_processes(configs, tmp_path):
    _, files = configs
    saved = checkpoint(tmp_path / "step_000004", files)
    assert reshape(saved, files, World()) is None
    (saved / "random_00001.pt").touch()
    with pytest.raises(CheckpointError, match=r"by 2 processes .* this run has 1 process at 3; with `nvme`"):
        reshape(saved, files, World())


def test_shards_that_fit_stay_as_they_are(workshop, tmp_path):
    config = load(TrainConfig, workshop.config("fits"))
    assert reshape(checkpoint(tmp_path / "step_000004", config), config, World()) is None
    assert reshape(None, config, World()) is None


def test_a_checkpoint_of_another_model_is_refused_with_its_fields(workshop, tmp_path):
    config = load(TrainConfig, workshop.config("mine"))
    wide = {"backbone": workshop.backbone(0.0) | {"head": 8}}
    saved = checkpoint(tmp_path / "step_000004", load(TrainConfig, workshop.config("wide", student=wide)))
    with pytest.raises(
        CheckpointError, match=r"step_000004 holds another run; (?s:.*)student\.backbone\.head: was 8, is"
    ):
        reshape(saved, config, World())
