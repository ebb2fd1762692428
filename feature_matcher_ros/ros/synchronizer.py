"""Pairing the images of two cameras, or images and depth, by their stamps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from feature_matcher_ros.evaluation.stamp_pairing import MAX_KEPT, Paired, StampPairer

_GAPS = 8  # latest gaps between messages of the second stream, whose least tells when the next one is due


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """The messages of one frame."""

    stamp_ns: int
    image: Any
    second: Any = None  # the right image, or depth
    skew_ns: int = 0  # the stamp of the second minus that of the image
    arrived_s: float = 0.0  # when the last of them came, on time.monotonic()


class Synchronizer:
    """Gives every image its partner: that of the same stamp, else the nearest within a tolerance.

    The decisions are those of replay. Replay waits until the second stream has gone past an image, even for a whole
    period; with ``is_prompt`` an image goes as soon as no nearer partner is due.
    """

    def __init__(self, tolerance_ns: int, *, is_prompt: bool) -> None:
        self._pairer = StampPairer[Any, tuple[int, Any]](tolerance_ns)
        self._tolerance_ns = tolerance_ns
        self._is_prompt = is_prompt
        self._gaps_ns: deque[int] = deque(maxlen=_GAPS)
        self._first_ns: int | None = None  # the newest stamp of either stream
        self._second_ns: int | None = None
        self._ahead_ns = deque[int](maxlen=MAX_KEPT)  # stamps of the second stream that no image has reached

        self.image_lead = 0  # images that wait for the second stream

    @property
    def second_lead(self) -> int:
        """Messages of the second stream that wait for images."""
        return len(self._ahead_ns)

    def add_image(self, stamp_ns: int, message: Any) -> Iterator[Bundle]:
        """Take in an image; yield the frames that are decided by now, those without a partner as well."""
        jumps_back = self._first_ns is not None and stamp_ns < self._first_ns
        while self._ahead_ns and (jumps_back or self._ahead_ns[0] <= stamp_ns):
            self._ahead_ns.popleft()
        self._first_ns = stamp_ns
        self.image_lead += 1
        yield from self._bundles(self._pairer.add_first(stamp_ns, message))
        yield from self._prompt()

    def add_second(self, stamp_ns: int, message: Any) -> Iterator[Bundle]:
        """Take in a right image or a depth map; yield the frames that are decided by now."""
        if self._second_ns is not None and stamp_ns > self._second_ns:
            self._gaps_ns.append(stamp_ns - self._second_ns)
        else:
            self._ahead_ns.clear()
        self._ahead_ns.append(stamp_ns)
        self._second_ns = stamp_ns
        yield from self._bundles(self._pairer.add_second(stamp_ns, (stamp_ns, message)))
        yield from self._prompt()

    def finish(self) -> Iterator[Bundle]:
        """Yield what still waits; nothing more will come."""
        yield from self._bundles(self._pairer.finish())

    def _bundles(self, pairs: Iterable[Paired[Any, tuple[int, Any]]]) -> Iterator[Bundle]:
        for pair in pairs:
            self.image_lead -= 1
            yield _bundle(pair)

    def _prompt(self) -> Iterator[Bundle]:
        """Decide early where the partner at hand is nearer than the one that is due next can be."""
        if self._is_prompt and self._pairer.is_waiting and self._gaps_ns and self._second_ns and self._first_ns:
            behind_ns = self._first_ns - self._second_ns
            if 0 <= behind_ns <= min(self._tolerance_ns, min(self._gaps_ns) // 2):
                yield from self.finish()


def _bundle(pair: Paired[Any, tuple[int, Any]]) -> Bundle:
    now_s = time.monotonic()
    if pair.partner is None:
        return Bundle(pair.stamp_ns, pair.item, arrived_s=now_s)
    return Bundle(pair.stamp_ns, pair.item, pair.partner[1], pair.partner[0] - pair.stamp_ns, now_s)
