"""CUDA graphs of torch: the same numbers from memory that is used again and again, and done without where refused."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the runtime needs torch: pip install feature_matcher_ros[torch]")
onnx = pytest.importorskip("onnx", reason="the runtime needs onnx: pip install feature_matcher_ros[torch]")

from fake_torch_cuda import FakeGraph, FakeStream, FakeTorchCuda  # noqa: E402
from stored_engines import MANIFEST, SHIPPED, features, stage_inputs  # noqa: E402

from feature_matcher_ros.matchers.adaptive import PruneRule, StopRule  # noqa: E402
from feature_matcher_ros.matchers.lightglue import LightGlue, LightGlueRules  # noqa: E402
from feature_matcher_ros.matchers.lightglue_graphs import LightGlueGraphs, open_lightglue  # noqa: E402
from feature_matcher_ros.runtimes import torch_cuda_graph, torch_graph  # noqa: E402
from feature_matcher_ros.runtimes.graph_spec import GraphSpec, TensorSpec  # noqa: E402
from feature_matcher_ros.runtimes.torch_graph import GraphModule  # noqa: E402
from feature_matcher_ros.runtimes.torch_runtime import TorchRuntime  # noqa: E402

REAL_GRAPH = torch.cuda.graph
SPEC = GraphSpec((TensorSpec("x", ("n",), "float32"),), (TensorSpec("y", ("n",), "float32"),))
SEEN = 3  # times that a kind of inputs is seen before it is captured
RULES = {
    "all layers": LightGlueRules(StopRule(None), PruneRule(None)),
    "pruning": LightGlueRules(StopRule(None), PruneRule(0.5)),
    "both": LightGlueRules(StopRule(0.3), PruneRule(0.9), thresholds=(0.5,) * 6),
}


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTorchCuda]:
    torch_cuda_graph._shared.cache_clear()
    yield FakeTorchCuda(monkeypatch)
    torch_cuda_graph._shared.cache_clear()


class Doubled(torch.nn.Module):
    def forward(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        return {"y": tensors["x"] + tensors["x"].clone(), "unwanted": tensors["x"]}


def doubled() -> TorchRuntime:
    return TorchRuntime(Doubled(), SPEC, captured_as="doubled")


def numbers(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.float32)}


def matched_alike(by_torch: LightGlueGraphs, rules: LightGlueRules, num_pairs: int) -> list[int]:
    """Match pairs of one size as ONNX Runtime does; returns the layers run."""
    expected, found = (
        LightGlue(SimpleNamespace(name="none"), graphs, rules)
        for graphs in (open_lightglue(SHIPPED, "onnx", 1), by_torch)
    )
    layers_run = []
    for number in range(num_pairs):
        pair = features(100, 2 * number), features(110, 2 * number + 1)
        wanted, got = expected.match(*pair), found.match(*pair)
        np.testing.assert_array_equal(got.indices, wanted.indices)
        np.testing.assert_allclose(got.scores, wanted.scores, atol=1e-3)
        np.testing.assert_array_equal(got.points_per_stage, wanted.points_per_stage)
        assert (got.layers_run, got.stop_reason) == (wanted.layers_run, wanted.stop_reason) and len(got) > 20
        layers_run.append(got.layers_run)
    return layers_run


@pytest.mark.parametrize(("how", "num_kinds"), [("all layers", 8), ("pruning", 2), ("both", 2)])
def test_pairs_of_one_size_are_matched_by_graphs(
    cuda: FakeTorchCuda, how: str, num_kinds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_graph, "GPU", "cpu")
    graphs = open_lightglue(SHIPPED, "torch")
    layers_run = matched_alike(graphs, RULES[how], SEEN + 3)
    assert cuda.num_captured >= num_kinds and cuda.num_replayed >= 4 * num_kinds
    if how == "all layers":
        assert (cuda.num_captured, cuda.num_replayed) == (8, 4 * 8), "embed, six stages and the head of the last one"
    assert (max(layers_run) < 6) == (how == "both")


def test_a_result_is_good_as_long_as_it_is_held_and_its_memory_is_used_again(cuda: FakeTorchCuda) -> None:
    runtime = doubled()
    for _ in range(SEEN - 1):
        runtime.run(numbers(0, 0))
    kept = [runtime.run(numbers(number, -number))["y"] for number in range(4)]
    assert cuda.num_replayed == 4
    assert [np.asarray(value).tolist() for value in kept] == [[2.0 * number, -2.0 * number] for number in range(4)]
    place = kept[-1].tensor.data_ptr()
    bare = kept.pop().tensor
    assert runtime.run(numbers(7, 7))["y"].tensor.data_ptr() == place and bare.tolist() == [14.0, 14.0]
    assert [np.asarray(value).tolist() for value in kept] == [[2.0 * number, -2.0 * number] for number in range(3)]


def test_inputs_are_copied_and_results_go_from_graph_to_graph(cuda: FakeTorchCuda) -> None:
    runtime, given = doubled(), numbers(1, 2)
    value: object = given["x"]
    for power in range(1, 9):
        value = runtime.run({"x": value})["y"]
        assert np.asarray(value).tolist() == [2.0**power, 2.0 ** (power + 1)]
    assert cuda.num_replayed == 6 and given["x"].tolist() == [1.0, 2.0]


def test_graphs_share_what_they_need_in_between_but_no_results(cuda: FakeTorchCuda) -> None:
    first, second = doubled(), doubled()
    for _ in range(SEEN):
        first.run(numbers(1))
        second.run(numbers(1))
    of_first = first.run(numbers(5))["y"]
    of_second = second.run(numbers(6))["y"]
    other = first.run(numbers(1, 2, 3))["y"]
    assert [np.asarray(value).tolist() for value in (of_first, of_second)] == [[10.0], [12.0]]
    assert np.asarray(other).tolist() == [2.0, 4.0, 6.0] and cuda.num_replayed == 2 + 2


def test_sizes_that_do_not_return_are_not_captured(cuda: FakeTorchCuda) -> None:
    runtime = doubled()
    for number in range(40):
        assert np.asarray(runtime.run(numbers(*range(number % 7)))["y"]).tolist() == [
            2.0 * n for n in range(number % 7)
        ]
    assert cuda.num_captured == 0
    plain = TorchRuntime(Doubled(), SPEC)
    for _ in range(9):
        plain.run(numbers(1))
    assert cuda.num_captured == 0, "what is compared with is never captured"


def test_what_one_passes_on_is_not_overwritten_by_the_other(cuda: FakeTorchCuda) -> None:
    class Passed(torch.nn.Module):
        def forward(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
            return {"y": tensors["x"][:]}

    doubles, passes = doubled(), TorchRuntime(Passed(), SPEC, captured_as="passed")
    for _ in range(SEEN):
        doubles.run(numbers(0))
    for number in range(2 * SEEN):  # ordinary runs first, then by a graph
        kept = passes.run({"x": doubles.run(numbers(number))["y"]})["y"]
        doubles.run(numbers(100))
        assert np.asarray(kept).tolist() == [2.0 * number]
    assert cuda.num_captured == 2


def test_what_cannot_be_captured_runs_without(cuda: FakeTorchCuda, caplog: pytest.LogCaptureFixture) -> None:
    class Branching(torch.nn.Module):
        """Waits for the GPU to decide what comes next."""

        def forward(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
            return {"y": tensors["x"] * 2 if tensors["x"].sum().item() > 0 else tensors["x"]}

    runtime = TorchRuntime(Branching(), SPEC, captured_as="stage9")
    with caplog.at_level(logging.DEBUG, "feature_matcher_ros.runtimes.cuda_graphs"):
        for number in range(4 * SEEN):
            sign = -1.0 if number % 2 else 1.0
            assert np.asarray(runtime.run(numbers(sign))["y"]).tolist() == [min(2.0, 2 * sign) if sign > 0 else -1.0]
    (record,) = [record for record in caplog.records if "CUDA graphs" in record.message]
    assert record.levelno == logging.DEBUG and "'stage9' runs without CUDA graphs from now on" in record.message
    assert "operation not permitted when stream is capturing" in record.message
    assert cuda.current is cuda.default, "work goes to the stream that it went to before"
    assert cuda.num_captured == cuda.num_replayed == 0


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_converts_the_weights_within_the_graph(cuda: FakeTorchCuda, precision: str) -> None:
    class Product(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor([[1.0, 2.0]]))

        def forward(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
            return {"y": torch.nn.functional.linear(tensors["x"].reshape(-1, 2), self.weight).flatten()}

    product = Product()
    runtime = TorchRuntime(product, SPEC, precision=precision, captured_as="product")
    with torch.autocast("cpu", getattr(torch, precision)):  # somebody else's, that keeps what it has converted
        for _ in range(SEEN + 1):
            assert np.asarray(runtime.run(numbers(3, 4))["y"]).tolist() == [11.0]
    product.weight.data.mul_(2.0)
    assert np.asarray(runtime.run(numbers(3, 4))["y"]).tolist() == [22.0], "nothing of an earlier run is read"
    assert cuda.num_replayed == 3


@pytest.mark.parametrize("name", list(MANIFEST.graphs))
def test_nothing_goes_from_the_host_to_the_gpu_or_back_within_a_graph(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which a capture would not allow. Tensors on ``meta`` cannot be read, and refuse to meet those of the host."""
    module = GraphModule(onnx.load(SHIPPED / f"{name}.onnx"), name).to("meta")
    sizes = {"points": 70, "points0": 25, "points1": 30}
    given = {
        tensor.name: torch.empty(
            [sizes.get(size, size) for size in tensor.shape], dtype=getattr(torch, tensor.dtype), device="meta"
        )
        for tensor in MANIFEST.graphs[name].spec.inputs
    }
    real = torch.Tensor.to

    def to(self: torch.Tensor, target: torch.device | torch.dtype) -> torch.Tensor:
        assert isinstance(target, torch.dtype) or target == self.device, (
            f"{tuple(self.shape)} goes from {self.device} to {target}"
        )
        return real(self, target)

    monkeypatch.setattr(torch.Tensor, "to", to)
    assert all(value.device.type == "meta" for value in module(given).values())


