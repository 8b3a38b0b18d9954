"""Memory of a training per rank, computed before anything is allocated.

Weights, gradients and optimizer follow from the numbers of parameters and DeepSpeed's layout (ZeRO, arXiv 1910.02054);
activations are what autograd would keep of a forward pass of the real network on the meta device.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from optical_scale.config.backbones import VisionBackbone
from optical_scale.config.engine import Offload, Precision, StudentEngine
from optical_scale.config.run import TrainConfig
from optical_scale.errors import ConfigError
from optical_scale.recipes.build_models import empty_encoder

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one rank on its device.

    Attributes:
        student: its weights or share of them.
        gradients: of the trained weights.
        optimizer: fp32 master weights and both moments.
        teacher: its weights or share of them.
        gathered: parameters that stage 3 has whole at one time, and the buckets of collectives.
        activations: what backward needs, and the work space of one layer.
        objective: token vectors in fp32 with their gradients, costs and plans.
    """

    student: int = 0
    gradients: int = 0
    optimizer: int = 0
    teacher: int = 0
    gathered: int = 0
    activations: int = 0
    objective: int = 0

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network needs, whatever holds it.

    Attributes:
        parameters: elements.
        trained: those of them that the optimizer changes.
        largest: elements of the largest parameter.
        activations: bytes that one micro-batch leaves for backward.
        layer: bytes of one layer's share of them.
        checkpointed: bytes left if every layer keeps its input only.
        width: of the token vectors.
    """

    parameters: int
    trained: int
    largest: int
    activations: int
    layer: int
    checkpointed: int
    width: int


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to run: ranks, and the fields of `student.engine` that decide about memory."""

    ranks: int
    zero_stage: int
    offload_optimizer: Offload
    offload_parameters: Offload
    activation_checkpointing: bool


class MemoryPlan:
    """The networks of a training, and what they need in any layout.

    Args:
        config: a text-to-text training.
        tokens: of every text; None takes the backbones' limits.

    Raises:
        ConfigError: a vision student, whose number of tokens is not known here.
    """

    def __init__(self, config: TrainConfig, tokens: int | None = None) -> None:
        if isinstance(config.student.backbone, VisionBackbone) or config.student.vision is not None:
            raise ConfigError("student.backbone: memory is planned for text students; found a vision student")
        self.config = config
        self.pairs = config.stream.pairs_per_step // config.stream.lanes
        engine = config.student.engine
        self.student_tokens = tokens or config.student.backbone.max_tokens
        self.passages = self.pairs * (1 + config.stream.negatives)
        rows = self.pairs if config.teacher else self.pairs + self.passages
        self.student = _shape(config, rows, self.student_tokens, engine.precision, teacher=False)
        self.teacher: Shape | None = None
        self.teacher_tokens = self.student_tokens
        if config.teacher is not None:
            self.teacher_tokens = tokens or config.teacher.backbone.max_tokens
            live = config.teacher.cache is None
            precision = config.teacher.engine.precision
            self.teacher = _shape(config, self.passages, self.teacher_tokens, precision, teacher=True) if live else None

    def layout(self, ranks: int) -> Layout:
        """What the configuration says."""
        how = self.config.student.engine
        return Layout(
            ranks, how.zero_stage, how.offload_optimizer, how.offload_parameters, how.activation_checkpointing
        )

    def memory(self, layout: Layout) -> Memory:
        """Of one rank."""
        engine = self.config.student.engine
        size = _BYTES[engine.precision]
        found = _states(self.student, engine, layout)
        kept = self.student.activations
        if layout.activation_checkpointing:
            kept = self.student.checkpointed + self.student.layer
        width = self.config.student.backbone.head or self.student.width
        vectors = (self.pairs * self.student_tokens + self.passages * self.teacher_tokens) * width
        plans = self.passages * self.student_tokens * self.teacher_tokens
        found = replace(found, activations=kept, objective=vectors * (8 + size) + plans * 12)
        if self.teacher is not None:
            assert self.config.teacher is not None
            found = self._with_teacher(found, layout.ranks)
        return found

    def _with_teacher(self, found: Memory, ranks: int) -> Memory:
        assert self.teacher is not None
        assert self.config.teacher is not None
        how = self.config.teacher.engine
        size = _BYTES[how.precision]
        shards = ranks if how.zero_stage == 3 else 1
        weights = 0 if how.offload_parameters != "none" else size * self.teacher.parameters // shards
        live = 0
        if how.zero_stage == 3 and (ranks > 1 or how.offload_parameters != "none"):
            live = size * min(self.teacher.parameters, 50 * self.config.student.engine.bucket_elements)
        # Teacher and student compute one after the other.
        return replace(
            found,
            teacher=weights,
            gathered=max(found.gathered, live),
            activations=max(found.activations, self.teacher.layer),
        )

    def fitting(self, ranks: Sequence[int], device_bytes: int) -> list[tuple[Layout, Memory]]:
        """For each number of ranks the fastest layout that leaves a tenth of the device free, if there is one."""
        found = []
        for size in ranks:
            for layout in _layouts(size):
                memory = self.memory(layout)
                if memory.total <= 0.9 * device_bytes:
                    found.append((layout, memory))
                    break
        return found


