"""Engines of a SuperGlue network: what half precision does to its matches, and that all graphs can be built."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="export needs torch: pip install feature_matcher_ros[torch]")
pytest.importorskip("onnx", reason="export needs onnx: pip install feature_matcher_ros[torch]")

from superglue_checkpoint import nearest_neighbour_tensors  # noqa: E402

from feature_matcher_ros.config import ExtractorConfig  # noqa: E402
from feature_matcher_ros.evaluation.demo_scene import demo_frames  # noqa: E402
from feature_matcher_ros.evaluation.sequences import Modality  # noqa: E402
from feature_matcher_ros.export.engine_acceptance import Remembering, Trial, compare_on_cpu  # noqa: E402
from feature_matcher_ros.export.engine_profiles import EngineBudget  # noqa: E402
from feature_matcher_ros.export.superglue_to_onnx import export_superglue  # noqa: E402
from feature_matcher_ros.export.to_onnx import Origin  # noqa: E402
from feature_matcher_ros.export.to_tensorrt import EngineOptions, build_network, precisions_of  # noqa: E402
from feature_matcher_ros.extractors import create_extractor  # noqa: E402
from feature_matcher_ros.models.superglue import SuperGlueModel, superglue_from_checkpoint  # noqa: E402
from feature_matcher_ros.runtimes.engine_cache import EngineCache  # noqa: E402
from feature_matcher_ros.runtimes.manifest import read_manifest  # noqa: E402


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nearest neighbours of SIFT descriptors, with few iterations, which are quick to build."""
    nearest = superglue_from_checkpoint(nearest_neighbour_tensors(width=128))
    model = SuperGlueModel(replace(nearest.config, sinkhorn_iterations=5)).eval().requires_grad_(False)
    model.load_state_dict(nearest.state_dict())
    folder = tmp_path_factory.mktemp("graphs")
    export_superglue(model, Origin("nearest", "CC0-1.0", "a test"), folder)
    return folder


def test_half_precision_where_the_work_is_keeps_the_matches(graphs: Path) -> None:
    frames = [frame for frame, _ in islice(demo_frames(Modality.MONO, width=320, stride=8), 3)]
    extractor = create_extractor(ExtractorConfig(name="sift", max_keypoints=192))
    precisions = precisions_of(read_manifest(graphs), "float16")
    assert precisions == {"embed": "float32", "stage1": "float16", "head1": "float32"}
    acceptance = compare_on_cpu(graphs, Trial(list(pairwise(frames)), Remembering(extractor), 192))(precisions)
    assert acceptance.num_matches > 40
    assert acceptance.is_passed


def test_all_graphs_build_without_a_gpu(graphs: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="engines are built with tensorrt-rtx")
    options = EngineOptions(budgets=(EngineBudget(256),), architectures=("8.9",))
    precisions = precisions_of(read_manifest(graphs), "float16")
    built = build_network(graphs, options, precisions, cache=EngineCache(tmp_path))
    assert [(engine.manifest.name, engine.manifest.source.precision) for engine in built] == list(precisions.items())
