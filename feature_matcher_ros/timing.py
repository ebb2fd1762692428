"""How long the stages of one frame take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType


class StageTimer:
    """Adds up wall-clock time by stage: ``with timer.stage("extract"): ...``."""

    def __init__(self) -> None:
        self._elapsed_ns: dict[str, int] = {}

    def stage(self, name: str) -> _Stage:
        """Time a block, also when it raises; a stage entered twice counts both times."""
        return _Stage(self._elapsed_ns, name)

    @property
    def stages_ms(self) -> Mapping[str, float]:
        """Milliseconds by stage, in the order in which the stages were first entered and left."""
        return MappingProxyType({name: elapsed * 1e-6 for name, elapsed in self._elapsed_ns.items()})


class _Stage:
    """The block that is timed. A generator would take longer to enter and leave than some stages take."""

    __slots__ = ("_elapsed_ns", "_name", "_start_ns")

    def __init__(self, elapsed_ns: dict[str, int], name: str) -> None:
        self._elapsed_ns, self._name = elapsed_ns, name

    def __enter__(self) -> None:
        self._start_ns = time.perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        passed_ns = time.perf_counter_ns() - self._start_ns
        self._elapsed_ns[self._name] = self._elapsed_ns.get(self._name, 0) + passed_ns
