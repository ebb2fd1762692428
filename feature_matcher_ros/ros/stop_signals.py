"""How the process of a node is asked to end."""

from __future__ import annotations

import signal
import threading

LAST_FRAME_S = 0.5  # that a frame is given to come to its end


def stop_on_signals() -> threading.Event:
    """Set by SIGINT and SIGTERM, either of which ``ros2 launch`` and a terminal may send twice."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop
