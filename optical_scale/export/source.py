"""The checkpoint an export reads: chosen, complete and undamaged."""

import json
from pathlib import Path

from optical_scale.backbones.encoder import CONTRACT_FILE
from optical_scale.engine.student import TAG
from optical_scale.engine.towers import VISION
from optical_scale.errors import CheckpointError
from optical_scale.runtime.files import sha256
from optical_scale.runtime.log import progress

_NEEDED = ("assets/config.json", f"assets/{CONTRACT_FILE}", "reference.safetensors", "train_state.json", "config.yaml")

_THEIRS = {
    "a model of transformers, which needs no export": "config.json",
    "a checkpoint of plain DeepSpeed (zero_to_fp32.py converts that)": "global_step*/*_model_states.pt",
    "a checkpoint of Lightning": "*.ckpt",
    "a distributed checkpoint of torch": ".metadata",
    "weights without a description": "*.safetensors",
}
"""What people may take for a checkpoint of a run, and a pattern that gives it away."""


def choose_checkpoint(path: Path) -> Path:
    """The step folder that ``path`` is, or the newest complete one of the run that ``path`` is.

    Raises:
        CheckpointError: no such folder, no checkpoint in it, or only unfinished ones.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a folder; expected a run folder or a step folder below its checkpoints/")
    if (path / "files.json").is_file() or path.name.startswith("step_"):
        steps = [path]
    else:
        steps = sorted(
            [*path.glob("checkpoints/step_*"), *path.glob("step_*")], key=lambda step: (len(step.name), step.name)
        )
    complete = [step for step in steps if (step / "COMPLETE").is_file()]
    if complete:
        return complete[-1]
    if steps:
        names = ", ".join(step.name for step in steps)
        raise CheckpointError(
            f"{path}: {names} has no COMPLETE file, so saving was interrupted; export another checkpoint, or continue "
            "the run with the same train command"
        )
    theirs = [what for what, name in _THEIRS.items() if any(path.glob(name))]
    raise CheckpointError(
        f"{path} holds {theirs[0] + ', and ' if theirs else ''}no checkpoint of this project; expected "
        "checkpoints/step_000100/ or so, as `optical-scale train` writes them"
    )


def check_files(checkpoint: Path) -> None:
    """Compare every file with what was recorded when the checkpoint was sealed.

    Sizes are compared everywhere, hashes outside of DeepSpeed's shards: those are mostly optimizer state, and the
    tensors that an export reads out of them carry checksums of their own.

    Args:
        checkpoint: a step folder, or that of the second tower in it, which is recorded with the rest.

    Raises:
        CheckpointError: a file is missing, shorter, longer or changed; all of them are named.
    """
    if checkpoint.name == VISION:
        checkpoint = checkpoint.parent
    try:
        recorded = json.loads((checkpoint / "files.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}/files.json cannot be read: {error}; use another checkpoint") from error
    problems = [f"{name} is not recorded" for name in _NEEDED if name not in recorded]
    for name, facts in progress(recorded.items(), "checking", total=len(recorded), unit="file"):
        path = checkpoint / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != facts["bytes"]:
            problems.append(f"{name} has {path.stat().st_size:,} bytes, was written with {facts['bytes']:,}")
        elif TAG not in Path(name).parts and sha256(path) != facts["sha256"]:
            problems.append(f"{name} has changed since it was written")
    if problems:
        raise CheckpointError(
            f"{checkpoint} is damaged: {'; '.join(problems)}; copy it again from where it is whole, or use another one"
        )
