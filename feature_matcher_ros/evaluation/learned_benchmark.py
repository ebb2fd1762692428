"""How fast a learned matcher is on this machine: its graphs, beside the torch network of the same weights.

All of them match the same points of the same pairs by the same thresholds and take turns in one process, so
that whatever else the machine does meets all alike; ratios are medians of ratios of neighbours in time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from feature_matcher_ros.datatypes import Matches
from feature_matcher_ros.evaluation.benchmark_machine import MatrixProduct, limited_process, machine_line, times_faster
from feature_matcher_ros.evaluation.budget_benchmark import BudgetRow, measure_budget
from feature_matcher_ros.evaluation.learned_contenders import (
    ADAPTIVE,
    ALL_LAYERS,
    DEPTH,
    ONNX,
    TORCH,
    GivenPoints,
    Key,
    LearnedSetting,
    PointPair,
    contenders,
    point_pairs,
    require_same_matches,
    superglue_contender,
)
from feature_matcher_ros.matchers.lightglue import LightGlue
from feature_matcher_ros.matchers.lightglue_graphs import LightGlueGraphs
from feature_matcher_ros.models.superglue_config import SuperGlueConfig
from feature_matcher_ros.runtimes.manifest import announce_licence, read_manifest


@dataclass(frozen=True, slots=True)
class LearnedRow:
    """One contender at one number of keypoints; medians over all turns."""

    runtime: str
    mode: str  # of ``MODES``, or SUPERGLUE
    max_keypoints: int
    num_points: float  # mean over the images
    num_turns: int
    layers_run: float  # mean
    median_ms: float
    cpu_ms: float  # of all threads together
    over_torch: float | None  # how many times faster than torch in the same mode
    over_all_layers: float | None  # how many times faster than LightGlue, same runtime, with all layers and points
    gflops: float  # arithmetic of the layers that were run, over the time
    gemm_share: float  # of that, what a large matrix product reached at the same time
    over_depth: float | None = None  # how many times faster than the same runtime that stops as early with all points


@dataclass(frozen=True, slots=True)
class LearnedBenchmark:
    """All rows, and what they hold for."""

    machine: str
    network: str
    extractor: str
    pairs: tuple[str, ...]
    num_threads: int
    gemm_gflops: float  # median of the large matrix product
    best_gemm_gflops: float
    notes: tuple[str, ...]
    rows: tuple[LearnedRow, ...]
    budgets: tuple[BudgetRow, ...]


@dataclass(frozen=True, slots=True)
class _Turn:
    """One contender on one pair."""

    elapsed_ms: float
    cpu_ms: float
    layers_run: int
    gflop: float


@dataclass(frozen=True, slots=True)
class _Measured:
    """What a process has to say of one number of keypoints."""

    rows: tuple[LearnedRow, ...]
    budget: BudgetRow
    gemm_gflops: tuple[float, ...]
    notes: tuple[str, ...]


def run_learned_benchmark(
    setting: LearnedSetting, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> LearnedBenchmark:
    """Measure at all numbers of keypoints, in a process that is limited to the threads of the setting.

    It imports the main module again: a script that calls this needs the usual ``if __name__ == "__main__"``.

    Raises:
        RuntimeLoadError: a folder holds no graphs of the kind.
        WeightsError: the weights cannot be read.
        MatcherError: the points do not fit the network, or the weights are not those of the graphs.
        SourceError: the pairs cannot be read.
    """
    machine, manifest = machine_line(), read_manifest(setting.graphs)
    announce_licence(manifest)
    measured: list[_Measured] = []
    with limited_process(setting.num_threads) as pool:
        for size in setting.keypoints:
            on_progress(len(measured), len(setting.keypoints))
            measured.append(pool.submit(_measure, setting, size).result())
    on_progress(len(measured), len(setting.keypoints))
    gemm = [gflops for part in measured for gflops in part.gemm_gflops]
    return LearnedBenchmark(
        machine=machine,
        network=f"{manifest.method} {manifest.weights}",
        extractor="sift" if setting.points is None else read_manifest(setting.points).method,
        pairs=tuple(path.stem for path in setting.pairs) or ("rendered frames",),
        num_threads=setting.num_threads,
        gemm_gflops=float(np.median(gemm)),
        best_gemm_gflops=max(gemm),
        notes=measured[0].notes,
        rows=tuple(row for part in measured for row in part.rows),
        budgets=tuple(part.budget for part in measured),
    )


def learned_table(benchmark: LearnedBenchmark) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows."""
    header = ["", "mode", "keypoints", "points", "turns", "layers", "ms", "CPU ms", "over torch", "over all layers"]
    header += ["over depth", "GFLOP/s", "of GEMM"]
    rows: list[tuple[str, ...]] = [
        (
            row.runtime,
            row.mode,
            str(row.max_keypoints),
            f"{row.num_points:.0f}",
            str(row.num_turns),
            f"{row.layers_run:.1f}",
            f"{row.median_ms:.1f}",
            f"{row.cpu_ms:.1f}",
            _ratio(row.over_torch),
            _ratio(row.over_all_layers),
            _ratio(row.over_depth),
            f"{row.gflops:.0f}",
            f"{100.0 * row.gemm_share:.0f} %",
        )
        for row in benchmark.rows
    ]
    return header, rows


