"""Graphs made ready for TensorRT and built into engines by the real library, which needs no GPU for that."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="engines are built from graphs with onnx: pip install onnx")

from half_products import num_half_products  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from feature_matcher_ros.errors import ConfigError, RuntimeLoadError  # noqa: E402
from feature_matcher_ros.export import to_tensorrt  # noqa: E402
from feature_matcher_ros.export.engine_profiles import (  # noqa: E402
    EngineBudget,
    detection_ranges,
    matching_ranges,
    profile_of,
)
from feature_matcher_ros.export.half_precision import (  # noqa: E402
    PRODUCTS,
    in_half_precision,
    rounded_for_cpu,
)
from feature_matcher_ros.export.standard_operators import with_standard_operators  # noqa: E402
from feature_matcher_ros.export.tensorrt_builder import build_engine, known_architectures  # noqa: E402
from feature_matcher_ros.export.to_tensorrt import (  # noqa: E402
    EngineOptions,
    build_network,
    precisions_of,
    prepared_graph,
)
from feature_matcher_ros.runtimes import open_runtime  # noqa: E402
from feature_matcher_ros.runtimes.engine_cache import EngineCache  # noqa: E402
from feature_matcher_ros.runtimes.engine_manifest import Profile  # noqa: E402
from feature_matcher_ros.runtimes.manifest import read_manifest  # noqa: E402
from feature_matcher_ros.runtimes.runtime import Tensor  # noqa: E402
from feature_matcher_ros.runtimes.tensorrt_library import TensorRT, driver_problem, load_tensorrt  # noqa: E402

SHIPPED = Path(__file__).parents[2] / "engines" / "lightglue_sift"
MANIFEST = read_manifest(SHIPPED)
HEAD_SIZE = 32
REASON = "engines are built with tensorrt-rtx: pip install 'feature_matcher_ros[engines]'"


@pytest.fixture
def library() -> TensorRT:
    pytest.importorskip("tensorrt_rtx", reason=REASON)
    return load_tensorrt()


def stage_inputs(points0: int, points1: int, seed: int = 0) -> dict[str, Tensor]:
    """States and angles as they occur, of which every third point has been dropped."""
    generator = np.random.default_rng(seed)
    count = points0 + points1
    angles = generator.uniform(-3.0, 3.0, (count, HEAD_SIZE // 2)).astype(np.float32)
    rows = np.arange(count, dtype=np.int32)
    rows0, rows1 = rows[:points0], rows[points0:]
    return {
        "state": generator.standard_normal((count, 128)).astype(np.float32),
        "cosines": np.cos(angles),
        "sines": np.sin(angles),
        "rows0": rows0[rows0 % 3 != 2],
        "rows1": rows1[rows1 % 3 != 2],
    }


def executed(model: onnx.ModelProto, name: str, inputs: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    onnx.save(model, str(folder / "graph.onnx"))
    return open_runtime(folder / "graph.onnx", MANIFEST.graphs[name].spec, "onnx", 1).run(inputs)


@pytest.mark.parametrize("num_points", [(40, 30), (4, 1)])
def test_spelled_out_operators_compute_what_the_fused_ones_do(num_points: tuple[int, int], tmp_path: Path) -> None:
    inputs = stage_inputs(*num_points)
    fused = onnx.load(SHIPPED / "stage2.onnx")
    standard = with_standard_operators(fused, HEAD_SIZE)
    onnx.checker.check_model(standard, full_check=True)
    assert {node.domain for node in fused.graph.node} == {"", "com.microsoft"}
    assert {node.domain for node in standard.graph.node} == {""}
    assert with_standard_operators(standard, HEAD_SIZE) is standard
    expected, found = (executed(graph, "stage2", inputs, tmp_path) for graph in (fused, standard))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=2e-5)


def test_half_precision_is_written_where_the_work_is_and_nowhere_else() -> None:
    single = prepared_graph(SHIPPED, MANIFEST, "stage2", "float32")
    half = in_half_precision(single)
    onnx.checker.check_model(half, full_check=True)
    assert list(half.graph.input) == list(single.graph.input) and list(half.graph.output) == list(single.graph.output)
    types = {
        info.name: info.type.tensor_type.elem_type for info in onnx.shape_inference.infer_shapes(half).graph.value_info
    }
    by_operator: dict[str, set[int]] = {}
    for node in half.graph.node:
        by_operator.setdefault(node.op_type, set()).update(types[name] for name in node.output if name in types)
    for operator in ("Softmax", "LayerNormalization", "Sigmoid"):
        assert by_operator[operator] == {TensorProto.FLOAT}
    assert by_operator["MatMul"] == {TensorProto.FLOAT16}
    num_products = sum(node.op_type in PRODUCTS for node in single.graph.node)
    assert num_half_products(half) == num_products - 1  # all but the one that says how certain a point is
    assert num_half_products(single) == 0
    assert len(half.SerializeToString()) < 0.55 * len(single.SerializeToString())


def product_graph(factor: float) -> onnx.ModelProto:
    """y = relu(x W) V with W scaled up and V down by a factor."""
    generator = np.random.default_rng(3)
    first = (factor * generator.standard_normal((8, 16))).astype(np.float32)
    second = (generator.standard_normal((16, 4)) / factor).astype(np.float32)
    tensor = helper.make_tensor_value_info
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "V"], ["c"], name="second"),
        helper.make_node("Softmax", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "products",
        [tensor("x", TensorProto.FLOAT, ["n", 8])],
        [tensor("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(first, "W"), numpy_helper.from_array(second, "V")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def by_hand(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The same in numpy: products added up in float32, and rounded."""
    first, second = (numpy_helper.to_array(weight).astype(np.float16) for weight in model.graph.initializer)
    with np.errstate(over="ignore", invalid="ignore"):
        hidden = (x.astype(np.float16).astype(np.float32) @ first.astype(np.float32)).astype(np.float16)
        logits = (np.maximum(hidden, 0).astype(np.float32) @ second.astype(np.float32)).astype(np.float16)
        shifted = np.exp(logits.astype(np.float32) - logits.max(axis=1, keepdims=True).astype(np.float32))
        return shifted / shifted.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("factor", "is_finite"), [(1.0, True), (15000.0, False)])
