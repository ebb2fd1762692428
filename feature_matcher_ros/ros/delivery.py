"""How a message goes from the middleware to who asked for it; the same for every adapter."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from feature_matcher_ros.errors import SourceError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """Reads the bytes of one topic and hands over what they say; never raises."""

    topic: str
    type_name: str
    decode: Callable[[bytes], Any]
    on_message: Callable[[Any], None]
    on_damaged: Callable[[Exception], None]

    def hand_over(self, data: bytes) -> None:
        try:
            message = self.decode(data)
        except Exception as error:  # parsers stumble over damaged bytes in many ways
            self.on_damaged(SourceError(f"a message on {self.topic} is not a whole {self.type_name} ({error})."))
            return
        try:
            self.on_message(message)
        except Exception as error:  # the next message must be taken all the same
            _LOG.exception("the callback of %s failed: %r", self.topic, error)
