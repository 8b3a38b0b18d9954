"""A study, as one story: a grid of cells, their runs here or under Slurm, one report on all."""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from optical_scale.config.study import CountGroups, Study
from optical_scale.errors import ConfigError, EvaluationError
from optical_scale.evaluation.language_gap import LanguageGroups
from optical_scale.evaluation.report import read_report
from optical_scale.evaluation.study import CellResult, StudyPlan, compare
from optical_scale.evaluation.study_report import markdown, write_study
from optical_scale.evaluation.values import read_values
from optical_scale.recipes.study_grid import Cell
from optical_scale.recipes.study_run import RESULT, is_done, run_cells
from optical_scale.runtime.files import write_atomic

__all__ = ["cells_named", "collect", "is_done", "one_cell", "run_cells", "write_slurm"]

_SLURM = """\
#!/usr/bin/env bash
# Written by `optical-scale study --slurm`: one task of the array per wanted cell of {study} that was not
# done. Submit it from the checkout's top folder, after adapting the resources of one cell:
#
#   sbatch {script}
#   optical-scale study {arguments} --collect
#
#SBATCH --job-name=study
#SBATCH --array={array}
#SBATCH --nodes=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={output}/slurm-%A_%a.log

set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
source launch/env.sh

# Ten minutes before the time limit the cell is asked to save a checkpoint; the task then queues itself again.
stopping=
{python} -m optical_scale study {arguments} --cell "$SLURM_ARRAY_TASK_ID" &
work=$!
trap 'stopping=yes; kill -USR1 "$work"' USR1

status=0
wait "$work" || status=$?
if [ -n "$stopping" ]; then
    # The signal ended the first wait; this one lasts until the checkpoint is written.
    wait "$work" && exit 0
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
    exit
fi
exit "$status"
"""


def one_cell(cells: Sequence[Cell], which: str) -> Cell:
    """The cell of this name, or of this number from 0.

    Raises:
        ConfigError: there is none.
    """
    for number, cell in enumerate(cells):
        if which in (cell.name, str(number)):
            return cell
    names = ", ".join(cell.name for cell in cells[:20])
    raise ConfigError(f"--cell: found {which!r}; expected a number below {len(cells)} or one of {names}")


def cells_named(cells: Sequence[Cell], pattern: str) -> list[Cell]:
    """The cells whose names match a shell pattern, such as ``Somali-*-seed0``.

    Raises:
        ConfigError: there is none.
    """
    found = [cell for cell in cells if fnmatchcase(cell.name, pattern)]
    if not found:
        # One of each value of the first axis shows how labels are spelt in names.
        examples = {next(iter(cell.labels.values())): cell.name for cell in reversed(cells)}
        names = ", ".join(reversed(examples.values()))
        raise ConfigError(f"--only: found {pattern!r}, which no cell matches; names are like {names}")
    return found


def write_slurm(study: Study, cells: Sequence[Cell], wanted: Sequence[Cell], arguments: Sequence[str]) -> Path | None:
    """Write ``study.sbatch`` into the output folder; None if all wanted cells are done.

    Args:
        study: its ``jobs`` limit the tasks that run at once, its ``processes`` are the GPUs of a task.
        cells: of the grid.
        wanted: those to run; the ones that are done get no task.
        arguments: configuration file and overrides, as on the command line.
    """
    names = {cell.name for cell in wanted if not is_done(cell)}
    pending = [number for number, cell in enumerate(cells) if cell.name in names]
    if not pending:
        return None
    path = study.output / "study.sbatch"
    script = _SLURM.format(
        study=arguments[0],
        script=path,
        arguments=shlex.join(arguments),
        array=",".join(map(str, pending)) + (f"%{study.jobs}" if study.jobs > 1 else ""),
        gpus=study.processes or 1,
        output=study.output,
        python=shlex.quote(sys.executable),
    )
    write_atomic(path, script)
    return path


def collect(study: Study, cells: Sequence[Cell]) -> str:
    """Read all finished cells, write the report into the output folder, and return its table.

    Raises:
        EvaluationError: no cell is done, or the cells cannot be compared.
    """
    done = [cell for cell in cells if is_done(cell)]
    results = [_result(cell) for cell in done]
    plan = StudyPlan(
        title=study.title,
        axes={name: [str(label) for label in axis] for name, axis in study.axes.items()},
        replicates=study.replicates,
        scale=study.scale,
        metric=study.metric,
        corpora=study.corpora,
        groups=_groups(study, done, results),
        baselines=[{name: str(label) for name, label in baseline.items()} for baseline in study.baselines],
    )
    report = compare(plan, results, [cell.name for cell in cells if cell not in done])
    write_study(study.output, report)
    return markdown(report)


def _result(cell: Cell) -> CellResult:
    facts = json.loads((cell.folder / RESULT).read_text(encoding="utf-8"))
    folder = cell.folder / "report"
    return CellResult(
        name=cell.name,
        labels=cell.labels,
        parameters=facts["parameters"],
        seconds=facts["seconds"],
        training_pairs=read_report(folder / "report.json").training_pairs,
        values=read_values(folder),
    )


def _groups(study: Study, cells: Sequence[Cell], results: Sequence[CellResult]) -> LanguageGroups | None:
    """By name from the study or its evaluation, or by the largest training count of a language in any cell.

    Raises:
        EvaluationError: the threshold leaves one group empty.
    """
    if isinstance(study.groups, CountGroups):
        counts: Counter[str] = Counter()
        for result in results:
            counts |= Counter(dict(result.training_pairs))
        try:
            return LanguageGroups.by_count(counts, study.groups.threshold)
        except EvaluationError as error:
            found = ", ".join(f"{language} {count:,}" for language, count in counts.most_common())
            raise EvaluationError(
                f"groups.threshold {study.groups.threshold:,}: no language is on one side of it ({found}); "
                "choose a number between these counts"
            ) from error
    named = cells[0].evaluate.groups if cells else None
    return LanguageGroups(tuple(named.high), tuple(named.low)) if named else None
