"""Graphs opened and executed by ONNX Runtime, and every way in which a graph can be the wrong one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fakes import FakeRuntime
from onnx import TensorProto, helper

from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.runtimes import open_runtime
from feature_matcher_ros.runtimes.graph_spec import GraphSpec, TensorSpec

SPEC = GraphSpec(
    inputs=(TensorSpec("points", ("N", 2), "float32"), TensorSpec("offset", (2,), "float32")),
    outputs=(TensorSpec("moved", ("N", 2), "float32"), TensorSpec("lengths", ("N",), "float32")),
)


@pytest.fixture(scope="module")
def graph_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that adds an offset to points and measures how far they are from the origin then."""
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["points", "offset"], ["moved"]),
            helper.make_node("Mul", ["moved", "moved"], ["squares"]),
            helper.make_node("ReduceSum", ["squares", "axes"], ["sums"], keepdims=0),
            helper.make_node("Sqrt", ["sums"], ["lengths"]),
        ],
        "move",
        [tensor("points", TensorProto.FLOAT, ["num_points", 2]), tensor("offset", TensorProto.FLOAT, [2])],
        [tensor("moved", TensorProto.FLOAT, ["num_points", 2]), tensor("lengths", TensorProto.FLOAT, ["num_points"])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("graphs") / "move.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", ["auto", "onnx"])
@pytest.mark.parametrize("num_points", [0, 1, 5])
def test_a_graph_computes_what_its_definition_says(graph_path: Path, name: str, num_points: int) -> None:
    runtime = open_runtime(graph_path, SPEC, name, num_threads=1)
    points = np.random.default_rng(0).normal(size=(num_points, 2)).astype(np.float32)
    offset = np.float32([3, -4])
    outputs = runtime.run({"points": points, "offset": offset})
    assert list(outputs) == ["moved", "lengths"]
    np.testing.assert_array_equal(outputs["moved"], points + offset)
    np.testing.assert_allclose(outputs["lengths"], np.hypot(*(points + offset).T), rtol=1e-6)
    assert runtime.name == "onnx"
    assert runtime.spec == SPEC


def test_a_dimension_that_the_graph_leaves_free_may_be_fixed(graph_path: Path) -> None:
    fixed = replace(SPEC, inputs=(TensorSpec("points", (7, 2), "float32"), SPEC.inputs[1]))
    assert open_runtime(graph_path, fixed).spec == fixed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (TensorSpec("pixels", ("N", 2), "float32"), r"not have the input 'pixels' float32\(N, 2\) but 'points'"),
        (TensorSpec("points", ("N", 3), "float32"), r"not have the input 'points' float32\(N, 3\) but"),
        (TensorSpec("points", ("N", 2, 1), "float32"), r"not have the input 'points' float32\(N, 2, 1\) but"),
        (TensorSpec("points", ("N", 2), "float16"), r"not have the input 'points' float16\(N, 2\) but"),
        (TensorSpec("points", ("N", "D"), "float32"), r"not have the input 'points' float32\(N, D\) but"),
    ],
)
def test_a_graph_with_another_input_is_refused_at_opening(graph_path: Path, wrong: TensorSpec, message: str) -> None:
    with pytest.raises(RuntimeLoadError, match=message):
        open_runtime(graph_path, replace(SPEC, inputs=(wrong, SPEC.inputs[1])))


def test_a_graph_with_a_tensor_too_many_is_refused_at_opening(graph_path: Path) -> None:
    with pytest.raises(RuntimeLoadError, match=r"unexpected input 'offset' float32\(2\): export it again"):
        open_runtime(graph_path, replace(SPEC, inputs=SPEC.inputs[:1]))
    with pytest.raises(RuntimeLoadError, match=r"unexpected output 'lengths' .*: export it again"):
        open_runtime(graph_path, replace(SPEC, outputs=SPEC.outputs[:1]))


def test_a_missing_or_broken_file_is_one_sentence(tmp_path: Path, graph_path: Path) -> None:
    with pytest.raises(RuntimeLoadError, match=r"there is no graph .*none\.onnx: give the path"):
        open_runtime(tmp_path / "none.onnx", SPEC)
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("no graph")
    (tmp_path / "cut.onnx").write_bytes(graph_path.read_bytes()[:100])
    for name in ("empty.onnx", "text.onnx", "cut.onnx"):
        with pytest.raises(RuntimeLoadError, match=rf"cannot open .*{name} .*: export the graph again\.$") as error:
            open_runtime(tmp_path / name, SPEC)
        assert "\n" not in str(error.value)


def test_an_unknown_runtime_is_refused(graph_path: Path) -> None:
    with pytest.raises(RuntimeLoadError, match="the runtime 'abacus' is unknown: choose one of auto, onnx, tensorrt"):
        open_runtime(graph_path, SPEC, "abacus")


def test_the_fake_runtime_holds_a_graph_to_its_spec() -> None:
    runtime = FakeRuntime(
        SPEC, lambda inputs: {"moved": inputs["points"], "lengths": np.zeros(len(inputs["points"]), np.float32)}
    )
    points, offset = np.ones((3, 2), np.float32), np.zeros(2, np.float32)
    assert runtime.run({"points": points, "offset": offset})["moved"] is points
    assert len(runtime.calls) == 1
    with pytest.raises(AssertionError):
        runtime.run({"points": points.astype(np.float64), "offset": offset})
    with pytest.raises(AssertionError):
        runtime.run({"points": points})
