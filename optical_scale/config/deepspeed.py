"""The DeepSpeed dictionary is derived from typed fields, never written by hand."""

from typing import Any

from optical_scale.config.engine import Precision, StudentEngine, TeacherEngine
from optical_scale.config.objectives import names
from optical_scale.config.run import TrainConfig
from optical_scale.errors import ConfigError

# DeepSpeed 0.19.8 ignores an unknown top-level key without a word, so a misspelt one must be caught here.
_EXTRA_KEYS = frozenset(
    {
        "activation_checkpointing",
        "aio",
        "communication_data_type",
        "comms_logger",
        "compile",
        "data_types",
        "dump_state",
        "flops_profiler",
        "memory_breakdown",
        "prescale_gradients",
        "sparse_gradients",
        "wall_clock_breakdown",
        "zero_optimization",
    }
)

_DISK_ACCESS = {"block_size": 1 << 20, "queue_depth": 32, "overlap_events": True}
_NVME_BUFFERS = 3
_ALIGNMENT = 1024


def accumulation_steps(pairs_per_step: int, micro_batch_pairs: int, world_size: int) -> int:
    """Micro-batches per rank and step.

    Raises:
        ConfigError: the numbers do not divide; the message shows the arithmetic.
    """
    at_once = micro_batch_pairs * world_size
    if pairs_per_step % at_once:
        raise ConfigError(
            f"stream.pairs_per_step: {pairs_per_step} is not a multiple of micro_batch_pairs x processes = "
            f"{micro_batch_pairs} x {world_size} = {at_once}; set pairs_per_step to "
            f"{max(1, pairs_per_step // at_once) * at_once} or change micro_batch_pairs"
        )
    return pairs_per_step // at_once


def accumulation(config: TrainConfig, ranks: int) -> int:
    """What DeepSpeed is told. Under a budget the number varies, and 2 stands for more than one.

    Args:
        config: of a run with one tower.
        ranks: processes of the run.

    Raises:
        ConfigError: the micro-batches cannot be dealt to the processes.
    """
    how = config.stream
    if how.micro_batch_pairs is not None:
        return accumulation_steps(how.pairs_per_step, how.micro_batch_pairs, ranks)
    if how.lanes % ranks:
        raise ConfigError(
            f"stream.bucketing.lanes: {how.lanes} is not a multiple of {ranks} processes; set it to "
            f"{-(-how.lanes // ranks) * ranks}, or start a number of processes that divides it"
        )
    return 2


def check_batches(config: TrainConfig, ranks: int) -> None:
    """Refuse, before anything starts or waits in a queue, a batch that ``ranks`` processes cannot share or learn from.

    Raises:
        ConfigError: with the arithmetic.
    """
    for part in config.towers().values():
        accumulation(part, ranks)
        lists = names(config.objective) & ({"list_kl"} if part.stream.negatives else {"contrastive", "list_kl"})
        if lists and part.stream.micro_batch_pairs == 1 and ranks == 1:
            raise ConfigError(
                f"stream.micro_batch_pairs: {min(lists)} compares the pairs of a micro-batch with each other, and "
                "1 pair on 1 process has no other; set micro_batch_pairs to 2 or more"
            )


