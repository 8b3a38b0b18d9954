import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from optical_scale.config.deepspeed import accumulation_steps, check_batches, derive_student, derive_teacher
from optical_scale.config.engine import StudentEngine, TeacherEngine
from optical_scale.config.objectives import Objective
from optical_scale.errors import ConfigError
from tests.unit.config.test_run import train

GOLDEN = Path(__file__).parents[2] / "golden" / "deepspeed"

STUDENTS = {
    "student_stage0": StudentEngine(zero_stage=0),
    "student_stage1_bf16": StudentEngine(zero_stage=1, precision="bf16", offload_optimizer="cpu"),
    "student_stage2_fp16": StudentEngine(zero_stage=2, precision="fp16", clip_gradient=0.5, bucket_elements=1_000_000),
    "student_stage3": StudentEngine(),
    "student_stage3_offload": StudentEngine(
        offload_optimizer="cpu",
        offload_parameters="cpu",
        persistent_parameters=0,
        deepspeed_extra={"zero_optimization": {"sub_group_size": 1_000_000}, "wall_clock_breakdown": True},
    ),
}
TEACHERS = {
    "teacher_stage0_bf16": TeacherEngine(zero_stage=0, precision="bf16"),
    "teacher_stage3_offload": TeacherEngine(offload_parameters="cpu"),
}


def derived(name):
    if name in STUDENTS:
        return derive_student(STUDENTS[name], micro_batch_pairs=16, accumulation=4)
    return derive_teacher(TEACHERS[name], micro_batch_pairs=16, bucket_elements=2_000_000)


every_case = pytest.mark.parametrize("name", [*STUDENTS, *TEACHERS])


@every_case
def test_the_derived_dictionary_is_frozen(name):
    # To accept an intended change, write json.dumps(derived(name), indent=2) to the golden file and review its diff.
    assert derived(name) == json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def test_no_golden_file_is_forgotten():
    assert {path.stem for path in GOLDEN.glob("*.json")} == {*STUDENTS, *TEACHERS}


@every_case
def test_deepspeed_reads_it_as_meant(name, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.config import DeepSpeedConfig

    config = derived(name)
    read = DeepSpeedConfig(json.loads(json.dumps(config)))
    engine = (STUDENTS | TEACHERS)[name]
    assert read.zero_optimization_stage == engine.zero_stage
    assert read.train_micro_batch_size_per_gpu == 16
    assert read.gradient_accumulation_steps == (4 if name in STUDENTS else 1)
    assert (read.bfloat16_config.enabled, read.float16_config.enabled) == (
        engine.precision == "bf16",
        engine.precision == "fp16",
    )
    zero = read.zero_config
    assert (zero.offload_param is not None) == (engine.offload_parameters == "cpu")
    if engine.zero_stage == 3:
        assert zero.param_persistence_threshold == engine.persistent_parameters
        assert zero.memory_efficient_linear is False
    if name in STUDENTS:
        assert read.gradient_clipping == engine.clip_gradient
        assert zero.reduce_bucket_size == engine.bucket_elements
        assert (zero.offload_optimizer is not None) == (engine.offload_optimizer == "cpu")
        assert read.zero_allow_untested_optimizer is True
    if name == "student_stage3_offload":
        assert zero.sub_group_size == 1_000_000
        assert read.wall_clock_breakdown is True


def test_every_key_is_known_to_deepspeed(monkeypatch):
    # DeepSpeed takes an unknown top-level key without a word, so ours are looked up among its constants.
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime import constants
    from deepspeed.runtime.config import DeepSpeedConfig
    from deepspeed.runtime.zero import config as zero

    known = {value for value in vars(constants).values() if isinstance(value, str)} | {zero.ZERO_OPTIMIZATION}
    fields = zero.DeepSpeedZeroConfig.model_fields
    nested = set(fields) | {field.alias for field in fields.values()}
    for name in (*STUDENTS, *TEACHERS):
        assert derived(name).keys() <= known
        assert derived(name)["zero_optimization"].keys() <= nested
    with pytest.raises(ValueError, match="stage_of_zero"):
        DeepSpeedConfig(derived("student_stage3") | {"zero_optimization": {"stage_of_zero": 3}})


@pytest.mark.parametrize(("pairs", "micro", "world", "steps"), [(64, 16, 1, 4), (64, 16, 4, 1), (6, 1, 2, 3)])
def test_accumulation(pairs, micro, world, steps):
    assert accumulation_steps(pairs, micro, world) == steps


@pytest.mark.parametrize(
    ("pairs", "micro", "world", "message"),
    [
        (100, 16, 2, r"pairs_per_step: 100 is not a multiple of .* 16 x 2 = 32; set pairs_per_step to 96"),
        (8, 16, 2, r"8 is not a multiple of .* 16 x 2 = 32; set pairs_per_step to 32"),
    ],
)
def test_accumulation_shows_its_arithmetic(pairs, micro, world, message):
    with pytest.raises(ConfigError, match=message):
        accumulation_steps(pairs, micro, world)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"zero_optimisation": {"stage": 1}}, r"deepspeed_extra\.zero_optimisation: not one of the keys"),
        ({"optimizer": {"type": "Adam"}}, r"deepspeed_extra\.optimizer: not one of the keys"),
        ({"zero_optimization": {"stage": 1}}, r"deepspeed_extra\.zero_optimization\.stage: already set .* 3"),
        ({"zero_optimization": 3}, r"deepspeed_extra\.zero_optimization: already set"),
        ({"gradient_clipping": 2.0}, r"deepspeed_extra\.gradient_clipping: not one of the keys"),
        ({"train_batch_size": 2}, r"deepspeed_extra\.train_batch_size: not one of the keys"),
    ],
)
def test_extra_keys_that_the_schema_owns_are_refused(extra, message):
    with pytest.raises(ConfigError, match=message):
        derive_student(StudentEngine(deepspeed_extra=extra), micro_batch_pairs=1, accumulation=1)


