"""What became of every image that arrived: processed, or dropped for a reason."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class DropReason(str, Enum):
    """Why an image was not processed."""

    SUPERSEDED = "superseded"  # a newer one came before there was time for it
    TOO_OLD = "too_old"
    OUT_OF_ORDER = "out_of_order"  # older than one before it, but not by a jump in time
    WITHOUT_STAMP = "without_stamp"
    WITHOUT_PARTNER = "without_partner"  # no right image or depth within the allowed skew
    NOT_CALIBRATED = "not_calibrated"
    NOT_DECODED = "not_decoded"
    FAILED = "failed"  # an error of the front-end itself
    STOPPED = "stopped"  # still waiting when the node was deactivated


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """The account at one moment: ``received = processed + sum(dropped) + waiting``."""

    received: int
    processed: int
    dropped: Mapping[DropReason, int]
    damaged: int  # messages that could not even be read; not among those received

    @property
    def num_dropped(self) -> int:
        return sum(self.dropped.values())

    @property
    def waiting(self) -> int:
        return self.received - self.processed - self.num_dropped


class FrameLedger:
    """Keeps the account of one camera, for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = self._processed = self._damaged = 0
        self._dropped: Counter[DropReason] = Counter()

    def receive(self) -> None:
        with self._lock:
            self._received += 1

    def process(self) -> None:
        with self._lock:
            self._processed += 1

    def damage(self) -> None:
        with self._lock:
            self._damaged += 1

    def drop(self, reason: DropReason, count: int = 1) -> None:
        with self._lock:
            self._dropped[reason] += count

    def counts(self) -> FrameCounts:
        with self._lock:
            dropped = {reason: count for reason, count in self._dropped.items() if count}
            return FrameCounts(self._received, self._processed, dropped, self._damaged)
