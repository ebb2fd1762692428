"""Pairing two streams by time while they are read, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

First = TypeVar("First")
Second = TypeVar("Second")

_MAX_WAITING = 16  # items of the first stream that wait for a partner; more lag than this is not waited for
MAX_KEPT = 32  # items of the second stream that are kept


@dataclass(frozen=True, slots=True)
class Paired(Generic[First, Second]):
    """An item of the first stream with its partner, if it has one."""

    stamp_ns: int
    item: First
    partner: Second | None


class StampPairer(Generic[First, Second]):
    """Gives every item of a first stream the nearest one of a second stream, within a tolerance.

    An item waits until the second stream has gone past its time, so that a partner may be recorded
    later than it. A stamp that occurs in both streams is always paired with itself.
    """

    def __init__(self, tolerance_ns: int) -> None:
        self._tolerance_ns = tolerance_ns
        self._waiting: deque[tuple[int, First]] = deque()
        self._seconds: deque[tuple[int, Second]] = deque(maxlen=MAX_KEPT)
        self._newest_ns: int | None = None  # of the second stream
        self._last_ns: int | None = None  # of the first stream

    @property
    def is_waiting(self) -> bool:
        """Tell whether an item has not been decided about."""
        return bool(self._waiting)

    def add_first(self, stamp_ns: int, item: First) -> Iterator[Paired[First, Second]]:
        """Take in an item of the first stream; yield what is decided by now."""
        if self._last_ns is not None and stamp_ns < self._last_ns:
            # Time ran backwards: what waits has had its chance, and the second stream will begin anew, too.
            yield from self.finish()
            self._newest_ns = None
        self._last_ns = stamp_ns
        self._waiting.append((stamp_ns, item))
        if len(self._waiting) > _MAX_WAITING:
            yield self._decide()
        yield from self._decided()

    def add_second(self, stamp_ns: int, item: Second) -> Iterator[Paired[First, Second]]:
        """Take in an item of the second stream; yield what is decided by now."""
        self._seconds.append((stamp_ns, item))
        self._newest_ns = stamp_ns
        yield from self._decided()

    def finish(self) -> Iterator[Paired[First, Second]]:
        """Yield what still waits; nothing more will come."""
        while self._waiting:
            yield self._decide()

    def _decided(self) -> Iterator[Paired[First, Second]]:
        while self._waiting and self._newest_ns is not None and self._newest_ns >= self._waiting[0][0]:
            yield self._decide()

    def _decide(self) -> Paired[First, Second]:
        stamp_ns, item = self._waiting.popleft()
        # Of two with the same stamp, as after a jump back in time, the later one counts.
        nearest = min(reversed(self._seconds), key=lambda second: abs(second[0] - stamp_ns), default=None)
        if nearest is None or abs(nearest[0] - stamp_ns) > self._tolerance_ns:
            return Paired(stamp_ns, item, None)
        return Paired(stamp_ns, item, nearest[1])
