"""Which fields may differ between a run and its continuation."""

from typing import Any

from optical_scale.errors import ResumeError

# Everything that does not change the gradient of a step may change: where things are stored, measured and computed.
_MAY_CHANGE = (
    "run",
    "evaluation",
    "evaluation_times",
    "checkpoints",
    "logging",
    "alarms",
    "optimization.steps",
    "optimization.epochs",
    "stream.workers",
    "stream.read_ahead_mib",
    "stream.tokens",
    "stream.micro_batch_pairs",
    "stream.images.micro_batch_pairs",
    "stream.bucketing.lengths",
    "stream.faults",
    "stream.cache",
    "teacher.engine",
    "teacher.cache.layers",
    "student.engine.zero_stage",
    "student.engine.activation_checkpointing",
    "student.engine.packed",
    "student.engine.offload_optimizer",
    "student.engine.offload_parameters",
    "student.engine.nvme",
    "student.engine.persistent_parameters",
    "student.engine.bucket_elements",
)


def check_resumable(saved: dict[str, Any], present: dict[str, Any], where: str = "the run folder") -> None:
    """Compare two dumped configurations, the first of ``where``.

    Raises:
        ResumeError: naming every field that differs and may not.
    """
    differences = [
        f"{path}: was {old!r}, is {new!r}"
        for path, old, new in _differences(saved, present, "")
        if not any(path == allowed or path.startswith(f"{allowed}.") for allowed in _MAY_CHANGE)
    ]
    if differences:
        raise ResumeError(
            f"{where} holds another run; these fields may not change when a run continues:\n  "
            + "\n  ".join(differences)
            + "\nUse another `run` folder for the new settings, or restore the old values to continue."
        )


def _differences(old: Any, new: Any, path: str) -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            where = f"{path}.{key}" if path else str(key)
            found += _differences(old.get(key), new.get(key), where)
        return found
    return [] if old == new else [(path, old, new)]