def test_rounding_on_the_cpu_is_that_of_half_precision(factor: float, is_finite: bool, tmp_path: Path) -> None:
    import onnxruntime

    model = product_graph(factor)
    x = np.random.default_rng(4).standard_normal((50, 8)).astype(np.float32)
    half = in_half_precision(model)
    assert num_half_products(half) == 2
    session = onnxruntime.InferenceSession(
        rounded_for_cpu(half).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found, expected = session.run(None, {"x": x})[0], by_hand(model, x)
    np.testing.assert_allclose(found, expected, rtol=2e-5, equal_nan=True)
    assert np.isfinite(found).all() == is_finite
    exact = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.abs(exact.run(None, {"x": x})[0] - found).max() > 1e-5 or not is_finite


def test_a_product_whose_weights_half_precision_cannot_hold_stays_in_float32() -> None:
    half = in_half_precision(product_graph(1e6))
    assert num_half_products(half) == 1
    assert all(np.isfinite(numpy_helper.to_array(weight)).all() for weight in half.graph.initializer)


def test_profiles_follow_from_the_budget() -> None:
    profile = profile_of(MANIFEST.graphs["stage2"].spec, matching_ranges(EngineBudget(max_keypoints=512)))
    assert profile.shapes["state"] == ((2, 128), (512, 128), (1024, 128))
    assert profile.shapes["rows1"] == ((1,), (256,), (512,))
    ranges = detection_ranges(EngineBudget(1000, 700), multiple=32, pixels_per_feature=8)
    assert ranges["height"] == (32, 480, 704) and ranges["width"] == (32, 640, 704) and ranges["rows"] == (4, 60, 88)
    assert ranges["points"] == (1, 500, 1000)
    with pytest.raises(ConfigError, match="max_keypoints = 3 is too small for an engine"):
        EngineBudget(max_keypoints=3)


def test_only_what_is_work_is_in_half_precision() -> None:
    chosen = precisions_of(MANIFEST, "float16")
    assert {name for name, precision in chosen.items() if precision == "float16"} == {f"stage{n}" for n in range(1, 7)}
    assert set(precisions_of(MANIFEST, "float32").values()) == {"float32"}
    with pytest.raises(ConfigError, match="the precision 'fp8' is unknown: choose one of float16, float32"):
        precisions_of(MANIFEST, "fp8")


def test_a_stage_builds_without_a_gpu_and_its_attention_is_fused(library: TensorRT) -> None:
    """Two self-attentions and two cross-attentions become a kernel each, which adds up in float32."""
    graph = prepared_graph(SHIPPED, MANIFEST, "stage6", "float16").SerializeToString()
    profile = profile_of(MANIFEST.graphs["stage6"].spec, matching_ranges(EngineBudget()))
    steps: list[tuple[int, int]] = []
    engine = build_engine(library, "stage6", graph, [profile], ("8.9",), on_progress=lambda *step: steps.append(step))
    assert engine.count(b"struct _gemm_mha_v2_callback {") == 4
    assert b"fmha::Ampere_hmma_fp32_traits" in engine
    assert 1e6 < len(engine) < 5e6
    assert steps and all(0 < done <= total for done, total in steps)
    # Up to here, no further: opening it needs a driver.
    assert (
        library.module.Runtime(library.module.Logger()).deserialize_cuda_engine(engine) is None
        or driver_problem() is None
    )


def test_a_broken_graph_gives_the_parsers_own_words_and_the_node(library: TensorRT) -> None:
    model = product_graph(1.0)
    model.graph.node[1].op_type = "Abacus"
    model.graph.node[1].name = "counts"
    shapes = Profile({"x": ((1, 8), (16, 8), (64, 8))})
    with pytest.raises(
        RuntimeLoadError, match=r"the graph 'odd' \(node 'counts' \(Abacus\): .*Plugin not found"
    ) as error:
        build_engine(library, "odd", model.SerializeToString(), [shapes], ("8.9",))
    assert "\n" not in str(error.value)
    with pytest.raises(RuntimeLoadError, match="cannot parse the graph 'odd'"):
        build_engine(library, "odd", model.SerializeToString()[:100], [shapes], ("8.9",))


def test_what_the_library_cannot_build_is_said_in_its_words(library: TensorRT) -> None:
    """Turing has no float32 products in tensorrt_rtx, which is why it is not among the default architectures."""
    graph = prepared_graph(SHIPPED, MANIFEST, "head6", "float32").SerializeToString()
    profile = profile_of(MANIFEST.graphs["head6"].spec, matching_ranges(EngineBudget()))
    with pytest.raises(RuntimeLoadError, match=r"can build no engine of the graph 'head6' \(.*Turing .*FP32 GEMM"):
        build_engine(library, "head6", graph, [profile], ("7.5",))
    assert "7.5" in known_architectures(library)
    assert "7.5" not in to_tensorrt.build_environment(library, ()).architectures
    with pytest.raises(ConfigError, match=r"does not build for compute capability 9.9: it builds for 7\.5, 8\.0"):
        to_tensorrt.build_environment(library, ("9.9",))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A library that takes a moment for an engine, and the names of what it built."""
    names: list[str] = []

    def build(library: TensorRT, name: str, graph: bytes, *others: object) -> bytes:
        time.sleep(0.02)
        names.append(name)
        return graph[::-1]

    capabilities = SimpleNamespace(__members__={"SM86": 1, "SM89": 2, "NONE": 0})
    module = SimpleNamespace(__version__="9.9", ComputeCapability=capabilities)
    monkeypatch.setattr(to_tensorrt, "load_tensorrt", lambda: TensorRT(module, "tensorrt_rtx"))
    monkeypatch.setattr(to_tensorrt, "build_engine", build)
    return names


def test_every_engine_is_built_once_however_many_ask_for_it(counted: list[str], tmp_path: Path) -> None:
    cache, chosen = EngineCache(tmp_path), precisions_of(MANIFEST, "float16")
    found: list[bool] = []

    def ask() -> None:
        found.extend(engine.is_new for engine in build_network(SHIPPED, EngineOptions(), chosen, cache=cache))

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert sorted(counted) == sorted(MANIFEST.graphs)
    assert sum(found) == len(MANIFEST.graphs) and len(found) == 3 * len(MANIFEST.graphs)


def test_what_decides_on_an_engine_makes_it_another_one(counted: list[str], tmp_path: Path) -> None:
    cache, half = EngineCache(tmp_path), precisions_of(MANIFEST, "float16")

    def built(options: EngineOptions, precisions: object = half) -> int:
        return sum(engine.is_new for engine in build_network(SHIPPED, options, precisions, cache=cache))

    assert built(EngineOptions()) == 13
    assert built(EngineOptions()) == 0
    assert built(EngineOptions(architectures=("8.9",))) == 13
    assert built(EngineOptions(budgets=(EngineBudget(512), EngineBudget(2048)))) == 13
    assert built(EngineOptions(), precisions_of(MANIFEST, "float32")) == 6  # the stages
    assert built(EngineOptions(rebuild=True)) == 13


def test_the_last_choice_is_the_one_that_is_used(counted: list[str], tmp_path: Path) -> None:
    cache, sha256 = EngineCache(tmp_path), MANIFEST.graphs["stage1"].sha256
    environment = to_tensorrt.build_environment(to_tensorrt.load_tensorrt(), ("8.9",))
    for precision in ("float16", "float32", "float16"):
        build_network(SHIPPED, EngineOptions(), precisions_of(MANIFEST, precision), {"tried": precision}, cache)
        used = cache.find(sha256, environment)
        assert used.manifest.source.precision == precision and used.manifest.acceptance == {"tried": precision}
        assert used.content == prepared_graph(SHIPPED, MANIFEST, "stage1", precision).SerializeToString()[::-1]
    assert counted.count("stage1") == 2


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_all_shipped_graphs_build_without_a_gpu(library: TensorRT, precision: str, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    built = build_network(SHIPPED, EngineOptions(), precisions_of(MANIFEST, precision), cache=cache)
    assert [engine.manifest.name for engine in built] == list(MANIFEST.graphs)
    environment = to_tensorrt.build_environment(library, ("8.6",))
    for engine in built:
        content = cache.find(engine.manifest.source.graph, environment).content
        is_fused = content.count(b"struct _gemm_mha_v2_callback {") == 4
        assert is_fused == (precision == "float16" and engine.manifest.name.startswith("stage"))
