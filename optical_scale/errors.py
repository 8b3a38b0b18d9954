"""The errors a user can cause. Each message says what was found, where, what was expected and what to do.

The command line prints these without a traceback and exits with status 2; anything else is a bug with a traceback.
"""


class OpticalScaleError(Exception):
    """Base of every error caused by input, configuration or environment rather than by a bug."""


class ConfigError(OpticalScaleError):
    """A configuration file or override breaks a rule; the message starts with the field's path."""


class CorpusError(OpticalScaleError):
    """A corpus file is missing, empty, misaligned or malformed; the message names file and line."""


class ImageError(CorpusError):
    """An image of a corpus is missing or cannot be used.

    Attributes:
        reason: under which word it is counted where such images are left out.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        """What copies and other processes make the error from."""
        return ImageError, (str(self), self.reason)


class ShardError(OpticalScaleError):
    """A shard or manifest is missing, truncated or differs from what the manifest records.

    Attributes:
        reason: under which word a skipped sample is counted; see ``stream/faults.py``.
    """

    reason = "damaged sample"


class StreamError(OpticalScaleError):
    """The planned batches cannot be formed, for example fewer samples than one step needs."""


class TransportError(OpticalScaleError):
    """A transport problem is ill-posed: empty mask, negative mass, non-finite features, epsilon out of range."""


class EngineError(OpticalScaleError):
    """The training engine cannot start or must stop: no compiler, bad topology, non-finite loss."""


class CheckpointError(OpticalScaleError):
    """A checkpoint is incomplete, damaged or of another run."""


class ResumeError(CheckpointError):
    """A checkpoint is sound but the present configuration may not continue it."""


class EvaluationError(OpticalScaleError):
    """An evaluation collection or score is unusable."""


class ExportError(OpticalScaleError):
    """An exported folder could not be written, or does not reproduce the trained embeddings."""


class WorkerError(OpticalScaleError):
    """A process that worked for this one ended without a result: killed, or out of memory."""
