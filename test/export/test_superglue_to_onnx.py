"""Exported SuperGlue networks: what is written, what it computes, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs torch: pip install feature_matcher_ros[torch]")
onnx = pytest.importorskip("onnx", reason="export needs onnx: pip install feature_matcher_ros[torch]")

from superglue_checkpoint import published_shapes, seeded_tensors  # noqa: E402

from feature_matcher_ros.errors import MatcherError, RuntimeLoadError  # noqa: E402
from feature_matcher_ros.export import superglue_graph  # noqa: E402
from feature_matcher_ros.export.standard_operators import with_standard_operators  # noqa: E402
from feature_matcher_ros.export.superglue_to_onnx import export_superglue, superglue_by_torch  # noqa: E402
from feature_matcher_ros.export.to_onnx import Origin  # noqa: E402
from feature_matcher_ros.matchers.superglue_graphs import SuperGlueGraphs, open_superglue, superglue_specs  # noqa: E402
from feature_matcher_ros.models.superglue import SuperGlueModel, superglue_from_checkpoint  # noqa: E402
from feature_matcher_ros.models.superglue_config import SuperGlueConfig  # noqa: E402
from feature_matcher_ros.runtimes import open_runtime  # noqa: E402
from feature_matcher_ros.runtimes.manifest import read_manifest, sha256_of  # noqa: E402

CONFIG = SuperGlueConfig(width=32, encoder_widths=(8, 16), layers=2, sinkhorn_iterations=10)
ORIGIN = Origin("seeded", "for research only", "none")


def seeded(config: SuperGlueConfig = CONFIG) -> SuperGlueModel:
    tensors = seeded_tensors(published_shapes(config.width, config.encoder_widths, config.layers))
    model = SuperGlueModel(config).eval().requires_grad_(False)
    model.load_state_dict(superglue_from_checkpoint(tensors).state_dict())
    return model


@pytest.fixture(scope="module")
def model() -> SuperGlueModel:
    return seeded()


@pytest.fixture(scope="module")
def exported(model: SuperGlueModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    export_superglue(model, ORIGIN, folder)
    return folder


@pytest.fixture(scope="module")
def opened(exported: Path) -> SuperGlueGraphs:
    return open_superglue(exported, num_threads=1)


def outputs(graphs: SuperGlueGraphs, num_points: tuple[int, int]) -> list[np.ndarray]:
    """Everything that the graphs give for some random points, each graph fed by the one before it."""
    rng, found, states = np.random.default_rng(num_points), [], {}
    for side, count in enumerate(num_points):
        given = {
            "descriptors": rng.standard_normal((count, CONFIG.width)),
            "positions": rng.uniform(-0.7, 0.7, (count, 2)),
            "keypoint_scores": rng.uniform(0.0, 1.0, count),
        }
        embedded = graphs.embed.run({name: values.astype(np.float32) for name, values in given.items()})
        found.append(np.asarray(embedded["state"]))
        states[f"state{side}"] = embedded["state"]
    refined = graphs.layers.run(states)
    found += [np.asarray(refined[f"next_state{side}"]) for side in (0, 1)]
    if min(num_points) > 0:  # the best of nothing is not asked for
        best = graphs.head.run({name: refined[f"next_{name}"] for name in states})
        found += [np.asarray(value) for value in best.values()]
    return found


@pytest.mark.parametrize("num_points", [(60, 70), (300, 20), (1, 40), (2, 1), (1, 1), (0, 3), (3, 0), (0, 0)])
def test_graphs_compute_what_the_model_computes(
    model: SuperGlueModel, opened: SuperGlueGraphs, num_points: tuple[int, int]
) -> None:
    found = outputs(opened, num_points)
    expected = outputs(superglue_by_torch(model), num_points)
    assert [value.shape for value in found] == [value.shape for value in expected]
    for value, wanted in zip(found, expected, strict=True):
        assert np.allclose(value, wanted, rtol=1e-4, atol=1e-4)


def test_the_manifest_says_what_was_exported(exported: Path, opened: SuperGlueGraphs) -> None:
    manifest = read_manifest(exported)
    assert (manifest.method, manifest.weights, manifest.licence) == ("superglue", "seeded", "for research only")
    assert list(manifest.graphs) == ["embed", "stage2", "head2"]
    for name, entry in manifest.graphs.items():
        assert entry.sha256 == sha256_of(exported / f"{name}.onnx")
        assert entry.max_difference < 1e-4
    assert opened.config == CONFIG


def test_an_engine_can_be_built_of_the_graphs(exported: Path, tmp_path: Path) -> None:
    """Attention can be spelled out in standard operators, and no other is from outside of the standard."""
    specs = superglue_specs(CONFIG)
    rng = np.random.default_rng(0)
    states = {f"state{side}": rng.standard_normal((20, CONFIG.width), dtype=np.float32) for side in (0, 1)}
    for path in exported.glob("*.onnx"):
        graph = onnx.load(path)
        onnx.checker.check_model(graph)
        assert not {node.op_type for node in graph.graph.node} & {"NonZero", "Compress", "Unique", "If", "Loop"}
        standard = with_standard_operators(graph, CONFIG.width // CONFIG.heads)
        onnx.checker.check_model(standard)
        assert not any(node.domain for node in standard.graph.node)
        onnx.save(standard, tmp_path / path.name)
    fused, spelled = (
        open_runtime(folder / "stage2.onnx", specs["stage2"]).run(states) for folder in (exported, tmp_path)
    )
    for name, value in fused.items():
        assert np.allclose(value, spelled[name], atol=1e-5)


def test_the_number_of_iterations_is_that_of_the_configuration(model: SuperGlueModel, tmp_path: Path) -> None:
    """With fewer, more mass is still on its way."""
    few = seeded(replace(CONFIG, sinkhorn_iterations=2))
    export_superglue(few, ORIGIN, tmp_path)
    graphs = open_superglue(tmp_path, num_threads=1)
    assert graphs.config.sinkhorn_iterations == 2
    found, expected, others = (
        outputs(each, (30, 40))[-1] for each in (graphs, superglue_by_torch(few), superglue_by_torch(model))
    )
    assert np.allclose(found, expected, atol=1e-4)
    assert not np.allclose(found, others, atol=1e-3)


def test_a_graph_that_differs_from_its_model_is_not_exported(
    model: SuperGlueModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = superglue_graph.behind_projection
    monkeypatch.setattr(
        superglue_graph, "behind_projection", lambda layer, *rest: fold((layer[0], layer[1] + 0.01), *rest)
    )
    with pytest.raises(MatcherError, match="the graph 'stage2' differs from its network"):
        export_superglue(model, ORIGIN, tmp_path)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network": {}}, "does not describe a network"),
        ({"network": {"encoder_widths": [8, 16], "depth": 1}}, "does not describe a network"),
        ({"method": "lightglue"}, "the graphs of 'lightglue', not of superglue"),
        ({"graphs": {}}, "names no graph"),
    ],
)
def test_foreign_manifests_are_refused(exported: Path, tmp_path: Path, change: dict[str, object], said: str) -> None:
    content = json.loads((exported / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(content | change))
    with pytest.raises(RuntimeLoadError, match=said):
        open_superglue(tmp_path)
