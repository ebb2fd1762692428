"""The benchmark of runtimes: by the clock of the device, every graph, beside torch; what cannot be run is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import feature_matcher
from gpu_machine import gpu_machine

from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.evaluation import runtime_benchmark
from feature_matcher_ros.evaluation.learned_contenders import MODES, LearnedSetting, NoExtractor, point_pairs
from feature_matcher_ros.evaluation.runtime_benchmark import run_runtime_benchmark, timed_network
from feature_matcher_ros.evaluation.runtime_tables import GraphTime, RuntimeBenchmark, graph_table, runtime_table
from feature_matcher_ros.matchers.lightglue import LightGlue
from feature_matcher_ros.matchers.lightglue_graphs import open_lightglue
from feature_matcher_ros.runtimes.meter import HostMeter
from feature_matcher_ros.runtimes.shipped_graphs import shipped_graphs
from feature_matcher_ros.runtimes.tensorrt_library import driver_problem

SHIPPED = shipped_graphs("lightglue_sift")
ALL_GRAPHS = {"embed", "stage1", "stage2", "stage3", "head3"}


def test_every_graph_is_timed_beside_torch_and_they_add_up(network: tuple[Path, Path], pairs: Path) -> None:
    setting = LearnedSetting(network[0], None, network[1], pairs=(pairs,), keypoints=(60,), repetitions=2)
    names = runtime_benchmark._names(setting, "onnx")
    assert names == ("onnx", "torch, eager"), "compiled on a GPU only"
    rows, graphs = runtime_benchmark._measure(setting, names, 60)
    assert {(row.runtime, row.mode) for row in rows} == {(name, mode) for name in names
                                                         for mode in ("all layers", "depth and width")}  # fmt: skip
    for row in rows:
        assert (row.clock, row.precision, row.num_turns, row.layers_run) == ("CPU clock", "float32", 4, 3.0)
        assert 0 < row.device_ms <= row.median_ms * 1.5 and row.pairs_per_s > 0
        assert (row.over_torch is None) == (row.runtime == "torch, eager")
    for name in names:
        own = {time.graph: time for time in graphs if time.runtime == name}
        assert set(own) == ALL_GRAPHS
        assert all(time.num_calls == 4 and 0 < time.median_ms <= time.p90_ms for time in own.values())
    assert rows[0].num_matches == rows[2].num_matches, "they compute the same"
    assert runtime_benchmark._names(replace(setting, weights=None), "onnx") == ("onnx",)
    assert runtime_benchmark._memory_mb(setting, "onnx", 60) > 50


def test_the_runtime_torch_is_timed_by_its_graphs_beside_the_module(
    network: tuple[Path, Path], pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = LearnedSetting(*(network[0], None, network[1], (pairs,)), keypoints=(60,), repetitions=2)
    if not torch_cuda().is_available():
        with pytest.raises(RuntimeLoadError, match=r"torch .* finds no GPU"):
            runtime_benchmark._names(setting, "torch")
    from fake_torch_cuda import FakeTorchCuda

    from feature_matcher_ros.runtimes import torch_cuda_graph, torch_graph

    torch_cuda_graph._shared.cache_clear()
    with monkeypatch.context() as patch:
        cuda = FakeTorchCuda(patch)
        patch.setattr(torch_graph, "GPU", "cpu")
        rows, _ = runtime_benchmark._measure(setting, ("torch", "torch, eager"), 60)
    torch_cuda_graph._shared.cache_clear()
    assert cuda.num_captured > 0 and cuda.num_replayed >= 5 * 4, "every turn that counts"
    by_graphs, module = rows[0], rows[2]
    assert (by_graphs.runtime, module.runtime) == ("torch", "torch, eager") and by_graphs.mode == module.mode
    assert by_graphs.num_matches == module.num_matches and by_graphs.over_torch is not None


def torch_cuda() -> Any:
    return pytest.importorskip("torch", reason="the comparison needs torch").cuda


@pytest.mark.parametrize(
    ("library", "version", "num_launched"), [("tensorrt_rtx", "1.7.1", 0), ("tensorrt", "10.9.0", 8)]
)
def test_events_on_the_device_time_what_was_asked_for_in_between(
    library: str, version: str, num_launched: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pairs: Path
) -> None:
    """The fake takes a millisecond for each request: an upload of each input, the graph, downloads of decisions."""
    pytest.importorskip("onnx", reason="engines are built from graphs with onnx: pip install onnx")
    from feature_matcher_ros.export.to_tensorrt import EngineOptions, build_network, precisions_of
    from feature_matcher_ros.runtimes.manifest import read_manifest

    with gpu_machine(monkeypatch, tmp_path, library, version) as machine:
        build_network(SHIPPED, EngineOptions(), precisions_of(read_manifest(SHIPPED), "float32"))
        graphs, timed = timed_network(open_lightglue(SHIPPED, "tensorrt"))
        pair = point_pairs(LearnedSetting(SHIPPED, pairs=(pairs,), keypoints=(60,)), 60)[0]
        for _ in range(runtime_benchmark._WARM_UP):
            LightGlue(NoExtractor(), graphs, MODES["all layers"]).match(*pair)
        before = machine.driver.num_launched
        for graph in timed.values():
            graph.marks.clear()
        matches = LightGlue(NoExtractor(), graphs, MODES["all layers"]).match(*pair)
        assert machine.driver.num_launched - before == num_launched, "embed, six stages and a head, by CUDA graphs"
        taken = {name: graph.taken_ms() for name, graph in timed.items() if graph.marks}
        assert graphs.embed.meter.name == "CUDA events" and matches.layers_run == 6
        assert taken["embed"] == [3.0] and taken["stage1"] == [4.0] and taken["stage6"] == [3.0]
        assert taken["head6"] == [6.0]
        assert set(taken) == {"embed", "head6", *(f"stage{number}" for number in range(1, 7))}
        assert all(graph.marks == [] for graph in timed.values())
        used = sum(map(len, machine.gpu.memory.values())) * 1e-6
        assert graphs.embed.meter.memory_mb() == pytest.approx(used)


def test_the_clock_of_the_host_measures_milliseconds() -> None:
    meter = HostMeter()
    assert meter.elapsed_ms(meter.mark(), meter.mark()) < 1000.0
    assert meter.elapsed_ms(1_000_000, 3_500_000) == 2.5
    assert 10.0 < meter.memory_mb() < 1e6


def test_tables_hold_the_numbers() -> None:
    times = (GraphTime("onnx", 512, "embed", 4, 1.0, 2.0), GraphTime("onnx", 512, "stage1", 4, 3.0, 4.5),
             GraphTime("torch", 512, "stage1", 4, 6.0, 7.0))  # fmt: skip
    header, rows = graph_table(RuntimeBenchmark("a machine", ("pairs",), 2, (), times))
    assert header == ["", "onnx, 512", "torch, 512"]
    assert rows == [("embed", "1.00 (2.00)", ""), ("stage1", "3.00 (4.50)", "6.00 (7.00)")]
    header, _ = runtime_table(RuntimeBenchmark("a machine", ("pairs",), 2, (), times))
    assert header[-2:] == ["over torch", "MB"]


@pytest.mark.skipif(driver_problem() is None, reason="there is a GPU")
def test_without_a_gpu_tensorrt_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = feature_matcher(capsys, "bench", "--runtime", "tensorrt", "-o", tmp_path / "bench.json")
    assert code == 1 and err.count("\n") == 1 and "driver" in err and "set the runtime to onnx" in err
    assert not (tmp_path / "bench.json").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--runtime", "onnx", "--plot", "cost.png"), "--plot draws the cost of LightGlue"),
        (
            ("--graphs", shipped_graphs("efficient_loftr"), "--keypoints", "64"),
            "belong to a network that matches points",
        ),
        (("-o", "/dev/null/bench.json"), "/dev/null/bench.json cannot be written"),
    ],
)
def test_what_would_do_nothing_is_refused_before_minutes_of_work(
    arguments: tuple[str | Path, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = feature_matcher(capsys, "bench", *arguments)
    assert code == 1 and sentence in err and err.count("\n") == 1


def test_the_command_writes_what_it_prints(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this very process, whose libraries are loaded."""
    direct = SimpleNamespace(submit=lambda work, *given: SimpleNamespace(result=lambda: work(*given)))

    class Here:
        def __init__(self, threads: int) -> None: ...

        def __enter__(self) -> SimpleNamespace:
            return direct

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(runtime_benchmark, "limited_process", Here)
    output = tmp_path / "bench.json"
    given = ["--graphs", SHIPPED, "--pairs", pairs, "--keypoints", "64", "--threads", "1", "-o", output]
    code, out, err = feature_matcher(capsys, "bench", "--runtime", "onnx", *given)
    assert code == 0, err
    written = json.loads(output.read_text())
    assert [row["mode"] for row in written["rows"]] == ["all layers", "depth and width"]
    assert all(row["memory_mb"] > 50 and row["max_keypoints"] == 64 for row in written["rows"])
    assert "onnx by CPU clock" in " ".join(out.split()) and "stage6" in out
    with pytest.raises(RuntimeLoadError, match="the runtime 'abacus' is unknown: choose one of onnx, tensorrt, torch"):
        run_runtime_benchmark(LearnedSetting(SHIPPED), "abacus")
