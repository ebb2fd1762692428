"""How long a graph takes on the device that executes it, and what memory that takes."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any, Protocol

_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


class Meter(Protocol):
    """Measures time and memory on one device."""

    @property
    def name(self) -> str:
        """What it measures time with."""

    def mark(self) -> Any:
        """A point in the order of the work that the device is given."""

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Milliseconds between two marks; waits until the device has reached the second one."""

    def memory_mb(self) -> float:
        """Megabytes: of a GPU, those in use by anyone; of the host, the most that this process has ever used."""


class HostMeter:
    """Measures calls that return only when their work is done."""

    name = "CPU clock"

    def mark(self) -> int:
        return time.perf_counter_ns()

    def elapsed_ms(self, begin: int, end: int) -> float:
        return (end - begin) * 1e-6

    def memory_mb(self) -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES * 1e-6
