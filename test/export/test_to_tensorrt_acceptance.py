"""Which graphs may be in half precision, found out on pairs of images with a network in which one of them must not."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="engines are built from graphs with onnx: pip install onnx")

from onnx import numpy_helper  # noqa: E402

from feature_matcher_ros.cli import main  # noqa: E402
from feature_matcher_ros.config import ExtractorConfig  # noqa: E402
from feature_matcher_ros.errors import MatcherError  # noqa: E402
from feature_matcher_ros.evaluation.demo_scene import demo_frames  # noqa: E402
from feature_matcher_ros.evaluation.sequences import Modality  # noqa: E402
from feature_matcher_ros.export import accepted_engines  # noqa: E402
from feature_matcher_ros.export.engine_acceptance import (  # noqa: E402
    Acceptance,
    Remembering,
    Trial,
    accepted_precisions,
    compare_on_cpu,
)
from feature_matcher_ros.export.to_tensorrt import precisions_of  # noqa: E402
from feature_matcher_ros.extractors import create_extractor  # noqa: E402
from feature_matcher_ros.runtimes.manifest import read_manifest, sha256_of, write_manifest  # noqa: E402

SHIPPED = Path(__file__).parents[2] / "engines" / "lightglue_sift"
FACTOR = 2.0**15  # beyond what float16 holds once multiplied, and nothing at all to float32


@pytest.fixture(scope="module")
def trial() -> Trial:
    frames = [frame for frame, _ in islice(demo_frames(Modality.MONO, width=320, stride=8), 3)]
    extractor = create_extractor(ExtractorConfig(name="sift", max_keypoints=192))
    return Trial(list(pairwise(frames)), Remembering(extractor), 192)


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped network, with values of stage 3 that are too large in between and computed back after."""
    folder = tmp_path_factory.mktemp("fragile")
    for path in SHIPPED.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    graph = onnx.load(folder / "stage3.onnx")
    _scale_values(graph)
    onnx.save(graph, str(folder / "stage3.onnx"))
    manifest = read_manifest(SHIPPED)
    changed = replace(manifest.graphs["stage3"], sha256=sha256_of(folder / "stage3.onnx"))
    write_manifest(folder, replace(manifest, graphs={**manifest.graphs, "stage3": changed}))
    return folder


def _scale_values(graph: onnx.ModelProto) -> None:
    """Multiply what the first attention is about by a factor, and divide where its result is used."""
    weights = {weight.name: weight for weight in graph.graph.initializer}
    producers = {name: node for node in graph.graph.node for name in node.output}
    attention = next(node for node in graph.graph.node if node.op_type == "MultiHeadAttention")
    node = producers[attention.input[2]]
    while node.op_type != "Gemm":
        node = producers[node.input[0]]
    for name in node.input[1:]:
        _replace(weights[name], numpy_helper.to_array(weights[name]) * FACTOR)
    layer = next(
        other for other in graph.graph.node if other.op_type == "Gemm" and producers[other.input[0]].op_type == "Concat"
        and producers[producers[other.input[0]].input[1]].op_type == "Concat"
    )  # fmt: skip
    weight = numpy_helper.to_array(weights[layer.input[1]]).copy()
    weight[:, weight.shape[1] // 2 :] /= FACTOR
    _replace(weights[layer.input[1]], weight)


def _replace(weight: onnx.TensorProto, value: np.ndarray) -> None:
    weight.CopyFrom(numpy_helper.from_array(value.astype(np.float32), weight.name))


def test_the_shipped_network_tolerates_half_precision(trial: Trial) -> None:
    precisions = precisions_of(read_manifest(SHIPPED), "float16")
    compare = compare_on_cpu(SHIPPED, trial)
    chosen, acceptance = accepted_precisions(precisions, compare, compare)
    assert chosen == precisions
    assert acceptance.num_matches > 50 and acceptance.is_passed and acceptance.same_layers == 1.0
    assert 0.0 < acceptance.mean_score_difference < 0.01  # it did round
    exact = compare(dict.fromkeys(precisions, "float32"))
    assert exact.retention == 1.0 and exact.max_score_difference < 1e-4


def test_a_graph_that_half_precision_breaks_stays_in_float32_and_no_other(fragile: Path, trial: Trial) -> None:
    precisions = precisions_of(read_manifest(fragile), "float16")
    compare = compare_on_cpu(fragile, trial)
    assert not compare(precisions).is_passed
    chosen, acceptance = accepted_precisions(precisions, compare, compare)
    assert {name for name in precisions if chosen[name] != precisions[name]} == {"stage3"}
    assert acceptance.is_passed


def test_a_network_that_fails_in_float32_as_well_is_not_built() -> None:
    failed = Acceptance("nobody", 1, 100, 0.5, 0.0, 0.0, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 0.0)
    tried: list[Mapping[str, str]] = []

    def compare(precisions: Mapping[str, str]) -> Acceptance:
        tried.append(dict(precisions))
        return failed

    with pytest.raises(MatcherError, match=r"keeps 50\.0 % of its matches in float32, where 98\.5 % are wanted"):
        accepted_precisions({"a": "float16", "b": "float16", "c": "float32"}, compare, compare)
    assert tried[-1] == dict.fromkeys("abc", "float32")


def test_build_prints_what_was_built_and_how_it_did(
    fragile: Path, trial: Trial, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="engines are built with tensorrt-rtx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(accepted_engines, "_rendered_pairs", lambda: trial.pairs)
    arguments = ["build", fragile, "--for", "8.9", "--keypoints", "192", "--accept"]
    monkeypatch.setattr(sys, "argv", ["feature-matcher", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert stop.value.code == 0, err
    rows = {line.split()[1]: line.split() for line in out.splitlines() if line.startswith("│ ")}
    assert rows["stage3"][3] == "float32" and rows["stage2"][3] == "float16"
    assert "13 engines built, 13 in the cache" in out
    assert "of them found again" in out and "rounding as the GPU does" in out