def test_extra_keys_leave_the_configuration_unchanged():
    engine = STUDENTS["student_stage3_offload"]
    first = derive_student(engine, micro_batch_pairs=16, accumulation=4)
    first["zero_optimization"]["sub_group_size"] = 0
    assert derive_student(engine, micro_batch_pairs=16, accumulation=4) == derived("student_stage3_offload")


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (StudentEngine(zero_stage=0, offload_optimizer="cpu"), r"student\.engine\.offload_optimizer: .* found 0"),
        (StudentEngine(zero_stage=2, offload_parameters="cpu"), r"student\.engine\.offload_parameters: .* found 2"),
    ],
)
def test_offload_needs_its_stage(engine, message):
    with pytest.raises(ConfigError, match=message):
        derive_student(engine, micro_batch_pairs=1, accumulation=1)


def test_teacher_offload_needs_stage_3():
    with pytest.raises(ConfigError, match=r"teacher\.engine\.offload_parameters: needs zero_stage 3"):
        derive_teacher(TeacherEngine(zero_stage=0, offload_parameters="cpu"), micro_batch_pairs=1, bucket_elements=1)


def test_disks_need_a_folder_and_each_side_gets_its_own():
    student = StudentEngine(offload_optimizer="nvme", offload_parameters="nvme", nvme=Path("/disk"))
    teacher = TeacherEngine(offload_parameters="nvme", nvme=Path("/disk"))
    first = derive_student(student, micro_batch_pairs=1, accumulation=1, largest_share=5_000)
    second = derive_teacher(teacher, micro_batch_pairs=1, bucket_elements=10, largest_share=7)["zero_optimization"]
    zero = first["zero_optimization"]
    assert zero["offload_param"]["buffer_size"] > 5_000
    assert zero["offload_param"]["nvme_path"] == zero["offload_optimizer"]["nvme_path"] == "/disk/student"
    assert second["offload_param"]["nvme_path"] == "/disk/teacher"
    assert "aio" in first
    with pytest.raises(ConfigError, match="needs a folder on a local disk"):
        derive_student(StudentEngine(offload_parameters="nvme"), micro_batch_pairs=1, accumulation=1)
    second_stage = StudentEngine(zero_stage=2, offload_optimizer="nvme", nvme=Path("/disk"))
    with pytest.raises(ConfigError, match="nvme needs zero_stage 3; found 2"):
        derive_student(second_stage, micro_batch_pairs=1, accumulation=1)


@pytest.mark.parametrize("name", ["contrastive", "list_kl"])
def test_one_pair_has_no_other_to_be_compared_with(name):
    config = train(stream={"sources": [{"shards": "s"}], "pairs_per_step": 8, "micro_batch_pairs": 1})
    check_batches(config, 1)
    compared = config.model_copy(update={"objective": TypeAdapter(Objective).validate_python({"name": name})})
    check_batches(compared, 2)
    with pytest.raises(ConfigError, match=f"stream.micro_batch_pairs: {name} compares .* set micro_batch_pairs to 2"):
        check_batches(compared, 1)
