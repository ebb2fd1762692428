"""How long every graph of a matching network takes in a runtime, by the clock of its device, beside torch.

All contenders match the same points of the same pairs and take turns in one process. Memory is that of another
process, or of the GPU meanwhile, that has opened nothing else.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from feature_matcher_ros.config import AUTO, RUNTIMES
from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.evaluation.benchmark_machine import limited_process, machine_line, times_faster
from feature_matcher_ros.evaluation.learned_contenders import (
    ADAPTIVE,
    ALL_LAYERS,
    COMPILED,
    MODES,
    LearnedSetting,
    NoExtractor,
    PointPair,
    modes_of,
    point_pairs,
)
from feature_matcher_ros.evaluation.runtime_tables import GraphTime, RuntimeBenchmark, RuntimeRow
from feature_matcher_ros.matchers.lightglue import LightGlue
from feature_matcher_ros.matchers.lightglue_graphs import EMBED, LightGlueGraphs, head_name, open_lightglue, stage_name
from feature_matcher_ros.runtimes.graph_spec import GraphSpec
from feature_matcher_ros.runtimes.meter import Meter
from feature_matcher_ros.runtimes.runtime import Runtime

_WARM_UP = 4  # turns that do not count: a GPU is slow to wake, and captures what it sees for the third time
_EAGER = "torch, eager"  # the module itself; the runtime torch executes its graphs


@dataclass(slots=True, eq=False)
class TimedGraph:
    """Executes a graph between two marks of its device, without waiting for them."""

    graph: Runtime
    marks: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.graph.name

    @property
    def precision(self) -> str:
        return self.graph.precision

    @property
    def spec(self) -> GraphSpec:
        return self.graph.spec

    @property
    def meter(self) -> Meter:
        return self.graph.meter

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        begin = self.graph.meter.mark()
        found = self.graph.run(inputs)
        self.marks.append((begin, self.graph.meter.mark()))
        return found

    def taken_ms(self) -> list[float]:
        """The times since the last call."""
        marks, self.marks = self.marks, []
        return [self.graph.meter.elapsed_ms(begin, end) for begin, end in marks]


@dataclass(slots=True, eq=False)
class _Contender:
    graphs: LightGlueGraphs
    timed: dict[str, TimedGraph]
    matchers: dict[str, LightGlue]
    turns: dict[str, list[_Turn]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True, slots=True)
class _Turn:
    pair_ms: float
    device_ms: float
    num_matches: int
    layers_run: int
    by_graph: Mapping[str, float]


def run_runtime_benchmark(
    setting: LearnedSetting, runtime: str, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> RuntimeBenchmark:
    """Measure at all numbers of keypoints, in processes that are limited to the threads of the setting.

    They import the main module again: a script that calls this needs the usual ``if __name__ == "__main__"``.

    Raises:
        RuntimeLoadError: there is no such runtime, it cannot be used here, or the folder holds no graphs of the kind.
        WeightsError: the weights cannot be read.
        SourceError: the pairs cannot be read.
    """
    named = tuple(name for name in RUNTIMES if name != AUTO)
    if runtime not in named:
        raise RuntimeLoadError(f"the runtime '{runtime}' is unknown: choose one of {', '.join(named)}.")
    rows: list[RuntimeRow] = []
    graphs: list[GraphTime] = []
    machine = machine_line()
    for number, size in enumerate(setting.keypoints):
        on_progress(number, len(setting.keypoints))
        with limited_process(setting.num_threads) as pool:
            names = pool.submit(_names, setting, runtime).result()
        memory = {}
        for name in names:
            with limited_process(setting.num_threads) as pool:
                memory[name] = pool.submit(_memory_mb, setting, name, size).result()
        with limited_process(setting.num_threads) as pool:
            found, times = pool.submit(_measure, setting, names, size).result()
        rows += [replace(row, memory_mb=memory[row.runtime]) for row in found]
        graphs += times
    on_progress(len(setting.keypoints), len(setting.keypoints))
    pairs = tuple(path.stem for path in setting.pairs) or ("rendered frames",)
    return RuntimeBenchmark(machine, pairs, setting.num_threads, tuple(rows), tuple(graphs))


def timed_network(graphs: LightGlueGraphs) -> tuple[LightGlueGraphs, dict[str, TimedGraph]]:
    """The network with all its graphs measured, and these by name."""
    timed = {EMBED: TimedGraph(graphs.embed)}
    stages = []
    for stage in graphs.stages:
        layers, head = TimedGraph(stage.layers), TimedGraph(stage.head)
        timed |= {stage_name(stage.layers_done): layers, head_name(stage.layers_done): head}
        stages.append(replace(stage, layers=layers, head=head))
    return replace(graphs, embed=timed[EMBED], stages=tuple(stages)), timed


def _names(setting: LearnedSetting, runtime: str) -> tuple[str, ...]:
    """The contenders: what is asked for, opened to see whether it can be, and torch where there are weights."""
    _open(setting, runtime)
    if setting.weights is None:
        return (runtime,)
    is_compiled = _by_torch(setting.weights, compiled=True) is not None
    return (runtime, _EAGER, *[COMPILED] * is_compiled)


def _open(setting: LearnedSetting, name: str) -> LightGlueGraphs:
    graphs = None
    if setting.weights is not None and name in (_EAGER, COMPILED):
        graphs = _by_torch(setting.weights, name == COMPILED)
    return graphs or open_lightglue(setting.graphs, name, setting.num_threads)


def _by_torch(weights: Path, compiled: bool) -> LightGlueGraphs | None:
    try:
        from feature_matcher_ros.export.benchmark import fastest_torch_network
    except ModuleNotFoundError as error:
        raise RuntimeLoadError(
            f"torch is to be measured and cannot be imported ({error}): run pip install 'feature_matcher_ros[torch]'."
        ) from error
    return fastest_torch_network(weights, compiled)


def _memory_mb(setting: LearnedSetting, name: str, size: int) -> float:
    """Memory of a process, or a GPU, in which only this contender matches a pair, until that has been captured."""
    pair = point_pairs(setting, size)[0]
    graphs = _open(setting, name)
    matcher = LightGlue(NoExtractor(), graphs, MODES[ALL_LAYERS])
    for _ in range(_WARM_UP):
        matcher.match(*pair)
    return graphs.embed.meter.memory_mb()


def _measure(setting: LearnedSetting, names: Sequence[str], size: int) -> tuple[list[RuntimeRow], list[GraphTime]]:
    logging.getLogger("feature_matcher_ros").addHandler(logging.NullHandler())  # this is a process of its own
    pairs = point_pairs(setting, size)
    contenders = {name: _contender(setting, name) for name in names}
    total = _WARM_UP + len(pairs) * setting.repetitions
    for number in range(total):
        pair = pairs[number % len(pairs)]
        for name in list(names)[:: -1 if number % 2 else 1]:  # no contender always comes after the same one
            for mode in contenders[name].matchers:
                turn = _turn(contenders[name], mode, pair)
                if number >= _WARM_UP:
                    contenders[name].turns[mode].append(turn)
    base = contenders.get(_EAGER)
    rows = [
        _row(name, contender, mode, size, None if base is None or base is contender else base.turns[mode])
        for name, contender in contenders.items()
        for mode in contender.matchers
    ]
    return rows, [found for name, contender in contenders.items() for found in _graph_times(name, contender, size)]


def _contender(setting: LearnedSetting, name: str) -> _Contender:
    modes = modes_of(open_lightglue(setting.graphs, "onnx", 1))
    graphs, timed = timed_network(_open(setting, name))
    matchers = {mode: LightGlue(NoExtractor(), graphs, modes[mode]) for mode in (ALL_LAYERS, ADAPTIVE)}
    return _Contender(graphs, timed, matchers)


def _turn(contender: _Contender, mode: str, pair: PointPair) -> _Turn:
    begun_ns = time.perf_counter_ns()
    matches = contender.matchers[mode].match(*pair)
    pair_ms = (time.perf_counter_ns() - begun_ns) * 1e-6
    by_graph = {name: sum(graph.taken_ms()) for name, graph in contender.timed.items() if graph.marks}
    return _Turn(
        pair_ms=pair_ms,
        device_ms=sum(by_graph.values()),
        num_matches=len(matches),
        layers_run=matches.layers_run or 0,
        by_graph=by_graph,
    )


def _row(name: str, contender: _Contender, mode: str, size: int, base: Sequence[_Turn] | None) -> RuntimeRow:
    turns = contender.turns[mode]
    stage = contender.graphs.stages[0].layers
    taken_ms = [turn.pair_ms for turn in turns]
    return RuntimeRow(
        runtime=name,
        precision=stage.precision,
        clock=stage.meter.name,
        mode=mode,
        max_keypoints=size,
        num_turns=len(turns),
        num_matches=float(np.mean([turn.num_matches for turn in turns])),
        layers_run=float(np.mean([turn.layers_run for turn in turns])),
        median_ms=float(np.median(taken_ms)),
        device_ms=float(np.median([turn.device_ms for turn in turns])),
        pairs_per_s=1e3 * len(turns) / sum(taken_ms),
        over_torch=None if base is None else times_faster(taken_ms, [turn.pair_ms for turn in base]),
        memory_mb=0.0,
    )


def _graph_times(name: str, contender: _Contender, size: int) -> list[GraphTime]:
    times = defaultdict(list)
    for turn in contender.turns[ALL_LAYERS]:
        for graph, taken_ms in turn.by_graph.items():
            times[graph].append(taken_ms)
    return [
        GraphTime(name, size, graph, len(taken), float(np.median(taken)), float(np.percentile(taken, 90)))
        for graph, taken in times.items()
    ]
