"""How long the stages of one frame take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType


class StageTimer:
    """Adds up wall-clock time by stage: ``with timer.stage("extract"): ...``."""

    def __init__(self) -> None:
        self._elapsed_ns: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block, also when it raises; a stage entered twice counts both times."""
        start_ns = time.perf_counter_ns()
        try:
            yield
        finally:
            self._elapsed_ns[name] = self._elapsed_ns.get(name, 0) + time.perf_counter_ns() - start_ns

    @property
    def stages_ms(self) -> Mapping[str, float]:
        """Milliseconds by stage, in the order in which the stages were first entered and left."""
        return MappingProxyType({name: elapsed * 1e-6 for name, elapsed in self._elapsed_ns.items()})
