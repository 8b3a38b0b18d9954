import pytest

from optical_scale.errors import EngineError
from optical_scale.runtime.world import World

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE")


@pytest.fixture
def from_env(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)

    def read(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        return World.from_env()

    return read


def test_a_lone_process(from_env):
    assert from_env() == World(0, 1, 0, 1)
    assert World().is_main


def test_launchers(from_env):
    assert from_env(RANK=5, WORLD_SIZE=8, LOCAL_RANK=1, LOCAL_WORLD_SIZE=4) == World(5, 8, 1, 4)
    assert not World(5, 8, 1, 4).is_main


def test_deepspeed_names_the_local_size_its_own_way(from_env):
    assert from_env(RANK=3, WORLD_SIZE=4, LOCAL_RANK=1, LOCAL_SIZE=2) == World(3, 4, 1, 2)


def test_one_node_is_assumed_without_a_local_size(from_env):
    assert from_env(RANK=1, WORLD_SIZE=2, LOCAL_RANK=1) == World(1, 2, 1, 2)


@pytest.mark.parametrize("numbers", [(2, 2, 0, 1), (-1, 2, 0, 1), (0, 2, 1, 1), (0, 1, 0, 2), (0, 0, 0, 0)])
def test_impossible_worlds(numbers):
    with pytest.raises(EngineError, match=rf"rank {numbers[0]} of {numbers[1]} .* is impossible"):
        World(*numbers)
