"""Who this process is among all processes of a run."""

import os
from dataclasses import dataclass

from optical_scale.errors import EngineError


@dataclass(frozen=True, slots=True)
class World:
    """Ranks of one run; constructible by hand, so that pure code can be tested for any topology.

    Attributes:
        rank: this process, 0 ≤ rank < size.
        size: number of processes over all nodes.
        local_rank: this process on its node; selects the GPU.
        local_size: processes on this node.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.size and 0 <= self.local_rank < self.local_size <= self.size):
            raise EngineError(
                f"rank {self.rank} of {self.size} (local {self.local_rank} of {self.local_size}) is impossible; "
                "check RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE set by the launcher"
            )

    @classmethod
    def from_env(cls) -> "World":
        """Read the variables that deepspeed, torchrun and srun wrappers set; a lone process when none is set."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        return cls(
            rank=int(os.environ.get("RANK", "0")),
            size=size,
            local_rank=local_rank,
            local_size=int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", size))),
        )

    @property
    def is_main(self) -> bool:
        """True on the one process that writes shared files."""
        return self.rank == 0
