"""Graphs executed by torch, on the CPU for want of a GPU: the same numbers as ONNX Runtime, and the order of choice."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the runtime needs torch: pip install feature_matcher_ros[torch]")
onnx = pytest.importorskip("onnx", reason="the runtime needs onnx: pip install feature_matcher_ros[torch]")

from feature_matcher_ros import runtimes  # noqa: E402
from feature_matcher_ros.datatypes import Features  # noqa: E402
from feature_matcher_ros.errors import RuntimeLoadError  # noqa: E402
from feature_matcher_ros.matchers.lightglue import LightGlue, LightGlueRules  # noqa: E402
from feature_matcher_ros.matchers.lightglue_graphs import open_lightglue  # noqa: E402
from feature_matcher_ros.runtimes import open_runtime, tensorrt_library, torch_graph  # noqa: E402
from feature_matcher_ros.runtimes.manifest import read_manifest  # noqa: E402
from feature_matcher_ros.runtimes.torch_graph import GraphModule  # noqa: E402

SHIPPED = Path(__file__).parents[2] / "engines" / "lightglue_sift"
MANIFEST = read_manifest(SHIPPED)
SIZES = {"points": 70, "points0": 25, "points1": 30}


@pytest.fixture
def by_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CPU takes the place of the GPU, and there is a driver."""
    monkeypatch.setattr(torch_graph, "GPU", "cpu")
    monkeypatch.setattr(tensorrt_library, "driver_problem", lambda: None)
    monkeypatch.setattr(runtimes, "_is_tensorrt_installed", lambda: False)
    monkeypatch.setattr(runtimes, "_warned", set())
    runtimes._is_torch_on_gpu_expected.cache_clear()
    yield
    runtimes._is_torch_on_gpu_expected.cache_clear()


def inputs(name: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    given = {}
    for tensor in MANIFEST.graphs[name].spec.inputs:
        shape = tuple(SIZES.get(size, size) for size in tensor.shape)
        if tensor.dtype == "int32":
            given[tensor.name] = generator.permutation(SIZES["points"])[: shape[0]].astype(np.int32)
        else:
            given[tensor.name] = generator.uniform(-1.0, 1.0, shape).astype(np.float32)
    return given


@pytest.mark.parametrize("name", list(MANIFEST.graphs))
def test_every_graph_computes_what_onnx_runtime_computes(by_cpu: None, name: str) -> None:
    spec, given = MANIFEST.graphs[name].spec, inputs(name)
    expected, found = (open_runtime(SHIPPED / f"{name}.onnx", spec, kind).run(given) for kind in ("onnx", "torch"))
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert np.asarray(found[key]).dtype == value.dtype
        np.testing.assert_allclose(np.asarray(found[key]), value, atol=5e-5)


def test_standard_operators_do_as_well(by_cpu: None) -> None:
    from feature_matcher_ros.export.to_tensorrt import prepared_graph

    given = {name: torch.from_numpy(value) for name, value in inputs("stage2").items()}
    spelled = GraphModule(prepared_graph(SHIPPED, MANIFEST, "stage2", "float32"), "spelled")(given)
    fused = GraphModule(onnx.load(SHIPPED / "stage2.onnx"), "fused")(given)
    assert set(spelled) == set(fused)
    for key, value in fused.items():
        torch.testing.assert_close(spelled[key], value, atol=5e-5, rtol=1e-4)


def test_a_pair_is_matched_alike(by_cpu: None) -> None:
    generator = np.random.default_rng(0)
    descriptors = np.abs(generator.standard_normal((90, 128))).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    points, ones = generator.uniform(10, 300, (90, 2)).astype(np.float32), np.ones(90, np.float32)
    pair = [
        Features(
            points[part] + shift,
            ones[part],
            descriptors[part],
            (320, 320),
            scales=3 * ones[part],
            orientations=ones[part],
        )
        for part, shift in ((slice(0, 70), 0.0), (slice(20, 90), 4.0))
    ]
    expected, *others = (
        LightGlue(SimpleNamespace(name="none"), open_lightglue(SHIPPED, name), LightGlueRules()).match(*pair)
        for name in ("onnx", "torch", "torch_float16")
    )
    for found, tolerance in zip(others, (1e-4, 0.02), strict=True):
        assert len(expected) > 20 and found.layers_run == expected.layers_run
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.scores, expected.scores, atol=tolerance)
    assert np.abs(others[1].scores - expected.scores).max() > 1e-4  # it is computed in another precision


def test_auto_takes_tensorrt_then_torch_on_the_gpu_then_onnx(
    by_cpu: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, spec = SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec
    with caplog.at_level(logging.INFO):
        assert open_runtime(path, spec).name == "torch" and caplog.records == [], "TensorRT is not installed"
        monkeypatch.setattr(runtimes, "_is_tensorrt_installed", lambda: True)
        monkeypatch.setattr(runtimes, "_open_tensorrt", lambda *given: SimpleNamespace(name="tensorrt"))
        assert open_runtime(path, spec).name == "tensorrt" and caplog.records == []

        def missing(*given: object) -> None:
            raise RuntimeLoadError("there is no engine.")

        monkeypatch.setattr(runtimes, "_open_tensorrt", missing)
        assert [open_runtime(path, spec).name for _ in range(3)] == ["torch"] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "lightglue_sift runs by torch on the GPU, for what is faster cannot be used: there is no" in caplog.text
    caplog.clear()
    monkeypatch.setattr(torch_graph, "GPU", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(runtimes, "_warned", set())
    with caplog.at_level(logging.INFO):
        assert open_runtime(path, spec).name == "onnx"
    assert "runs by ONNX Runtime on the CPU" in caplog.text and "there is no engine. torch" in caplog.text
    with pytest.raises(RuntimeLoadError, match=r"finds no GPU: .* or set the runtime to onnx"):
        open_runtime(path, spec, "torch")
    caplog.clear()
    monkeypatch.setattr(tensorrt_library, "driver_problem", lambda: "there is none")
    monkeypatch.setattr(runtimes, "_is_tensorrt_installed", lambda: False)
    monkeypatch.setattr(runtimes, "_open_torch", lambda *given: pytest.fail("torch is imported where there is no GPU"))
    runtimes._is_torch_on_gpu_expected.cache_clear()
    assert open_runtime(path, spec).name == "onnx" and caplog.records == []


def test_an_unknown_operator_is_named_and_auto_goes_on(by_cpu: None, tmp_path: Path) -> None:
    graph = onnx.load(SHIPPED / "head2.onnx")
    next(node for node in graph.graph.node if node.op_type == "Softplus").op_type = "Softsign"
    onnx.save(graph, str(tmp_path / "odd.onnx"))
    spec = MANIFEST.graphs["head2"].spec
    with pytest.raises(
        RuntimeLoadError, match=r"odd\.onnx has the operator Softsign, .*set the runtime to tensorrt or onnx"
    ):
        open_runtime(tmp_path / "odd.onnx", spec, "torch")
    assert open_runtime(tmp_path / "odd.onnx", spec).name == "onnx"
