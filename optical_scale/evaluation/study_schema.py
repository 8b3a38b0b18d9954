"""What the report of a study contains: the models behind ``results.json``."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

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
    corpora: str | None = None
    high: tuple[str, ...]
    low: tuple[str, ...]
    cells: tuple[CellFacts, ...]
    missing: tuple[str, ...]
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]
    pairs_fits: tuple[Fit, ...]
    scale_fits: tuple[Fit, ...]
    pareto: tuple[ParetoPoint, ...]


class SideBySide(NamedTuple):
    """A table of means over languages: the columns' labels, and rows that start with the labels of the other axes."""

    axes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Summary | None, ...]], ...]


def side_by_side(report: StudyReport, rows: Sequence[Summary]) -> SideBySide | None:
    """One task's summaries with ``report.corpora`` across; None where the study names no such axis."""
    if report.corpora is None:
        return None
    axes = tuple(name for name in report.axes if name not in (report.replicates, report.corpora))
    found: dict[tuple[str, ...], dict[str, Summary]] = {}
    for row in rows:
        found.setdefault(tuple(row.labels[name] for name in axes), {})[row.labels[report.corpora]] = row
    columns = report.axes[report.corpora]
    order = sorted(
        found, key=lambda key: [report.axes[name].index(label) for name, label in zip(axes, key, strict=True)]
    )
    return SideBySide(axes, columns, tuple((key, tuple(map(found[key].get, columns))) for key in order))


def mean_text(report: StudyReport, row: Summary | None) -> str:
    """The mean over all languages; how many runs it has where that is fewer than the study asks for; or a dash."""
    if row is None:
        return spread_text(None)
    asked = len(report.axes.get(report.replicates, ("",)))
    return spread_text(row.statistics.get("all")) + (f" ({row.replicates})" if row.replicates < asked else "")


def missing_text(report: StudyReport) -> str:
    """Names of the cells without a result; of many the first, and how many more."""
    shown, more = report.missing[:12], len(report.missing) - 12
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


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
