"""How fast detector-free matchers are on this machine, with the backbone of the keyframe kept and without.

All of them match the same pairs and take turns in one process, so that whatever else the machine does meets all
alike. Ratios are medians of ratios of neighbours in time, by the processor time of all threads, which other programs
disturb less than the clock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from feature_matcher_ros.datatypes import Image
from feature_matcher_ros.evaluation.benchmark_machine import limited_process, machine_line
from feature_matcher_ros.evaluation.learned_contenders import image_pairs
from feature_matcher_ros.matchers.adaptive import StopRule
from feature_matcher_ros.matchers.dense_graphs import FULL, OPTIMIZED, open_dense
from feature_matcher_ros.matchers.detector_free import DenseRules, DetectorFree
from feature_matcher_ros.models.dense_cost import dense_cost
from feature_matcher_ros.runtimes.manifest import read_manifest

# Scores do not matter here: weights that nobody trained have few matches, and refinement is to be measured, too.
_RULES = DenseRules(min_score=0.0, stop=StopRule(None))

Size = tuple[int, int]  # (width, height)
Key = tuple[str, str]  # network, and how it compares cells


@dataclass(frozen=True, slots=True)
class DenseSetting:
    """What is measured."""

    graphs: tuple[Path, ...]
    pairs: tuple[Path, ...] = ()  # JSON files; none: rendered frames
    sizes: tuple[Size, ...] = ((640, 480), (320, 240))  # of the images, which are resized
    runtime: str = "onnx"
    num_threads: int = 2
    max_pairs: int = 3  # of each file
    repetitions: int = 3
    max_seconds: float = 240.0  # for each size, when every contender had its turn


@dataclass(frozen=True, slots=True)
class DenseRow:
    """One contender at one size of image; medians over all turns."""

    network: str
    coarse: str  # how cells are compared
    size: Size
    tokens: int  # features of an image that attention sees
    num_turns: int
    num_matches: float  # mean
    pair_s: float  # both images and their matches
    cached_s: float  # one image and its matches with one that was seen before
    pair_cpu_s: float
    cached_cpu_s: float
    over_uncached: float  # how many times faster with one image seen before
    over_last: float | None  # how many times faster than the last contender, on both images
    gflop: float  # multiplications and additions for both images
    gflops: float  # the same over the time


@dataclass(frozen=True, slots=True)
class DenseBenchmark:
    """All rows, and what they hold for."""

    machine: str
    pairs: tuple[str, ...]
    num_threads: int
    rows: tuple[DenseRow, ...]


@dataclass(frozen=True, slots=True)
class _Turn:
    """One contender on one pair: seconds on the clock and of the processor."""

    pair_s: float
    cached_s: float
    pair_cpu_s: float
    cached_cpu_s: float
    num_matches: int
    gflop: float


def run_dense_benchmark(
    setting: DenseSetting, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> DenseBenchmark:
    """Measure at all sizes, in a process that is limited to the threads of the setting.

    It imports the main module again: a script that calls this needs the usual ``if __name__ == "__main__"``.

    Raises:
        RuntimeLoadError: a folder holds no graphs of the kind.
        SourceError: the pairs cannot be read.
    """
    machine, rows = machine_line(), []
    with limited_process(setting.num_threads) as pool:
        for number, size in enumerate(setting.sizes):
            on_progress(number, len(setting.sizes))
            rows += pool.submit(_measure, setting, size).result()
    on_progress(len(setting.sizes), len(setting.sizes))
    names = tuple(path.stem for path in setting.pairs) or ("rendered frames",)
    return DenseBenchmark(machine, names, setting.num_threads, tuple(rows))


def dense_table(benchmark: DenseBenchmark) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows."""
    header = ["", "compares", "size", "tokens", "turns", "matches", "s a pair", "s cached", "CPU s", "CPU s cached"]
    rows: list[tuple[str, ...]] = [
        (
            row.network,
            row.coarse,
            f"{row.size[0]}x{row.size[1]}",
            str(row.tokens),
            str(row.num_turns),
            f"{row.num_matches:.0f}",
            f"{row.pair_s:.2f}",
            f"{row.cached_s:.2f}",
            f"{row.pair_cpu_s:.2f}",
            f"{row.cached_cpu_s:.2f}",
            f"{row.over_uncached:.2f}",
            "" if row.over_last is None else f"{row.over_last:.2f}",
            f"{row.gflop:.0f}",
            f"{row.gflops:.0f}",
        )
        for row in benchmark.rows
    ]
    return [*header, "over uncached", "over last", "GFLOP", "GFLOP/s"], rows


