"""What the latest frames of a camera were like: rates, ages, times, layers."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.datatypes import FrontEndResult, TrackingState

_WINDOW_S = 10.0
_MAX_FRAMES = 2000


@dataclass(frozen=True, slots=True, eq=False)
class FrameRecord:
    """What is remembered of one frame."""

    finished_s: float  # time.monotonic()
    age_ms: float | None  # of the image when all was published; None where clock and stamps do not belong together
    processing_ms: float  # in the front-end
    overhead_ms: float  # from the arrival to the last publication, less the front-end's; waiting is part of it
    skew_ms: float
    result: FrontEndResult


@dataclass(frozen=True, slots=True, eq=False)
class FrameSummary:
    """A summary of the latest frames; what was not measured is None."""

    rate_hz: float
    age_ms: tuple[float, float] | None  # p50, p95
    processing_ms: tuple[float, float] | None
    overhead_ms: tuple[float, float] | None
    max_skew_ms: float | None
    inlier_ratio: float | None  # mean over the matched frames
    layers_run: Mapping[int, int]  # frames by layers
    state: TrackingState | None  # of the newest frame
    silent_s: float | None  # since the newest frame


class FrameStatistics:
    """Remembers the frames of ten seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: deque[FrameRecord] = deque(maxlen=_MAX_FRAMES)
        self._newest: FrameRecord | None = None

    def add(self, record: FrameRecord) -> None:
        with self._lock:
            self._forget_before(record.finished_s - _WINDOW_S)
            self._records.append(record)
            self._newest = record

    def summary(self) -> FrameSummary:
        now_s = time.monotonic()
        with self._lock:
            self._forget_before(now_s - _WINDOW_S)
            records, newest = list(self._records), self._newest
        return FrameSummary(
            rate_hz=_rate_hz(records, now_s),
            age_ms=_percentiles([record.age_ms for record in records if record.age_ms is not None]),
            processing_ms=_percentiles([record.processing_ms for record in records]),
            overhead_ms=_percentiles([record.overhead_ms for record in records]),
            max_skew_ms=max((abs(record.skew_ms) for record in records), default=None),
            inlier_ratio=_mean_inlier_ratio(records),
            layers_run=_layers(records),
            state=None if newest is None else newest.result.state,
            silent_s=None if newest is None else now_s - newest.finished_s,
        )

    def _forget_before(self, begin_s: float) -> None:
        while self._records and self._records[0].finished_s < begin_s:
            self._records.popleft()


class RateMeter:
    """Turns a counter that only grows into a rate, from one look to the next."""

    def __init__(self) -> None:
        self._seen = 0
        self._looked_s = time.monotonic()

    def rate_hz(self, count: int) -> float:
        now_s = time.monotonic()
        rate = (count - self._seen) / max(now_s - self._looked_s, 1e-3)
        self._seen, self._looked_s = count, now_s
        return rate


def _rate_hz(records: list[FrameRecord], now_s: float) -> float:
    return len(records) / max(now_s - records[0].finished_s, 1.0) if records else 0.0


def _percentiles(values: list[float]) -> tuple[float, float] | None:
    if not values:
        return None
    p50, p95 = np.percentile(values, [50, 95]).tolist()
    return p50, p95


def _mean_inlier_ratio(records: list[FrameRecord]) -> float | None:
    masks = [record.result.inliers for record in records]
    ratios = [float(np.mean(inliers)) for inliers in masks if inliers is not None and len(inliers)]
    return float(np.mean(ratios)) if ratios else None


def _layers(records: list[FrameRecord]) -> dict[int, int]:
    matches = [record.result.matches for record in records]
    counts = Counter(found.layers_run for found in matches if found is not None and found.layers_run is not None)
    return {layers: counts[layers] for layers in sorted(counts)}
