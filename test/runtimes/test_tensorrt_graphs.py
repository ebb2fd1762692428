"""CUDA graphs of engines of ``tensorrt``: launched only where all is as it was, given back, done without if refused.

The fakes write down what is asked of a captured stream, and do it with the memory and the execution context as these
are when the graph is launched.
"""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_cuda_graphs import INVALIDATED, STREAM
from fake_tensorrt import FakeContext
from gpu_machine import Machine, gpu_machine
from stored_engines import LARGE, MANIFEST, SHIPPED, SMALL, features, stage_inputs, store

from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.matchers.adaptive import PruneRule, StopRule
from feature_matcher_ros.matchers.lightglue import LightGlue, LightGlueRules
from feature_matcher_ros.matchers.lightglue_graphs import open_lightglue
from feature_matcher_ros.runtimes import open_runtime
from feature_matcher_ros.runtimes.driver_graphs import StreamGraph
from feature_matcher_ros.runtimes.engine_manifest import Environment
from feature_matcher_ros.runtimes.tensorrt_device import cuda_device
from feature_matcher_ros.runtimes.tensorrt_library import driver_problem
from feature_matcher_ros.runtimes.tensorrt_runtime import TensorRtRuntime

BUILT_FOR = Environment("tensorrt", "10.9.0", "13.0", ("8.9",))
SEEN = 3  # times that a kind of inputs is seen before it is captured


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    with gpu_machine(monkeypatch, tmp_path, BUILT_FOR.library, BUILT_FOR.version) as found:
        yield found


def opened_stage(machine: Machine) -> TensorRtRuntime:
    store(machine.cache, "stage2", BUILT_FOR)
    return TensorRtRuntime(SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec, cache=machine.cache)


def by_cpu(points0: int, points1: int, seed: int = 0) -> dict[str, np.ndarray]:
    graph = open_runtime(SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec, "onnx", 1)
    return graph.run(given(points0, points1, seed))