def _measure(setting: DenseSetting, size: Size) -> list[DenseRow]:
    logging.getLogger("feature_matcher_ros").addHandler(logging.NullHandler())  # this is a process of its own
    matchers = _contenders(setting)
    pairs = [
        (cv2.resize(image0, size, interpolation=cv2.INTER_AREA), cv2.resize(image1, size, interpolation=cv2.INTER_AREA))
        for image0, image1 in image_pairs(setting.pairs, setting.max_pairs)
    ]
    for matcher in matchers.values():
        _turn(matcher, pairs[0], size)
    turns: dict[Key, list[_Turn]] = {key: [] for key in matchers}
    begun = time.monotonic()
    for number, pair in enumerate(pairs * setting.repetitions):
        if number and time.monotonic() - begun > setting.max_seconds:
            break
        for key in list(matchers)[:: -1 if number % 2 else 1]:  # no contender always comes after the same one
            turns[key].append(_turn(matchers[key], pair, size))
    last = list(matchers)[-1]
    return [_row(key, size, matchers[key], turns[key], None if key == last else turns[last]) for key in matchers]


def _contenders(setting: DenseSetting) -> Mapping[Key, DetectorFree]:
    found: dict[Key, DetectorFree] = {}
    for folder in setting.graphs:
        name = f"{read_manifest(folder).method} {read_manifest(folder).weights}"
        full = open_dense(folder, num_threads=setting.num_threads, runtime=setting.runtime)
        found[name, FULL] = DetectorFree(full, _RULES)
        if full.config.has_optimized:
            graphs = open_dense(folder, True, setting.runtime, setting.num_threads)
            found[name, OPTIMIZED] = DetectorFree(graphs, _RULES)
    return found


def _turn(matcher: DetectorFree, pair: tuple[Image, Image], size: Size) -> _Turn:
    clock, cpu = [time.perf_counter()], [time.process_time()]
    features = []
    for image in pair:
        features.append(matcher.extract(image))
        clock.append(time.perf_counter())
        cpu.append(time.process_time())
    matches = matcher.match(features[0], features[1])
    clock.append(time.perf_counter())
    cpu.append(time.process_time())
    config = matcher.graphs.config
    cost = dense_cost(config, _padded(size, config.multiple), matches.layers_run or 0, len(matches))
    gflop = 2e-9 * (2 * cost.backbone + cost.rounds + cost.coarse + cost.fine)
    return _Turn(clock[-1] - clock[0], clock[-1] - clock[1], cpu[-1] - cpu[0], cpu[-1] - cpu[1], len(matches), gflop)


def _padded(size: Size, multiple: int) -> Size:
    width, height = (-(-length // multiple) * multiple for length in size)
    return width, height


def _row(key: Key, size: Size, matcher: DetectorFree, own: Sequence[_Turn], last: Sequence[_Turn] | None) -> DenseRow:
    pair_s = float(np.median([turn.pair_s for turn in own]))
    config = matcher.graphs.config
    gflop = float(np.mean([turn.gflop for turn in own]))
    over_last = None
    if last is not None:
        over_last = float(np.median([b.pair_cpu_s / a.pair_cpu_s for a, b in zip(own, last, strict=True)]))
    return DenseRow(
        network=key[0],
        coarse=key[1],
        size=size,
        tokens=dense_cost(config, _padded(size, config.multiple), 0, 0).tokens,
        num_turns=len(own),
        num_matches=float(np.mean([turn.num_matches for turn in own])),
        pair_s=pair_s,
        cached_s=float(np.median([turn.cached_s for turn in own])),
        pair_cpu_s=float(np.median([turn.pair_cpu_s for turn in own])),
        cached_cpu_s=float(np.median([turn.cached_cpu_s for turn in own])),
        over_uncached=float(np.median([turn.pair_cpu_s / turn.cached_cpu_s for turn in own])),
        over_last=over_last,
        gflop=gflop,
        gflops=gflop / pair_s,
    )
