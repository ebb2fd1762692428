"""What the package logs, as ROS logs it: on the console, in its files and on ``/rosout``."""

from __future__ import annotations

import logging
from typing import Any


class RosLogHandler(logging.Handler):
    """Passes records of Python's logging on to the logger of a node."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.DEBUG)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record; every severity in a line of its own, because rclpy allows a line of code no second one."""
        text = self.format(record)
        if record.levelno >= logging.CRITICAL:
            self._logger.fatal(text)
        elif record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


def log_to(logger: Any) -> None:
    """Let a node's logger say from now on what the package has to say, down to the level that ROS was told."""
    own = logging.getLogger("feature_matcher_ros")
    for handler in [handler for handler in own.handlers if isinstance(handler, RosLogHandler)]:
        own.removeHandler(handler)
    own.addHandler(RosLogHandler(logger))
    own.setLevel(int(logger.get_effective_level()))  # the numbers are those of Python
    own.propagate = False