def derive_student(
    config: StudentEngine, *, micro_batch_pairs: int, accumulation: int, largest_share: int = 0
) -> dict[str, Any]:
    """The `deepspeed.initialize` configuration of the student.

    Args:
        config: the typed fields.
        micro_batch_pairs: of a rank.
        accumulation: micro-batches of a rank between updates.
        largest_share: elements of the largest parameter that one rank keeps; the buffers of `nvme` are as large.

    Raises:
        ConfigError: fields that exclude each other.
    """
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "reduce_bucket_size": config.bucket_elements,
        "overlap_comm": False,
    }
    if config.zero_stage == 3:
        zero |= _stage3(config.persistent_parameters, config.bucket_elements)
        if config.update_elements is not None:
            zero["sub_group_size"] = config.update_elements
    else:
        zero["allgather_bucket_size"] = config.bucket_elements
    if config.offload_optimizer != "none":
        if config.zero_stage < (3 if config.offload_optimizer == "nvme" else 1):
            raise ConfigError(
                f"student.engine.offload_optimizer: {config.offload_optimizer} needs zero_stage "
                f"{'3' if config.offload_optimizer == 'nvme' else '1 to 3'}; found {config.zero_stage}. Raise "
                "zero_stage or set it to none"
            )
        zero["offload_optimizer"] = {"device": config.offload_optimizer}
        if config.offload_optimizer == "nvme":
            # Weights, two moments and the gradient of one group at a time.
            zero["offload_optimizer"] |= {"nvme_path": _disk(config, "student"), "buffer_count": 4}
    zero |= _offload_parameters(config, "student", largest_share)
    derived = _common(config.precision, micro_batch_pairs) | {
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": config.clip_gradient,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if "nvme" in (config.offload_optimizer, config.offload_parameters):
        derived["aio"] = dict(_DISK_ACCESS)
    return _merge(derived, config.deepspeed_extra)


def derive_teacher(
    config: TeacherEngine, *, micro_batch_pairs: int, bucket_elements: int, largest_share: int = 0
) -> dict[str, Any]:
    """The `deepspeed.initialize` configuration of the frozen teacher (no optimizer, so stage 0 or 3 only)."""
    zero: dict[str, Any] = {"stage": config.zero_stage}
    if config.zero_stage == 3:
        zero |= _stage3(config.persistent_parameters, bucket_elements)
    zero |= _offload_parameters(config, "teacher", largest_share)
    derived = _common(config.precision, micro_batch_pairs) | {"zero_optimization": zero}
    return derived | ({"aio": dict(_DISK_ACCESS)} if config.offload_parameters == "nvme" else {})


def _offload_parameters(config: StudentEngine | TeacherEngine, side: str, largest_share: int) -> dict[str, Any]:
    if config.offload_parameters == "none":
        return {}
    if config.zero_stage != 3:
        raise ConfigError(
            f"{side}.engine.offload_parameters: needs zero_stage 3; found {config.zero_stage}. "
            "Set zero_stage to 3 or offload_parameters to none"
        )
    if config.offload_parameters == "cpu":
        return {"offload_param": {"device": "cpu"}}
    return {
        "offload_param": {
            "device": "nvme",
            "nvme_path": _disk(config, side),
            "buffer_count": _NVME_BUFFERS,
            "buffer_size": largest_share + _ALIGNMENT,
            "max_in_cpu": 0,
        },
        # Each parameter ahead would take one of the few buffers, each of the size of the largest parameter.
        "stage3_prefetch_bucket_size": 0,
        "stage3_max_live_parameters": 0,
        "stage3_max_reuse_distance": 0,
    }


def _disk(config: StudentEngine | TeacherEngine, side: str) -> str:
    """Each side has a folder of its own: DeepSpeed names its files by a counter that both would start at 0."""
    if config.nvme is None:
        raise ConfigError(
            f"{side}.engine.nvme: offloading to nvme needs a folder on a local disk; set it, for example to /tmp"
        )
    return str(config.nvme / side)


def _common(precision: Precision, micro_batch_pairs: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": micro_batch_pairs,
        "steps_per_print": 10**9,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
    }


def _stage3(persistent_parameters: int, bucket_elements: int) -> dict[str, Any]:
    return {
        "stage3_param_persistence_threshold": persistent_parameters,
        "stage3_prefetch_bucket_size": bucket_elements,
        "stage3_max_live_parameters": 50 * bucket_elements,
        "stage3_max_reuse_distance": 50 * bucket_elements,
        # DeepSpeed's own linear function rounds differently from torch's, and an exported model is run by torch's.
        "memory_efficient_linear": False,
    }


def _merge(
    derived: dict[str, Any], extra: dict[str, Any], path: str = "student.engine.deepspeed_extra"
) -> dict[str, Any]:
    merged = dict(derived)
    for key, value in extra.items():
        where = f"{path}.{key}"
        if path.endswith("deepspeed_extra") and key not in _EXTRA_KEYS:
            raise ConfigError(
                f"{where}: not one of the keys that may be added; known: {', '.join(sorted(_EXTRA_KEYS))}"
            )
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value, where)
        elif key in merged:
            raise ConfigError(
                f"{where}: already set from the typed fields to {merged[key]!r}; change the field instead"
            )
        else:
            merged[key] = value
    return merged
