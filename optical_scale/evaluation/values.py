"""The values of single queries beside a report: ``values.npz``, what paired tests and pooled intervals start from."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.ranking import Values
from optical_scale.evaluation.results import RetrievalResult
from optical_scale.runtime.files import write_atomic

FILE = "values.npz"


class Series(NamedTuple):
    """What an array of values belongs to; its parts joined by slashes are the array's name in the file."""

    stage: str
    evaluation: str
    direction: str
    mode: str
    language: str
    metric: str


def write_values(folder: Path, stages: Mapping[str, Sequence[RetrievalResult]]) -> None:
    """Write the per-query values of every stage in the order of the queries, whole or not at all; one rank only."""
    arrays = {
        "/".join(Series(stage, r.evaluation, r.direction, r.mode, r.language, metric)): values
        for stage, results in stages.items()
        for r in results
        for metric, values in r.per_query.items()
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomic(folder / FILE, buffer.getvalue())


def read_values(folder: Path) -> dict[Series, Values]:
    """Read :data:`FILE`.

    Raises:
        EvaluationError: no such file, or it is none.
    """
    path = folder / FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            # From the right: a stage may be called anything.
            return {Series(*name.rsplit("/", 5)): file[name].astype(np.float64) for name in file.files}
    except FileNotFoundError as error:
        raise EvaluationError(f"{path}: no such file; evaluate again with this version of optical_scale") from error
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise EvaluationError(f"{path}: damaged ({error}); evaluate again") from error
