"""A student checkpoint rewritten for another number of processes."""

import shutil
import subprocess
import sys
from pathlib import Path

from optical_scale.engine.frozen import FROZEN_FILE
from optical_scale.engine.student import TAG
from optical_scale.engine.towers import VISION
from optical_scale.errors import CheckpointError
from optical_scale.runtime.files import folder_appears


def write_universal(checkpoint: Path, output: Path) -> None:
    """Turn the ZeRO shards of ``checkpoint`` into one folder per parameter, which any number of ranks can load.

    This is DeepSpeed's universal checkpoint: weights, both moments of AdamW and the schedule, all in fp32, so it needs
    three times the bytes of the fp32 weights on disk. Runs on one rank, in a process of its own.

    Args:
        checkpoint: a step folder written at ZeRO stage 1 to 3.
        output: appears when it is complete; left as it is if it exists.

    Raises:
        CheckpointError: DeepSpeed's converter failed; its last words are in the message.
    """
    if output.exists():
        return
    with folder_appears(output) as temporary:
        _convert(checkpoint, temporary)
        if (checkpoint / VISION).is_dir():
            _convert(checkpoint / VISION, temporary / VISION)


def _convert(tower: Path, output: Path) -> None:
    command = [
        sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder", str(tower / TAG),
        "--output_folder", str(output / TAG), "--num_extract_workers", "1", "--num_merge_workers", "1",
        "--inject_missing_state",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join((done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-3:])
        raise CheckpointError(f"{tower} could not be rewritten for another number of processes: {words}")
    if (tower / TAG / FROZEN_FILE).is_file():
        shutil.copyfile(tower / TAG / FROZEN_FILE, output / TAG / FROZEN_FILE)