def given(points0: int, points1: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Other numbers for each seed, of the same shapes."""
    inputs = stage_inputs(points0, points1)
    return {**inputs, "state": inputs["state"] + np.float32(seed)}


def check(runtime: TensorRtRuntime, points0: int, points1: int, seed: int = 0) -> None:
    found, expected = runtime.run(given(points0, points1, seed)), by_cpu(points0, points1, seed)
    for name, value in expected.items():
        np.testing.assert_array_equal(np.asarray(found[name]), value)


@pytest.mark.parametrize(
    ("rules", "launches_each"),
    [
        (LightGlueRules(StopRule(None), PruneRule(None)), 8),  # embed, six stages, head
        (LightGlueRules(StopRule(None), PruneRule(0.5)), 2),  # embed, first stage, and what is pruned alike
        (LightGlueRules(StopRule(0.3), PruneRule(0.9), thresholds=(0.5,) * 6), 2),
    ],
)
def test_pairs_of_one_size_are_matched_by_graphs_as_on_the_cpu(
    machine: Machine, rules: LightGlueRules, launches_each: int
) -> None:
    for name in MANIFEST.graphs:
        store(machine.cache, name, BUILT_FOR)
    by_onnx, by_tensorrt = (
        LightGlue(SimpleNamespace(name="none"), open_lightglue(SHIPPED, name, 1), rules)
        for name in ("onnx", "tensorrt")
    )
    has_stopped = set()
    for number in range(SEEN + 3):
        pair = features(100, 2 * number), features(110, 2 * number + 1)
        before, enqueued = machine.driver.num_launched, machine.gpu.num_enqueued
        expected, found = by_onnx.match(*pair), by_tensorrt.match(*pair)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.points_per_stage, expected.points_per_stage)
        assert (found.layers_run, found.stop_reason) == (expected.layers_run, expected.stop_reason)
        has_stopped.add(found.stop_reason)
        if number >= SEEN:
            launches = machine.driver.num_launched - before
            assert launches >= launches_each
            if launches_each == 8:
                assert machine.gpu.num_enqueued == enqueued, "nothing is asked for one by one any more"
    assert len(expected) > 20
    if rules.stop.depth_confidence is not None:
        assert found.layers_run < 6


def test_numbers_that_pruning_leaves_are_not_captured(machine: Machine) -> None:
    runtime = opened_stage(machine)
    for number in range(30):
        check(runtime, 40 + number % 7, 30 + number % 9)
    assert machine.driver.num_instantiated == 0


def test_a_graph_is_launched_only_while_all_lies_where_it_was(machine: Machine) -> None:
    runtime = opened_stage(machine)
    for seed in range(SEEN + 2):
        check(runtime, 30, 20, seed)
    assert (machine.driver.num_instantiated, machine.driver.num_launched) == (1, 3)
    check(runtime, 290, 280)  # too much for the buffers: they are freed and lie elsewhere
    for seed in range(SEEN - 1):
        check(runtime, 30, 20, seed)
    assert (machine.driver.num_instantiated, machine.driver.num_launched) == (1, 3), "they do lie elsewhere"
    for seed in range(3):
        check(runtime, 30, 20, seed)
    assert (machine.driver.num_instantiated, machine.driver.num_launched) == (2, 6)


def test_results_that_somebody_keeps_are_not_overwritten(machine: Machine) -> None:
    """As the features of a keyframe are."""
    runtime = opened_stage(machine)
    for seed in range(SEEN + 1):
        check(runtime, 30, 20, seed)
    assert machine.driver.num_launched > 0
    kept = [runtime.run(given(30, 20, seed)) for seed in range(12)]
    assert len({found["next_state"].address for found in kept}) == 12
    for seed, found in enumerate(kept):
        for name, value in by_cpu(30, 20, seed).items():
            np.testing.assert_array_equal(np.asarray(found[name]), value)


def test_results_go_from_graph_to_graph(machine: Machine) -> None:
    """The state of one run is that of the next, whose graph is bound to where it lies."""
    runtime = opened_stage(machine)
    state = expected = stage_inputs(30, 20)["state"]
    graph = open_runtime(SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec, "onnx", 1)
    for _ in range(12):
        state = runtime.run({**stage_inputs(30, 20), "state": state})["next_state"]
        expected = graph.run({**stage_inputs(30, 20), "state": expected})["next_state"]
    np.testing.assert_array_equal(np.asarray(state), expected)
    assert machine.driver.num_instantiated == 2, "there are two places, and they take turns"
    assert machine.driver.num_launched > 4


def test_each_profile_has_graphs_and_they_share_their_memory(machine: Machine) -> None:
    runtime = opened_stage(machine)
    for size in (LARGE, SMALL, SMALL + 1):
        for seed in range(SEEN + 1):
            check(runtime, size, size, seed)
    before = machine.driver.num_launched, machine.gpu.num_enqueued, len(machine.gpu.memory)
    for seed, size in enumerate((SMALL, LARGE, SMALL + 1) * 3):
        check(runtime, size, size, seed)
    assert machine.driver.num_launched == before[0] + 9 and machine.gpu.num_enqueued == before[1]
    assert len(machine.gpu.memory) == before[2] == 5 + 4 + 1, "inputs, outputs, and what all have in common"


def test_few_graphs_are_kept_and_all_is_given_back(machine: Machine) -> None:
    runtime = opened_stage(machine)
    runtime.run(given(LARGE, LARGE))  # nothing need grow after that
    for size in range(20, 32):
        for seed in range(SEEN << 1):
            check(runtime, size, size, seed)
    assert machine.driver.num_instantiated == 12 and len(machine.driver.executables) == 8
    assert machine.driver.graphs == {}, "they are not needed once they have been instantiated"
    gc.collect()
    engine = machine.opened[-1]
    assert sum(type(found) is FakeContext and found._engine is engine for found in gc.get_objects()) == 8 + 1
    held = runtime.run(given(31, 31))["certainty"]
    assert machine.driver.num_launched > 0
    del runtime
    assert machine.driver.executables == {}
    np.testing.assert_array_equal(np.asarray(held), by_cpu(31, 31)["certainty"])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("it cannot be captured", rf"cuStreamEndCapture failed: capture was invalidated \(CUDA error {INVALIDATED}\)"),
        ("a capture is refused", r"cuStreamBeginCapture_v2 failed: invalid argument \(CUDA error 1\)"),
        ("the driver is old", r"NVIDIA's driver has no cuGraphInstantiateWithFlags, for it is older than CUDA 11\.4"),
        ("there is no second context", "it has no second context"),
        ("there is no memory left", "the GPU has no 1 MB left"),
    ],
)
def test_what_cannot_be_captured_runs_without(
    machine: Machine, harm: str, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = opened_stage(machine)
    check(runtime, LARGE, LARGE)
    if harm == "it cannot be captured":
        machine.opened[-1].cannot_be_captured = True
    elif harm == "a capture is refused":
        machine.driver.begin_status = 1
    elif harm == "the driver is old":
        del machine.driver.functions["cuGraphInstantiateWithFlags"]
    elif harm == "there is no second context":
        monkeypatch.setattr(type(machine.opened[-1]), "create_execution_context", lambda self, strategy: None)
    else:
        machine.gpu.capacity = sum(map(len, machine.gpu.memory.values()))
    with caplog.at_level(logging.DEBUG, "feature_matcher_ros.runtimes.cuda_graphs"):
        for seed in range(4 * SEEN):
            check(runtime, 30, 20 + seed // SEEN, seed)
    (record,) = [record for record in caplog.records if "CUDA graphs" in record.message]
    assert record.levelno == logging.DEBUG and "'stage2' runs without CUDA graphs from now on" in record.message
    assert re.search(said, record.message)
    assert ("Error Code 1" in record.message) == (harm == "it cannot be captured") and runtime._logger.errors == []
    assert machine.driver.num_launched == 0 and machine.driver.executables == machine.driver.graphs == {}


def test_work_that_raises_leaves_neither_a_capture_nor_a_graph(machine: Machine) -> None:
    def work() -> bool:
        raise MemoryError

    with cuda_device().active(), pytest.raises(MemoryError):
        StreamGraph(STREAM, work)
    assert machine.gpu.captured is None and machine.driver.graphs == machine.driver.executables == {}


def test_a_driver_that_fails_later_is_one_sentence(machine: Machine) -> None:
    runtime = opened_stage(machine)
    for seed in range(SEEN):
        check(runtime, 30, 20, seed)
    machine.driver.executables.clear()
    with pytest.raises(MatcherError, match=r"cuGraphLaunch failed: invalid argument \(CUDA error 1\); set the runtime"):
        runtime.run(given(30, 20))


def test_the_other_flavour_captures_by_itself(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with gpu_machine(monkeypatch, tmp_path / "other") as other:
        store(other.cache, "stage2")
        runtime = TensorRtRuntime(SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec, cache=other.cache)
        for seed in range(2 * SEEN):
            check(runtime, 30, 20, seed)
        assert other.driver.num_instantiated == 0


@pytest.mark.gpu
@pytest.mark.skipif(driver_problem() is not None, reason="there is no GPU")
def test_the_real_driver_captures_a_stream_and_refuses_what_it_must() -> None:
    torch = pytest.importorskip("torch", reason="it gives the stream and the work")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    numbers, stream = torch.zeros(4, device="cuda"), torch.cuda.Stream()
    torch.cuda.synchronize()

    def work() -> bool:
        with torch.cuda.stream(stream):
            numbers.add_(1.0)
        return True

    work()
    graph = StreamGraph(stream.cuda_stream, work)
    stream.synchronize()
    assert numbers.tolist() == [1.0] * 4, "what is captured is not done"
    for _ in range(3):
        graph.launch()
    with pytest.raises(MatcherError, match="cannot be asked of a stream that is captured"):
        StreamGraph(stream.cuda_stream, lambda: work() and False)
    graph.launch()
    stream.synchronize()
    assert numbers.tolist() == [5.0] * 4


@pytest.mark.gpu
@pytest.mark.skipif(driver_problem() is not None, reason="there is no GPU")
def test_a_gpu_runs_engines_by_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "pycuda", "onnx"):
        pytest.importorskip(name, reason="engines of tensorrt are built and run with it")
    from feature_matcher_ros.export.to_tensorrt import EngineOptions, build_network, precisions_of

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build_network(SHIPPED, EngineOptions("float32"), precisions_of(MANIFEST, "float32"))
    runtime = TensorRtRuntime(SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec)
    kept = [runtime.run(given(300, 280, seed)) for seed in range(2)]
    for seed in range(SEEN + 3):
        found = runtime.run(given(300, 280, seed))
        for name, value in by_cpu(300, 280, seed).items():
            np.testing.assert_allclose(np.asarray(found[name]), value, atol=1e-3)
    assert not runtime._graphs._is_refused and runtime._graphs.num_captured == 1
    for seed, found in enumerate(kept):
        np.testing.assert_allclose(np.asarray(found["certainty"]), by_cpu(300, 280, seed)["certainty"], atol=1e-3)
