"""The time of a simulation or of a bag that is played, from ``/clock``."""

from __future__ import annotations

import time
from typing import Any

_PAUSE_S = 1.0  # without a tick for so long, time stands still


class SimulatedClock:
    """Knows the time that was heard last; 0 before."""

    def __init__(self) -> None:
        self._now_ns = 0
        self._changed_s = -_PAUSE_S

    def hear(self, message: Any) -> None:
        """Take in a ``rosgraph_msgs/Clock``."""
        self.see(int(message.clock.sec) * 1_000_000_000 + int(message.clock.nanosec))

    def see(self, now_ns: int) -> None:
        """Take in what time it is, which somebody else has heard."""
        if now_ns != self._now_ns:
            self._changed_s = time.monotonic()
        self._now_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns

    def is_paused(self) -> bool:
        return time.monotonic() - self._changed_s >= _PAUSE_S