def _layouts(ranks: int) -> Iterator[Layout]:
    """From the fastest to the smallest: recomputing costs a third of a step, a higher stage less, offload most."""
    offloads: list[tuple[Offload, Offload]] = [("none", "none"), ("cpu", "none"), ("cpu", "cpu")]
    for (optimizer, parameters), recompute, stage in itertools.product(offloads, (False, True), (0, 1, 2, 3)):
        if (optimizer != "none" and stage == 0) or (parameters != "none" and stage != 3) or (ranks == 1 and stage == 2):
            continue
        yield Layout(ranks, stage, optimizer, parameters, recompute)


def _states(shape: Shape, engine: StudentEngine, layout: Layout) -> Memory:
    size = _BYTES[engine.precision]
    stage, ranks = layout.zero_stage, layout.ranks
    share = shape.trained // ranks
    weights = size * shape.parameters // (ranks if stage == 3 else 1)
    gradients = size * (shape.trained if stage < 2 else share)
    # Master weights and two moments; stage 0 in fp32 is torch's own AdamW, without a second copy of the weights.
    optimizer = 12 * (share if stage else shape.trained)
    if (stage, engine.precision) == (0, "fp32"):
        optimizer = 8 * shape.trained
    if stage:
        # The fp32 gradient of what is updated at once.
        optimizer += 4 * (min(share, engine.update_elements or 10**9) if stage == 3 else share)
    gathered = size * min(engine.bucket_elements, shape.trained) * (2 if ranks > 1 else 0)
    if stage == 3 and (ranks > 1 or layout.offload_parameters != "none"):
        live = shape.largest if layout.offload_parameters == "nvme" else 50 * engine.bucket_elements
        gathered += size * min(shape.parameters, live)
    if layout.offload_optimizer != "none":
        optimizer = 0
        gradients = gradients if stage < 2 else 0
    return Memory(0 if layout.offload_parameters != "none" else weights, gradients, optimizer, gathered=gathered)


def _shape(config: TrainConfig, rows: int, tokens: int, precision: Precision, *, teacher: bool) -> Shape:
    backbone = config.teacher.backbone if teacher and config.teacher else config.student.backbone
    model = empty_encoder(backbone).to(_DTYPES[precision])
    frozen = () if teacher else config.student.freeze
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    held = [name for name in sizes if any(name == part or name.startswith(f"{part}.") for part in frozen)]
    trained = sum(sizes.values()) - sum(sizes[name] for name in held)
    layers = int(model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    kept = _kept_for_backward(model, rows, tokens)
    width = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
    inputs = rows * tokens * width * _BYTES[precision] * layers
    return Shape(sum(sizes.values()), trained, max(sizes.values()), kept, kept // layers, inputs, width)


def _kept_for_backward(model: nn.Module, rows: int, tokens: int) -> int:
    """Bytes of the tensors that autograd keeps of a forward pass, parameters left out."""
    # Tensors that no operation makes are no activations; parameters are such, and so are views of them.
    known = {id(parameter) for parameter in model.parameters()}
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in known:
            seen[id(base)] = base
        return tensor

    ids_BT = torch.ones(rows, tokens, dtype=torch.int64, device="meta")
    model.to("meta").train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # Without a mask: whether it leaves anything out is a question that the meta device cannot answer.
        model(input_ids=ids_BT)
    return sum(tensor.nbytes for tensor in seen.values())
