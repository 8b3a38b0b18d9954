"""What the report of a study contains: the models behind ``results.json``."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from optical_scale.evaluation.language_gap import Interval


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _OfTask(_Model):
    """Labels of the axes that are not averaged over, and the task."""

    labels: dict[str, str]
    evaluation: str
    direction: str
    mode: str

    @property
    def task(self) -> tuple[str, str, str]:
        """Evaluation, direction and mode."""
        return self.evaluation, self.direction, self.mode

    @property
    def title(self) -> str:
        """The labels in words, for example ``small · ot``."""
        return " · ".join(self.labels.values()) or "all"


class CellFacts(_Model):
    """One run.

    Attributes:
        name: of its folder.
        labels: the value of every axis.
        parameters: of the exported student.
        seconds: training, export and evaluation together.
        training_pairs: pairs seen in training, by language.
        metrics: by task, language and name.
    """

    name: str
    labels: dict[str, str]
    parameters: int
    seconds: float
    training_pairs: dict[str, int]
    metrics: dict[str, dict[str, dict[str, float]]]


class Spread(_Model):
    """A mean over replicates and how far it can be trusted.

    Attributes:
        mean: over replicates.
        deviation: standard deviation over replicates (n - 1); None with a single one.
        interval: 95 % bootstrap interval over replicates and queries; None where it was not computed.
    """

    mean: float
    deviation: float | None
    interval: Interval | None


class Summary(_OfTask):
    """One setting under one metric.

    Attributes:
        metric: name.
        parameters: of the student.
        replicates: how many runs were averaged.
        queries: by language.
        training_pairs: by language.
        languages: results by language.
        statistics: ``all``, and with groups ``high``, ``low``, ``gap`` and ``relative gap``.
    """

    metric: str
    parameters: int
    replicates: int
    queries: dict[str, int]
    training_pairs: dict[str, int]
    languages: dict[str, Spread]
    statistics: dict[str, Spread]


class Comparison(_OfTask):
    """A paired randomisation test of a setting against a baseline."""

    baseline: dict[str, str]
    metric: str
    statistic: str
    difference: float
    p: float
    p_holm: float


class Fit(_OfTask):
    """Points and the line through them; slope and intercept are None with too few points.

    Attributes:
        names: what each point is, a language or a cell.
        x: log10 of training pairs, or of parameters.
        y: the metric, or the gap.
        slope: change of y when x grows tenfold in its own units.
        intercept: at x = 0.
        slope_interval: 95 % t-interval.
        r_squared: share of variance explained.
    """

    names: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    slope: float | None
    intercept: float | None
    slope_interval: Interval | None
    r_squared: float | None


class ParetoPoint(_OfTask):
    """Quality against size; ``on_front``: no setting is as small and better, or as good and smaller."""

    parameters: int
    quality: float
    on_front: bool


class StudyReport(_Model):
    """Everything ``results.json`` holds."""

    schema_version: Literal[1] = 1
    title: str
    metric: str
    axes: dict[str, tuple[str, ...]]
    replicates: str
    scale: str
    high: tuple[str, ...]
    low: tuple[str, ...]
    cells: tuple[CellFacts, ...]
    missing: tuple[str, ...]
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]
    pairs_fits: tuple[Fit, ...]
    scale_fits: tuple[Fit, ...]
    pareto: tuple[ParetoPoint, ...]


def ordered_languages(report: StudyReport, rows: Sequence[Summary]) -> list[str]:
    """High-resource languages first, then low-resource ones, then all others by descending training pairs."""
    found = dict.fromkeys(language for row in rows for language in row.languages)
    counts = {language: max(row.training_pairs.get(language, 0) for row in rows) for language in found}
    named = [language for language in (*report.high, *report.low) if language in found]
    others = sorted((l for l in found if l not in named), key=lambda language: (-counts[language], language))
    return [*named, *others]


def statistic_name(name: str) -> str:
    """How people read a statistic's name."""
    return {"all": "mean of all", "high": "mean of high", "low": "mean of low"}.get(name, name)


def spread_text(spread: Spread | None) -> str:
    """``0.713 ± 0.004``, or a dash."""
    if spread is None:
        return "–"
    return f"{spread.mean:.3f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.3f}")
