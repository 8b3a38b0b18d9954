"""Memory of a training per rank, computed before anything is allocated.

Weights, gradients and optimizer follow from the numbers of parameters and DeepSpeed's layout (ZeRO, arXiv 1910.02054);
activations are what autograd would keep of a forward pass of the real network on the meta device.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from optical_scale.backbones.encoder import Encoder
from optical_scale.config.backbones import Backbone, VisionBackbone
from optical_scale.config.engine import Offload, Precision, StudentEngine
from optical_scale.config.run import TrainConfig
from optical_scale.recipes.build_inputs import image_transform
from optical_scale.recipes.build_models import empty_encoder, empty_student

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one rank on its device, which without a GPU is the host.

    Attributes:
        student: its weights or share of them.
        gradients: of the trained weights.
        optimizer: fp32 master weights and both moments.
        teacher: its weights or share of them.
        gathered: parameters that stage 3 has whole at one time, and the buckets of collectives.
        activations: what backward needs, and the work space of one layer; or what the teacher gathers, if that is more.
        objective: token vectors in fp32 with their gradients, costs and plans.
        update: the fp32 gradient of what is updated at once, when activations are gone.
        host: what is offloaded to the processor's memory; not in the total.
    """

    student: int = 0
    gradients: int = 0
    optimizer: int = 0
    teacher: int = 0
    gathered: int = 0
    activations: int = 0
    objective: int = 0
    update: int = 0
    host: int = 0

    @property
    def total(self) -> int:
        """The most that is on the device at a time."""
        kept = self.student + self.gradients + self.optimizer + self.teacher + self.gathered
        return kept + max(self.activations + self.objective, self.update)

    def parts(self) -> dict[str, int]:
        """Those that are not 0, offloaded ones last."""
        found = {name: getattr(self, name) for name in (*PARTS, "host")}
        return {name: size for name, size in found.items() if size}


PARTS = tuple(field.name for field in fields(Memory) if field.name != "host")
"""What the device holds, the last instead of the two before it."""


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
        tokens: of one input.
    """

    parameters: int
    trained: int
    largest: int
    activations: int
    layer: int
    checkpointed: int
    width: int
    tokens: int


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
        config: the training.
        tokens: of every text; None takes the backbones' limits.

    Attributes:
        students: of each tower, by the strand of the stream that it reads.
        teacher: None where there is none, or its states are stored.
        teacher_tokens: of one text of its.
        pairs: of a micro-batch of the first tower, under a budget on average.
    """

    def __init__(self, config: TrainConfig, tokens: int | None = None) -> None:
        self.config = config
        self.pairs = _pairs(config)
        precision = config.student.engine.precision
        self.students: dict[str, Shape] = {}
        passages = 0
        for name, part in config.towers().items():
            pairs = _pairs(part)
            passages = max(passages, _passages(part))
            rows = pairs if config.teacher else pairs + _passages(part)
            self.students[name] = _shape(empty_student(part.student), part.student.backbone, rows, tokens, precision)
        self.teacher: Shape | None = None
        self.teacher_tokens = self.student.tokens
        if config.teacher is not None:
            backbone = config.teacher.backbone
            self.teacher_tokens = _tokens(backbone, tokens)
            if config.teacher.cache is None:
                precision = config.teacher.engine.precision
                self.teacher = _shape(empty_encoder(backbone), backbone, passages, tokens, precision)

    @property
    def student(self) -> Shape:
        """The only tower, or the text tower."""
        return next(iter(self.students.values()))

    def layout(self, ranks: int) -> Layout:
        """What the configuration says."""
        how = self.config.student.engine
        return Layout(
            ranks, how.zero_stage, how.offload_optimizer, how.offload_parameters, how.activation_checkpointing
        )

    def memory(self, layout: Layout) -> Memory:
        """Of one rank."""
        engine = self.config.student.engine
        found = Memory()
        for shape, part in zip(self.students.values(), self.config.towers().values(), strict=True):
            states = _states(shape, engine, layout)
            # Towers compute one after the other and keep their states.
            found = Memory(
                student=found.student + states.student,
                gradients=found.gradients + states.gradients,
                optimizer=found.optimizer + states.optimizer,
                update=max(found.update, states.update),
                gathered=max(found.gathered, states.gathered),
                activations=max(found.activations, _kept(shape, layout)),
                objective=max(found.objective, self._objective(shape, part)),
                host=found.host + states.host,
            )
        if self.teacher is not None:
            found = self._with_teacher(found, layout.ranks)
        return found

    def _objective(self, shape: Shape, part: TrainConfig) -> int:
        passages = _passages(part)
        student = _pairs(part) * shape.tokens * (1 + len(part.student_layers))
        teacher = passages * self.teacher_tokens * (1 + len(part.teacher_layers))
        plans = passages * shape.tokens * self.teacher_tokens
        return (student + teacher) * shape.width * (8 + _BYTES[part.student.engine.precision]) + plans * 12

    def _with_teacher(self, found: Memory, ranks: int) -> Memory:
        assert self.teacher is not None
        assert self.config.teacher is not None
        how = self.config.teacher.engine
        size = _BYTES[how.precision]
        shards = ranks if how.zero_stage == 3 else 1
        weights = size * self.teacher.parameters // shards
        live = 0
        if how.zero_stage == 3 and (ranks > 1 or how.offload_parameters != "none"):
            live = size * min(self.teacher.parameters, 50 * self.config.student.engine.bucket_elements)
        # Teacher and student compute one after the other.
        return replace(
            found,
            teacher=0 if how.offload_parameters != "none" else weights,
            host=found.host + (weights if how.offload_parameters == "cpu" else 0),
            activations=max(found.activations, self.teacher.layer + live),
        )

    def fitting(self, ranks: Sequence[int], device_bytes: int) -> list[tuple[Layout, Memory]]:
        """For each number of ranks the layouts that leave a tenth of the device free.

        They come from the fastest to the smallest; each is smaller than the one before by a tenth at least.
        """
        found = []
        for size in ranks:
            most = 0.9 * device_bytes
            for layout in _layouts(size):
                memory = self.memory(layout)
                if memory.total <= most:
                    found.append((layout, memory))
                    most = 0.9 * memory.total
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
    update = 0
    if stage:
        update = 4 * (min(share, engine.update_elements or 10**9) if stage == 3 else share)
    gathered = size * min(engine.bucket_elements, shape.trained) if ranks > 1 else 0
    if stage == 3 and (ranks > 1 or layout.offload_parameters != "none"):
        live = shape.largest if layout.offload_parameters == "nvme" else 50 * engine.bucket_elements
        gathered += size * min(shape.parameters, live)
    host = optimizer + update if layout.offload_optimizer == "cpu" else 0
    host += weights if layout.offload_parameters == "cpu" else 0
    if layout.offload_optimizer != "none":
        optimizer = update = 0
        gradients = gradients if stage < 2 else 0
    if layout.offload_parameters != "none":
        weights = 0
    return Memory(weights, gradients, optimizer, gathered=gathered, update=update, host=host)


