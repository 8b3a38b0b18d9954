"""Real checkpoints of tiny students, trained once per test session by DeepSpeed in processes of their own."""

import functools
import sys
from pathlib import Path

from tests.support.processes import finish, start

SCRIPT = Path(__file__).with_name("write_checkpoint.py")
ALONE = [
    "stage0:0:fp32:text:8",
    "vision:1:fp32:vision:8",
    "bf16:2:bf16:text:0",
    "stage1:1:fp32:words:8",
    "lora0:0:fp32:lora:8",
    "clip:0:fp32:clip:8",
    "siglip:1:fp32:siglip:8",
    "dinov2:0:fp32:dinov2:8",
    "clip_text:0:fp32:clip_text:8",
]
IN_PAIRS = ["stage3:3:fp32:text:8", "stage2:2:fp32:text:8", "lora3:3:fp32:lora:8", "lora2:2:bf16:lora:0"]


@functools.cache
def checkpoints(folder: Path) -> dict[str, Path]:
    """Run folders below ``folder``, by name; nobody may change them."""
    command = [sys.executable, SCRIPT, folder]
    finish([*start([*command, *ALONE]), *start([*command, *IN_PAIRS], size=2)], timeout=600)
    return {name: folder / name for name in (run.split(":")[0] for run in [*ALONE, *IN_PAIRS])}


def step_folder(run: Path) -> Path:
    """The one checkpoint of a run."""
    return run / "checkpoints" / "step_000002"
