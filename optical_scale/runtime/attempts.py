"""Trying again what a network may fail at."""

import logging
import time
from collections.abc import Callable
from random import Random
from typing import TypeVar

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


def attempt(action: Callable[[], Result], what: str, attempts: int = 5, first_wait: float = 0.5) -> Result:
    """Call ``action`` until it succeeds, with waits of 0.5, 1, 2, … seconds, somewhat shortened at random, in between.

    Args:
        action: raises any exception where it fails; what is not there is not asked for again.
        what: for the log.
        attempts: calls at most.
        first_wait: seconds.

    Raises:
        Exception: that of the last attempt; FileNotFoundError at once.
    """
    waits = Random()  # the global generator belongs to training and is part of checkpoints
    for number in range(1, attempts + 1):
        try:
            return action()
        except FileNotFoundError:
            raise
        except Exception as error:  # file systems raise classes of their own
            if number == attempts:
                raise
            logger.warning("%s: attempt %d failed (%s)", what, number, error)
            time.sleep(first_wait * 2 ** (number - 1) * waits.uniform(0.5, 1.0))
    raise AssertionError("attempts is 0")