def network_gflop(graphs: LightGlueGraphs, matches: Matches) -> float:
    """Multiplications and additions of the layers that were run, in the leanest form known, and of the head.

    For n points of both images together and states of width w, a layer has 17 n w² + 2 n² w multiplications: the
    linear layers, where that behind an attention is part of the next one, and four attentions of two products each.
    """
    width, ends = graphs.config.width, (0, *(stage.layers_done for stage in graphs.stages))
    if matches.points_per_stage is None or len(matches.points_per_stage) == 0:
        return 0.0
    total = 0.0
    for (points0, points1), (begin, end) in zip(matches.points_per_stage.tolist(), pairwise(ends), strict=False):
        num_points = points0 + points1
        total += (end - begin) * (17.0 * num_points * width**2 + 2.0 * num_points**2 * width)
    total += num_points * width**2 + points0 * points1 * width
    return 2e-9 * total


def superglue_gflop(config: SuperGlueConfig, num_points: tuple[int, int]) -> float:
    """The same for SuperGlue, as its authors have it; the iterations of its transport are not products.

    Each of a layer's two attentions has ten linear layers' worth of w² for each point, and two products.
    """
    points0, points1 = num_points
    width, both = config.width, points0 + points1
    encoder = sum(before * after for before, after in pairwise((3, *config.encoder_widths, width)))
    total = both * float(encoder + config.layers * 20 * width**2 + width**2)
    total += config.layers * 2.0 * width * both**2 + points0 * points1 * width
    return 2e-9 * total


def _measure(setting: LearnedSetting, size: int) -> _Measured:
    logging.getLogger("feature_matcher_ros").addHandler(logging.NullHandler())  # this is a process of its own
    matchers, notes = contenders(setting)
    pairs = point_pairs(setting, size)
    require_same_matches(matchers, pairs[0])
    superglue = superglue_contender(setting)
    for matcher in superglue.values():
        matcher.match(*pairs[0])
    turns, gemm = _take_turns({**matchers, **superglue}, pairs, setting)
    num_points = float(np.mean([len(features) for pair in pairs for features in pair]))
    rows = {key: _row(key, size, num_points, turns, gemm) for key in turns}
    full = (ONNX, ALL_LAYERS)
    budget = measure_budget(matchers[full], pairs, size, rows[full].median_ms)
    return _Measured(tuple(rows.values()), budget, tuple(gemm), notes)


def _take_turns(
    matchers: Mapping[Key, LightGlue | GivenPoints], pairs: Sequence[PointPair], setting: LearnedSetting
) -> tuple[dict[Key, list[_Turn]], list[float]]:
    """Turns of all contenders, and the speeds of a matrix product in between."""
    turns: dict[Key, list[_Turn]] = {key: [] for key in matchers}
    gemm, product, begun = [], MatrixProduct(), time.monotonic()
    product.gflops()
    for number, pair in enumerate(list(pairs) * setting.repetitions):
        if number and time.monotonic() - begun > setting.max_seconds:
            break
        gemm.append(product.gflops())
        for key, matcher in _alternating(matchers, number):
            turns[key].append(_turn(matcher, pair))
    return turns, gemm


def _alternating(
    matchers: Mapping[Key, LightGlue | GivenPoints], number: int
) -> Iterator[tuple[Key, LightGlue | GivenPoints]]:
    """The contenders in one order and then in the other, so that none always comes after the same one."""
    return iter(list(matchers.items())[:: -1 if number % 2 else 1])


def _turn(matcher: LightGlue | GivenPoints, pair: PointPair) -> _Turn:
    begun_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
    matches = matcher.match(*pair)
    elapsed_ms, cpu_ms = (time.perf_counter_ns() - begun_ns) * 1e-6, (time.process_time_ns() - cpu_ns) * 1e-6
    if isinstance(matcher, LightGlue):
        gflop = network_gflop(matcher.graphs, matches)
    else:
        gflop = superglue_gflop(matcher.graphs.config, (len(pair[0]), len(pair[1])))
    return _Turn(elapsed_ms, cpu_ms, matches.layers_run or 0, gflop)


def _row(
    key: Key, size: int, num_points: float, turns: Mapping[Key, Sequence[_Turn]], gemm: Sequence[float]
) -> LearnedRow:
    own = turns[key]
    speeds = np.array([1e3 * turn.gflop / turn.elapsed_ms for turn in own])
    return LearnedRow(
        runtime=key[0],
        mode=key[1],
        max_keypoints=size,
        num_points=num_points,
        num_turns=len(own),
        layers_run=float(np.mean([turn.layers_run for turn in own])),
        median_ms=float(np.median([turn.elapsed_ms for turn in own])),
        cpu_ms=float(np.median([turn.cpu_ms for turn in own])),
        over_torch=_times_faster(own, turns.get((TORCH, key[1]))),
        over_all_layers=_times_faster(own, turns.get((key[0], ALL_LAYERS))),
        gflops=float(np.median(speeds)),
        gemm_share=float(np.median(speeds / np.array(gemm))),
        over_depth=_times_faster(own, turns.get((key[0], DEPTH))) if key[1] == ADAPTIVE else None,
    )


def _times_faster(turns: Sequence[_Turn], base: Sequence[_Turn] | None) -> float | None:
    if base is None or base is turns:
        return None
    return times_faster([turn.elapsed_ms for turn in turns], [turn.elapsed_ms for turn in base])


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