def test_the_fakes_take_what_torch_takes() -> None:
    taken = inspect.signature(FakeTorchCuda._graph.__wrapped__).parameters
    assert set(taken) - {"self"} <= set(inspect.signature(REAL_GRAPH.__init__).parameters)
    for fake, real in (
        (FakeStream.wait_stream, torch.cuda.Stream.wait_stream),
        (FakeGraph.replay, torch.cuda.CUDAGraph.replay),
    ):
        assert list(inspect.signature(fake).parameters) == list(inspect.signature(real).parameters)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("how", list(RULES))
def test_a_gpu_computes_by_graphs_what_it_computes_without(how: str) -> None:
    graphs = open_lightglue(SHIPPED, "torch")
    runtimes = [graphs.embed, *(part for stage in graphs.stages for part in (stage.layers, stage.head))]
    layers_run = matched_alike(graphs, RULES[how], SEEN + 3)
    captured = [runtime._graphs.num_captured for runtime in runtimes]
    refused = [runtime._graphs._stage for runtime in runtimes if runtime._graphs._is_refused]
    assert refused == [] and captured[:2] == [1, 1], "embed and the first stage always have the same sizes"
    assert (max(layers_run) < 6) == (how == "both")
    if how == "all layers":
        assert captured == [1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1]
    inputs = stage_inputs(300, 280)
    spec = MANIFEST.graphs["stage2"].spec
    module = GraphModule(onnx.load(SHIPPED / "stage2.onnx"), "stage2")
    eager = {name: np.asarray(value) for name, value in TorchRuntime(module, spec, "cuda").run(inputs).items()}
    for _ in range(SEEN + 1):
        found = graphs.stages[1].layers.run(inputs)
        for name, value in eager.items():
            np.testing.assert_allclose(np.asarray(found[name]), value, atol=1e-5)
