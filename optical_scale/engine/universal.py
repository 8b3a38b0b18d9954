"""A student checkpoint rewritten for another number of processes or another ZeRO stage."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from optical_scale.engine.frozen import FROZEN_FILE
from optical_scale.engine.student import TAG
from optical_scale.engine.towers import VISION
from optical_scale.errors import CheckpointError
from optical_scale.runtime.files import folder_appears

_BELOW_3, _AT_3 = "mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"


def write_universal(checkpoint: Path, output: Path, *, before: int, stage: int) -> None:
    """Turn the ZeRO shards of ``checkpoint`` into one folder per parameter, which any number of ranks can load.

    This is DeepSpeed's universal checkpoint: weights, both moments of AdamW and the schedule, all in fp32, so it needs
    three times the bytes of the fp32 weights on disk. Runs on one rank, in a process of its own.

    Args:
        checkpoint: a step folder.
        output: appears when it is complete; left as it is if it exists.
        before: ZeRO stage, 1 to 3, that it was written at.
        stage: that it will be loaded at, 1 to 3.

    Raises:
        CheckpointError: DeepSpeed's converter failed; its last words are in the message.
    """
    if output.exists():
        return
    with folder_appears(output) as temporary:
        for below in ("", VISION):
            if (checkpoint / below).is_dir():
                folder = temporary / below / TAG
                _convert(checkpoint / below, folder)
                if (before == 3) != (stage == 3):
                    _change_form(folder, to_3=stage == 3)


def _convert(tower: Path, output: Path) -> None:
    command = [
        sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder", str(tower / TAG),
        "--output_folder", str(output), "--num_extract_workers", "1", "--num_merge_workers", "1",
        "--inject_missing_state",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join((done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-3:])
        raise CheckpointError(f"{tower} could not be rewritten for other processes or another stage: {words}")
    if (tower / TAG / FROZEN_FILE).is_file():
        shutil.copyfile(tower / TAG / FROZEN_FILE, output / FROZEN_FILE)


def _change_form(folder: Path, *, to_3: bool) -> None:
    """What DeepSpeed 0.19.8 writes from stage 3 has another form than what it writes below, and each reads its own."""
    old, new = (_BELOW_3, _AT_3) if to_3 else (_AT_3, _BELOW_3)
    state = _read(folder / old)
    # Trained weights lie in folders of their own, and frozen ones are those that the run was started with.
    state["module"] = {name: state["module"][name] for name in state["buffer_names"]}
    torch.save(state, folder / new)
    shapes = {name: shape for group in state["param_shapes"] for name, shape in group.items()}

    path = folder / "zero" / "optimizer_state.pt"
    found = _read(path)
    scaling = {name: found[name] for name in ("loss_scaler", "dynamic_loss_scale", "overflow")}
    if to_3:
        step = _read(folder / "zero" / next(iter(shapes)) / "step.pt")
        groups = {"state": {0: {"step": step}}, "param_groups": found["param_groups"]}
        torch.save(scaling | {"optimizer_state_dict": groups}, path)
    else:
        kept = found["optimizer_state_dict"]
        step = kept["state"][0]["step"]
        torch.save(scaling | {"ds_version": state["ds_version"], "param_groups": kept["param_groups"]}, path)
    for name, shape in shapes.items():
        below = folder / "zero" / name
        for key in ("fp32", "exp_avg", "exp_avg_sq"):
            values = _read(below / f"{key}.pt")
            if to_3:
                torch.save(values["param"].flatten(), below / f"{key}.pt")
            else:
                whole = values.flatten()[: shape.numel()].clone()  # shares of ranks may end with padding
                torch.save({"cat_dim": 0, "param": whole.view(shape)}, below / f"{key}.pt")
        if not to_3:
            torch.save(step, below / "step.pt")


def _read(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=False)
