"""What the benchmark of runtimes has found, and its tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GraphTime:
    """One graph in one contender, when all layers are run."""

    runtime: str
    max_keypoints: int
    graph: str
    num_calls: int
    median_ms: float
    p90_ms: float


@dataclass(frozen=True, slots=True)
class RuntimeRow:
    """One contender in one mode at one number of keypoints."""

    runtime: str
    precision: str
    clock: str
    mode: str
    max_keypoints: int
    num_turns: int
    num_matches: float  # mean
    layers_run: float  # mean
    median_ms: float  # of a pair, on the clock of the host
    device_ms: float  # of all its graphs, on that of the device
    pairs_per_s: float
    over_torch: float | None  # how many times faster than torch, eager, in the same mode
    memory_mb: float


@dataclass(frozen=True, slots=True)
class RuntimeBenchmark:
    """All rows, and what they hold for."""

    machine: str
    pairs: tuple[str, ...]
    num_threads: int
    rows: tuple[RuntimeRow, ...]
    graphs: tuple[GraphTime, ...]


def runtime_table(benchmark: RuntimeBenchmark) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows: whole pairs."""
    header = ["", "precision", "mode", "keypoints", "turns", "matches", "layers", "ms", "of it graphs", "pairs/s"]
    rows: list[tuple[str, ...]] = [
        (
            row.runtime,
            row.precision,
            row.mode,
            str(row.max_keypoints),
            str(row.num_turns),
            f"{row.num_matches:.0f}",
            f"{row.layers_run:.1f}",
            f"{row.median_ms:.2f}",
            f"{row.device_ms:.2f}",
            f"{row.pairs_per_s:.1f}",
            "" if row.over_torch is None else f"{row.over_torch:.2f}",
            f"{row.memory_mb:.0f}",
        )
        for row in benchmark.rows
    ]
    return [*header, "over torch", "MB"], rows


def graph_table(benchmark: RuntimeBenchmark) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows: every graph in milliseconds, median and in brackets the 90th percentile."""
    columns = list(dict.fromkeys((row.runtime, row.max_keypoints) for row in benchmark.graphs))
    cells = {
        (row.graph, row.runtime, row.max_keypoints): f"{row.median_ms:.2f} ({row.p90_ms:.2f})"
        for row in benchmark.graphs
    }
    names = list(dict.fromkeys(row.graph for row in benchmark.graphs))
    header = ["", *(f"{runtime}, {keypoints}" for runtime, keypoints in columns)]
    return header, [(name, *(cells.get((name, *column), "") for column in columns)) for name in names]
