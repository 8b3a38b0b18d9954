"""The sigmoid loss of SigLIP (Zhai et al. 2023, arXiv 2303.15343)."""

from dataclasses import dataclass, replace

from optical_scale.batch import TokenStates
from optical_scale.losses.in_batch import sigmoid_in_turns
from optical_scale.losses.objective import LossOutput, Moment
from optical_scale.runtime.collectives import rows_of_ranks


@dataclass(frozen=True, slots=True)
class SigLIP:
    """Binary cross-entropy of every student with every teacher embedding of all ranks; true pairs are positive.

    Temperature and bias are constants here, because objectives have no parameters; the paper learns them from 0.1 and
    -10.

    Attributes:
        temperature: divides the cosines.
        bias: added to the scaled cosines.
        rows: pairs of each rank, None to ask.
    """

    temperature: float = 0.05
    bias: float = -10.0
    rows: tuple[int, ...] | None = None

    def at(self, moment: Moment) -> "SigLIP":
        """The same, which need not ask for the rows."""
        return replace(self, rows=moment.rows)

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of this rank's students; the same English sentence in another pair is no negative."""
        t_BD, s_BD = teacher.pooled(), student.pooled()
        counts = self.rows or rows_of_ranks(len(t_BD), t_BD.device)
        loss, right = sigmoid_in_turns(t_BD, s_BD, counts, self.temperature, self.bias)
        return LossOutput(loss, len(student), {"in_batch_accuracy": right})
