"""Actors that tests run as stages of a stream; Ray's workers import this module by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from lightwell.workers.ray.actor import PoolActor


class Recording(PoolActor):
    """Returns numbers as they come, after noting them and its process in a folder; the later ones of four come first."""

    def __init__(self, folder: Path, poison: int = -1, broken: int = -1) -> None:
        self._folder, self._poison, self._broken = folder, poison, broken

    def __call__(self, numbers: range) -> list[int]:
        for number in numbers:
            (self._folder / f"{number}").write_text(str(os.getpid()))
            time.sleep(0.02 * (3 - number % 4))
            if number == self._poison:
                os.kill(os.getpid(), signal.SIGKILL)
            if number == self._broken:
                raise KeyError(number)
        return list(numbers)

    def close(self) -> None:
        (self._folder / f"closed-{os.getpid()}").write_text(str(os.getpid()))


class Negating(PoolActor):
    """Changes the sign of what another stage returns."""

    def __call__(self, numbers: list[int]) -> list[int]:
        return [-number for number in numbers]

    def close(self) -> None:
        """Hold nothing."""


class Unstartable(Negating):
    """Dies while it starts."""

    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