def _pairs(config: TrainConfig) -> int:
    return config.stream.pairs_per_step // config.stream.lanes


def _passages(config: TrainConfig) -> int:
    return _pairs(config) * (1 + config.stream.negatives)


def _kept(shape: Shape, layout: Layout) -> int:
    return shape.checkpointed + shape.layer if layout.activation_checkpointing else shape.activations


def _shape(model: Encoder, backbone: Backbone, rows: int, tokens: int | None, precision: Precision) -> Shape:
    sizes = [parameter.numel() for parameter in model.parameters()]
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    known: Any = model.backbone.config
    inputs: dict[str, Tensor]
    if isinstance(backbone, VisionBackbone):
        side = image_transform(backbone).pixels.size
        inputs = {"pixel_values": torch.ones(rows, known.num_channels, side, side, device="meta")}
        inputs["pixel_values"] = inputs["pixel_values"].to(_DTYPES[precision])
    else:
        # Without a mask: whether it leaves anything out is a question that the meta device cannot answer.
        length = tokens or backbone.max_tokens
        inputs = {"input_ids": torch.ones(rows, length, dtype=torch.int64, device="meta")}
    model.to(_DTYPES[precision]).to("meta").train()
    kept, (_, length, width) = _kept_for_backward(model, inputs)
    layers = int(known.num_hidden_layers)
    entered = rows * length * int(known.hidden_size) * _BYTES[precision] * layers
    return Shape(sum(sizes), trained, max(sizes), kept, kept // layers, entered, width, length)


def _tokens(backbone: Backbone, tokens: int | None) -> int:
    """Of a text, or of an image."""
    if isinstance(backbone, VisionBackbone):
        return image_transform(backbone).max_tokens
    return tokens or backbone.max_tokens


def _kept_for_backward(model: Encoder, inputs: dict[str, Tensor]) -> tuple[int, torch.Size]:
    """Bytes of the tensors that autograd keeps of a forward pass, parameters left out, and the shape of the result."""
    # Tensors that no operation makes are no activations; parameters are such, and so are views of them.
    known = {id(parameter) for parameter in model.parameters()}
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in known:
            seen[id(base)] = base
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = model(**inputs)
    return sum(tensor.nbytes for tensor in seen.values()), found.shape
