"""One optimizer step: micro-batches, one global weight, one update."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optical_scale.batch import PairBatch, TokenBatch, TokenStates
from optical_scale.engine.student import Update
from optical_scale.engine.teacher import Teacher
from optical_scale.engine.towers import Student
from optical_scale.losses.objective import LossOutput, Moment, Objective, Passages, at
from optical_scale.runtime.collectives import gather_integers, sum_over_ranks
from optical_scale.runtime.phases import Phases
from optical_scale.training.alarms import finish_health, health


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step reports.

    Attributes:
        values: loss and metrics, averaged over the pairs of all ranks.
        update: of the weights.
        problem: why there was none, the same on all ranks; None if all went well.
    """

    values: dict[str, float]
    update: Update
    problem: str | None = None


class TrainStep:
    """Teacher and student encode, the objective compares, the student learns.

    Without a teacher the student encodes both sides; that is how a teacher is made.

    Args:
        teacher: frozen.
        student: trained.
        objective: compares their token states.
        phases: measures the parts; None does so on the student's device.
    """

    def __init__(
        self,
        teacher: Teacher | None,
        student: Student,
        objective: Objective,
        phases: Phases | None = None,
    ) -> None:
        self.teacher = teacher
        self.student = student
        self.objective = objective
        self.phases = phases or Phases(student.device)

    def __call__(self, micro_batches: Sequence[PairBatch], step: int = 0, *, watch: bool = False) -> StepResult:
        """Run one step; every rank enters with equally many micro-batches, of any numbers of pairs.

        If the loss or the gradient is not finite on some rank, the weights stay as they are on all of them.

        Args:
            micro_batches: of this rank.
            step: optimizer updates done before, which weights and epsilons may depend on.
            watch: also report the student's health.
        """
        # The one place where ranks tell each other what they bring; objectives need not ask again.
        brought = [len(batch) for batch in micro_batches] + [batch.negatives for batch in micro_batches]
        everywhere = gather_integers(brought, self.student.device)
        rows, negatives = everywhere[: len(micro_batches)], everywhere[len(micro_batches) :]
        weight = max(1.0, float(sum(map(sum, rows))))
        totals: Counter[str] = Counter()
        update, loss_is_finite = None, True
        for number, batch in enumerate(micro_batches):
            teacher, student = self._encode(batch)
            passages = self._passages(batch, teacher, negatives[number])
            teacher = teacher.first(len(batch.target))
            if not batch.keys:  # a stand-in for samples that were all skipped; this rank still joins the collectives
                teacher, student = teacher.first(0), student.first(0)
            with self.phases("objective"):
                # Objectives may refuse what is not finite, on this rank alone; all shall see it in the loss instead.
                student, penalty = _made_finite(student)
                moment = Moment(step, rows[number], passages, batch.regions)
                output = at(self.objective, moment)(teacher, student)
                output = output._replace(sum=output.sum + penalty)
            last = number == len(micro_batches) - 1
            if last:
                # A loss that is not finite on some rank makes every gradient so, and engines then leave the weights
                # alone; as a tensor, because nobody has to wait for it.
                poison = 1.0 + 0.0 * sum_over_ranks(output.sum.detach() + totals["loss"])
            with self.phases("backward"):
                self.student.backward(output.sum * poison if last else output.sum, weight, last=last)
            totals.update(_scalars(output))
            if watch:
                totals.update({name: value.item() for name, value in health(teacher, student).items()})
            if last:
                values = self._average(totals, weight)
                loss_is_finite = math.isfinite(values["loss"])
            with self.phases("update"):
                update = self.student.finish_micro_batch()
        assert update is not None, "the engine's accumulation differs from the stream's"
        problem = None
        if not loss_is_finite:
            problem = f"the loss is {values['loss']} (this rank's last micro-batch: {batch.keys[:1]}, …)"
        elif not update.finite:
            problem = f"the loss is {values['loss']:.4g}, but the norm of its gradient is not finite"
        return StepResult(finish_health(values) if watch else values, update, problem)

    def _encode(self, batch: PairBatch) -> tuple[TokenStates, TokenStates]:
        if self.teacher is not None:
            with self.phases("teacher"):
                teacher = self.teacher.encode(batch.source)
            with self.phases("student"):
                return teacher, self.student.encode(batch.target)
        assert isinstance(batch.source, TokenBatch)
        assert isinstance(batch.target, TokenBatch)
        with self.phases("student"):
            return self.student.encode_both(batch.source, batch.target)

    def _passages(self, batch: PairBatch, teacher: TokenStates, rows: tuple[int, ...]) -> Passages | None:
        """Of use with negatives; and where the student reads both sides, as dropout hides which passages are equal."""
        if batch.queries is None or (self.teacher is not None and not sum(rows)):
            return None
        return Passages(teacher.part(slice(len(batch.target), None)), batch.queries.to(self.student.device), rows)

    def _average(self, totals: Counter[str], weight: float) -> dict[str, float]:
        names = list(totals)
        values = torch.tensor([float(totals[name]) for name in names], device=self.student.device)
        return dict(zip(names, (sum_over_ranks(values) / weight).tolist(), strict=True))


def _made_finite(states: TokenStates) -> tuple[TokenStates, Tensor]:
    """The states and 0, or zeros and nan if a number among them is not finite; nobody waits for the device.

    The second value has the gradient 0, or nan, to one of the numbers, since none passes through the zeros.
    """
    finite = torch.isfinite(states.x_BTD).all()
    for x_BTD in states.layers.values():
        finite = finite & torch.isfinite(x_BTD).all()
    kept = states.map(lambda x_BTD: torch.where(finite, x_BTD, torch.zeros_like(x_BTD)))
    return kept, states.x_BTD.flatten()[:1].float().sum() * torch.where(finite, 0.0, torch.nan)


def _scalars(output: LossOutput) -> dict[str, float]:
    return {"loss": output.sum.item(), **{name: value.item() for name, value in output.metrics.items()}}
