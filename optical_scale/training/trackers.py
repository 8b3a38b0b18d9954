"""Hooks that show a run in TensorBoard, Weights & Biases or MLflow, under the names of metrics.jsonl.

A run that continues goes on in the same folder or under the same id, which the run folder keeps. Steps that are taken
again after a kill show the same values again; TensorBoard forgets what it had of them. A service that fails never stops
training: it is named once and left alone from then on.
"""

import importlib.util
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from optical_scale.errors import ConfigError
from optical_scale.runtime.files import write_json
from optical_scale.training.state import TrainState

logger = logging.getLogger(__name__)

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""What to import for each tracker."""


class Sink(Protocol):
    """An open tracker."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add values of a step."""

    def close(self, finished: bool) -> None:
        """The run has ended, after its last step or before."""


Open = Callable[[int], Sink]
"""Begin to track, or go on; given the step from which on values follow."""


def check_installed(names: Sequence[str]) -> None:
    """Make sure that the packages of trackers are there.

    Raises:
        ConfigError: naming what to install.
    """
    missing = [PACKAGES[name] for name in names if importlib.util.find_spec(PACKAGES[name]) is None]
    if missing:
        raise ConfigError(
            f"logging.trackers: {', '.join(missing)} not installed; `pip install {' '.join(missing)}` or "
            '`pip install "optical-scale[trackers]"`, or leave it out'
        )


class Tracked:
    """A hook for one tracker, which is opened at the first event.

    Args:
        name: for messages.
        open_sink: opens it.
    """

    def __init__(self, name: str, open_sink: Open) -> None:
        self._name, self._open = name, open_sink
        self._sink: Sink | None = None
        self._failed = False

    def stepped(self, state: TrainState, values: Mapping[str, float]) -> None:
        """Add the values of a logged step."""
        self._do(lambda sink: sink.log(state.step, values), state.step)

    def evaluated(self, state: TrainState, results: list[dict[str, Any]]) -> None:
        """Add the metrics, as ``evaluation/direction/mode/metric/language``."""
        values = {
            f"{'/'.join(filter(None, (*_task(result), metric, result['language'])))}": float(value)
            for result in results
            for metric, value in result["metrics"].items()
        }
        self._do(lambda sink: sink.log(state.step, values), state.step)

    def ended(self, finished: bool) -> None:
        """Close it."""
        if self._sink is not None:
            self._do(lambda sink: sink.close(finished), 0)

    def _do(self, action: Callable[[Sink], None], step: int) -> None:
        if self._failed:
            return
        try:
            if self._sink is None:
                self._sink = self._open(step)
            action(self._sink)
        except Exception as error:  # whatever a service does, training goes on
            self._failed = True
            logger.warning(
                "logging.trackers: %s failed and is left alone from now on: %s; metrics.jsonl has everything",
                self._name,
                error,
            )


def _task(result: Mapping[str, Any]) -> tuple[str, str, str]:
    return result["evaluation"].replace(":", "/"), result["direction"], result["mode"]


def tensorboard(run: Path) -> Open:
    """Event files in the folder ``tensorboard`` of the run."""

    def open_sink(step: int) -> Sink:
        from torch.utils.tensorboard import SummaryWriter

        return _TensorBoard(SummaryWriter(str(run / "tensorboard"), purge_step=step))

    return open_sink


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        self._writer.close()


def wandb(run: Path, project: str, name: str, config: Mapping[str, Any]) -> Open:
    """A run of Weights & Biases; ``WANDB_MODE``, ``WANDB_ENTITY`` and the like are its own environment variables."""

    def open_sink(step: int) -> Sink:
        import wandb as library

        identity = _kept(run, "wandb", lambda: uuid4().hex)
        opened = library.init(
            project=project,
            name=name,
            id=identity,
            resume="allow",
            dir=str(run),
            config=dict(config),
            reinit="create_new",
        )
        # An axis of its own: steps that are taken again would else be refused for going backwards.
        opened.define_metric("step")
        opened.define_metric("*", step_metric="step")
        return _WandB(opened)

    return open_sink


class _WandB:
    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


def mlflow(run: Path, project: str, name: str, config: Mapping[str, Any]) -> Open:
    """A run of the MLflow experiment ``project``, where ``MLFLOW_TRACKING_URI`` says."""

    def open_sink(step: int) -> Sink:
        from mlflow import MlflowClient

        client = MlflowClient()

        def create() -> str:
            found = client.get_experiment_by_name(project)
            experiment = found.experiment_id if found is not None else client.create_experiment(project)
            identity: str = client.create_run(experiment, run_name=name).info.run_id
            return identity

        identity = _kept(run, "mlflow", create)
        client.update_run(identity, status="RUNNING")
        client.log_dict(identity, dict(config), "config.yaml")
        return _MLflow(client, identity)

    return open_sink


class _MLflow:
    def __init__(self, client: Any, identity: str) -> None:
        self._client, self._identity = client, identity

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        for start in range(0, len(metrics), 1000):  # as many as one request may hold
            self._client.log_batch(self._identity, metrics[start : start + 1000])

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._identity, "FINISHED" if finished else "KILLED")


def _kept(run: Path, tracker: str, create: Callable[[], str]) -> str:
    """The id under which this run is known, made and written down if it is new."""
    path = run / "trackers.json"
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if tracker not in known:
        known[tracker] = create()
        write_json(path, known)
    return known[tracker]
