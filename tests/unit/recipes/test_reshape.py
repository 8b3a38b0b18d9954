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


@pytest.mark.parametrize("when", ["then", "now", "both"])
def test_a_run_offloaded_to_files_is_not_continued(workshop, tmp_path, when):
    plain = load(TrainConfig, workshop.config("plain"))
    engine = {"zero_stage": 3, "offload_optimizer": "nvme", "nvme": str(tmp_path / "disk")}
    files = load(TrainConfig, workshop.config("files", student={"engine": engine}))
    saved = checkpoint(tmp_path / "step_000004", plain if when == "now" else files)
    with pytest.raises(CheckpointError, match="DeepSpeed does not restore the optimizer"):
        reshape(saved, plain if when == "then" else files, World())


def test_shards_that_fit_stay_as_they_are(workshop, tmp_path):
    config = load(TrainConfig, workshop.config("fits"))
    assert reshape(checkpoint(tmp_path / "step_000004", config), config, World()) is None
    assert reshape(None, config, World()) is None
