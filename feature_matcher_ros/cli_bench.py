"""The command ``feature-matcher bench``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from feature_matcher_ros.cli_console import console, print_table, progress_bar
from feature_matcher_ros.cli_options import refuse_idle, require_writable
from feature_matcher_ros.errors import ConfigError


def bench(
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write.")] = Path("bench.json"),
    graphs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Time only the matching network of this folder. Repeatable for detector-free ones, and for SuperGlue "
            "beside LightGlue."
        ),
    ] = None,
    points: Annotated[Path | None, typer.Option(help="Folder of the extractor's graphs; default: SIFT.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The file that the graphs were exported from, to compare with torch.")
    ] = None,
    pairs: Annotated[
        list[Path] | None, typer.Option(help="JSON file of image pairs; default: rendered frames. Repeatable.")
    ] = None,
    keypoints: Annotated[list[int] | None, typer.Option(min=1, help="Keypoints of an image. Repeatable.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads that execute the network.")] = 2,
    plot: Annotated[Path | None, typer.Option(help="Picture to write: the cost against keypoints.")] = None,
    runtime: Annotated[
        str | None, typer.Option(help="Time every graph in this runtime, and in torch if there are weights.")
    ] = None,
) -> None:
    """Time every stage on this machine, on one core and on two.

    Then time the learned matchers, beside torch if it is installed.
    """
    from feature_matcher_ros.evaluation.dense_benchmark import DenseSetting
    from feature_matcher_ros.evaluation.learned_contenders import KEYPOINTS, RUNTIME_KEYPOINTS, LearnedSetting
    from feature_matcher_ros.runtimes.shipped_graphs import shipped_graphs

    folders, superglue, is_dense = _sorted_out(graphs or [], runtime)
    _refuse_idle(is_dense, bool(points or weights or keypoints), plot is not None, runtime is not None)
    require_writable(output, plot)
    if is_dense:
        dense = DenseSetting(tuple(folders), tuple(pairs or ()), num_threads=threads, runtime=runtime or "onnx")
        _bench_dense(dense, output)
        return
    if not folders and weights is None and find_spec("torch") and find_spec("onnx"):
        weights = shipped_graphs("lightglue_sift").with_suffix(".safetensors")
    setting = LearnedSetting(
        graphs=folders[0] if folders else shipped_graphs("lightglue_sift"),
        points=points,
        weights=weights,
        superglue=superglue,
        pairs=tuple(pairs or ()),
        keypoints=tuple(sorted(set(keypoints or (KEYPOINTS if runtime is None else RUNTIME_KEYPOINTS)))),
        num_threads=threads,
    )
    if runtime is not None:
        _bench_runtime(setting, runtime, output)
    elif folders:
        _bench_learned(setting, output, plot)
    else:
        _bench_everything(setting, output, plot)


def _bench_everything(setting: Any, output: Path, plot: Path | None) -> None:
    """The stages, and the networks that ship."""
    from feature_matcher_ros.evaluation.dense_benchmark import DenseSetting
    from feature_matcher_ros.runtimes.shipped_graphs import find_shipped_graphs

    _bench_stages(output)
    dense_folder = find_shipped_graphs("efficient_loftr")
    if dense_folder is not None:
        dense = DenseSetting((dense_folder,), setting.pairs, num_threads=setting.num_threads)
        _bench_dense(dense, output.with_stem(f"{output.stem}_detector_free"))
    _bench_learned(setting, output.with_stem(f"{output.stem}_learned"), plot)


def _sorted_out(graphs: list[Path], runtime: str | None) -> tuple[list[Path], Path | None, bool]:
    """The folders of all networks but SuperGlue, that of SuperGlue, and whether the former are detector-free.

    Raises:
        ConfigError: SuperGlue is to be timed without LightGlue beside it.
    """
    from feature_matcher_ros.matchers.superglue_graphs import METHOD
    from feature_matcher_ros.models.dense_config import DENSE_METHODS
    from feature_matcher_ros.runtimes.manifest import read_manifest

    methods = {folder: read_manifest(folder).method for folder in graphs}
    superglue = [folder for folder in graphs if methods[folder] == METHOD]
    folders = [folder for folder in graphs if folder not in superglue]
    is_dense = len(folders) > 1 or any(methods[folder] in DENSE_METHODS for folder in folders)
    if superglue and (len(superglue) > 1 or is_dense or not folders or runtime is not None):
        raise ConfigError(
            "SuperGlue is timed beside LightGlue on the same points: give --graphs for each, and no --runtime."
        )
    return folders, superglue[0] if superglue else None, is_dense


def _refuse_idle(is_dense: bool, is_of_points: bool, plots: bool, is_of_runtime: bool) -> None:
    refuse_idle(
        {
            "--points, --weights and --keypoints belong to a network that matches points: give --graphs of one": (
                is_dense and is_of_points
            ),
            "--plot draws the cost of LightGlue against keypoints: it goes with neither --runtime nor such --graphs": (
                plots and (is_dense or is_of_runtime)
            ),
        }
    )


def _bench_stages(output: Path) -> None:
    from feature_matcher_ros.evaluation.benchmark import benchmark_table, run_benchmark, write_benchmark

    with progress_bar("bench") as on_progress:
        benchmark = run_benchmark(on_progress=on_progress)
    print_table(*benchmark_table(benchmark), title=benchmark.machine)
    write_benchmark(benchmark, output)
    console.print(f"wrote {output}")


def _bench_dense(setting: Any, output: Path) -> None:
    from feature_matcher_ros.evaluation.benchmark import write_benchmark
    from feature_matcher_ros.evaluation.dense_benchmark import dense_table, run_dense_benchmark

    with progress_bar("detector-free matchers") as on_progress:
        benchmark = run_dense_benchmark(setting, on_progress=on_progress)
    title = f"{', '.join(benchmark.pairs)}, {benchmark.num_threads} threads: {benchmark.machine}"
    print_table(*dense_table(benchmark), title=title)
    write_benchmark(benchmark, output)
    console.print(f"wrote {output}")


def _bench_runtime(setting: Any, runtime: str, output: Path) -> None:
    from feature_matcher_ros.evaluation.benchmark import write_benchmark
    from feature_matcher_ros.evaluation.runtime_benchmark import run_runtime_benchmark
    from feature_matcher_ros.evaluation.runtime_tables import graph_table, runtime_table

    with progress_bar(runtime) as on_progress:
        benchmark = run_runtime_benchmark(setting, runtime, on_progress=on_progress)
    print_table(*runtime_table(benchmark), title=f"{', '.join(benchmark.pairs)}, {benchmark.num_threads} threads")
    clocks = ", ".join(dict.fromkeys(f"{row.runtime} by {row.clock}" for row in benchmark.rows))
    print_table(*graph_table(benchmark), title=f"ms of every graph with all layers, {clocks}: {benchmark.machine}")
    write_benchmark(benchmark, output)
    console.print(f"wrote {output}")


def _bench_learned(setting: Any, output: Path, plot: Path | None) -> None:
    from feature_matcher_ros.evaluation.benchmark import write_benchmark
    from feature_matcher_ros.evaluation.budget_benchmark import budget_table
    from feature_matcher_ros.evaluation.learned_benchmark import learned_table, run_learned_benchmark

    with progress_bar("learned matcher") as on_progress:
        benchmark = run_learned_benchmark(setting, on_progress=on_progress)
    title = (
        f"{benchmark.network} on {benchmark.extractor}, {', '.join(benchmark.pairs)}, {benchmark.num_threads} threads"
    )
    print_table(*learned_table(benchmark), title=f"{title}: {benchmark.machine}")
    console.print(
        f"a large float32 matrix product reached {benchmark.gemm_gflops:.0f} GFLOP/s in the same minutes, "
        f"at best {benchmark.best_gemm_gflops:.0f}",
        highlight=False,
    )
    for note in benchmark.notes:
        console.print(note, markup=False, highlight=False)
    print_table(*budget_table(benchmark.budgets), title="with a budget of half the time of all layers")
    write_benchmark(benchmark, output)
    console.print(f"wrote {output}")
    if plot is not None:
        from feature_matcher_ros.evaluation.learned_benchmark_plot import plot_learned_benchmark

        plot_learned_benchmark(benchmark, plot)
        console.print(f"wrote {plot}")
