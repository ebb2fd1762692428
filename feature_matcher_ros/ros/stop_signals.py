"""How the process of a node is asked to end."""

from __future__ import annotations

import signal
import time

LAST_FRAME_S = 0.5  # that a frame is given to come to its end
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_S = 0.05


class StopRequest:
    """Whether the process is to end.

    No ``threading.Event``: a signal may interrupt the thread that holds its lock, and would then wait for ever.
    """

    def __init__(self) -> None:
        self.is_set = False

    def set(self, *_: object) -> None:
        """Ask it to; also as the handler of a signal."""
        self.is_set = True

    def wait(self) -> None:
        while not self.is_set:
            time.sleep(_POLL_S)


def stop_on_signals() -> StopRequest:
    """Set by SIGINT and SIGTERM, which ``ros2 launch`` and a terminal may send twice, and when a terminal is closed."""
    stop = StopRequest()
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # which nohup asks for
            signal.signal(number, stop.set)
    return stop


def ignore_signals() -> None:
    """Let nothing more come: Python drops its handlers while it ends, and a signal that came twice would kill it."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
