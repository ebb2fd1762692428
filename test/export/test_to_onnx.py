"""Exported networks of small size: what is written, what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs torch: pip install feature_matcher_ros[torch]")
onnx = pytest.importorskip("onnx", reason="export needs onnx: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.datatypes import Features, Image  # noqa: E402
from feature_matcher_ros.errors import MatcherError, OutputError, RuntimeLoadError  # noqa: E402
from feature_matcher_ros.export import to_onnx  # noqa: E402
from feature_matcher_ros.export.to_onnx import Origin, export_lightglue  # noqa: E402
from feature_matcher_ros.export.to_torch import lightglue_by_torch  # noqa: E402
from feature_matcher_ros.matchers.adaptive import PruneRule, StopRule  # noqa: E402
from feature_matcher_ros.matchers.lightglue import LightGlue, LightGlueRules  # noqa: E402
from feature_matcher_ros.matchers.lightglue_graphs import LightGlueGraphs, open_lightglue  # noqa: E402
from feature_matcher_ros.models.lightglue import LightGlueModel  # noqa: E402
from feature_matcher_ros.models.lightglue_config import LightGlueConfig  # noqa: E402
from feature_matcher_ros.runtimes.manifest import read_manifest, sha256_of  # noqa: E402

CONFIG = LightGlueConfig(descriptor_size=16, width=32, heads=2, layers=4)
ORIGIN = Origin("seeded", "Apache-2.0", "none")


class NoExtractor:
    name = "none"

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        raise NotImplementedError


def seeded(config: LightGlueConfig = CONFIG) -> LightGlueModel:
    torch.manual_seed(1)
    return LightGlueModel(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    export_lightglue(seeded(), ORIGIN, folder)
    return folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def features(num_points: int, seed: int) -> Features:
    generator = np.random.default_rng(seed)
    keypoints = generator.uniform(0, 480, (num_points, 2)).astype(np.float32)
    descriptors = np.random.default_rng(9).standard_normal((100, CONFIG.descriptor_size)).astype(np.float32)
    return Features(
        keypoints,
        np.ones(num_points, np.float32),
        3 * (generator.permutation(descriptors) if num_points <= 100 else np.tile(descriptors, (41, 1)))[:num_points],
        (640, 480),
        scales=generator.uniform(1, 9, num_points).astype(np.float32),
        orientations=generator.uniform(0, 6, num_points).astype(np.float32),
    )


def assert_same(found: LightGlueGraphs, expected: LightGlueGraphs, num_points: tuple[int, int]) -> None:
    rules = LightGlueRules(StopRule(None), PruneRule(0.5), min_score=0.0)
    pair = features(num_points[0], 3), features(num_points[1], 4)
    matches, reference = (LightGlue(NoExtractor(), graphs, rules).match(*pair) for graphs in (found, expected))
    assert np.array_equal(matches.indices, reference.indices)
    assert np.allclose(matches.scores, reference.scores, atol=1e-5)
    assert np.array_equal(matches.points_per_stage, reference.points_per_stage)


@pytest.mark.parametrize(
    ("config", "stage_ends"),
    [
        (CONFIG, None),
        (CONFIG, (2, 4)),
        (LightGlueConfig(16, 16, 1, 2, scale_orientation=True), None),
        (LightGlueConfig(16, 32, 4, 3, adaptive=False), None),
    ],
)
def test_graphs_match_as_the_model_does(
    config: LightGlueConfig, stage_ends: tuple[int, ...] | None, tmp_path: Path
) -> None:
    model = seeded(config)
    manifest = export_lightglue(model, ORIGIN, tmp_path / "new", stage_ends)
    graphs = open_lightglue(tmp_path / "new", num_threads=1)
    assert graphs.config == config
    expected_ends = stage_ends or (tuple(range(1, config.layers + 1)) if config.adaptive else (config.layers,))
    assert tuple(stage.layers_done for stage in graphs.stages) == expected_ends
    assert all(entry.max_difference < 1e-4 for entry in manifest.graphs.values())
    for num_points in ((60, 70), (1, 1), (1, 4096), (2, 1), (0, 5), (0, 0)):
        assert_same(graphs, lightglue_by_torch(model, stage_ends), num_points)


def test_the_same_input_gives_the_same_output(exported: Path) -> None:
    matcher = LightGlue(NoExtractor(), open_lightglue(exported, num_threads=1), LightGlueRules(min_score=0.0))
    first, second = (matcher.match(features(50, 3), features(60, 4)) for _ in range(2))
    assert len(first) > 0
    assert np.array_equal(first.indices, second.indices)
    assert first.scores.tobytes() == second.scores.tobytes()


def test_the_manifest_says_what_was_exported(exported: Path) -> None:
    manifest = read_manifest(exported)
    assert (manifest.method, manifest.weights, manifest.licence) == ("lightglue", "seeded", "Apache-2.0")
    assert set(manifest.graphs) == {"embed"} | {f"{kind}{n}" for kind in ("stage", "head") for n in range(1, 5)}
    for name, entry in manifest.graphs.items():
        assert entry.sha256 == sha256_of(exported / f"{name}.onnx")
    assert manifest.versions["torch"] == torch.__version__


def test_graphs_hold_nothing_that_an_engine_cannot_build(exported: Path) -> None:
    for path in exported.glob("*.onnx"):
        graph = onnx.load(path)
        onnx.checker.check_model(graph)
        used = {node.op_type for node in graph.graph.node}
        assert not used & {"NonZero", "Compress", "Unique", "If", "Loop"}
        assert any(node.domain for node in graph.graph.node) == path.stem.startswith("stage")
        assert len(graph.graph.node) < 70


def corrupt(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]


@pytest.mark.parametrize("change", [corrupt, lambda content: content[:-10]])
def test_changed_and_truncated_graphs_are_refused(copied: Path, change: Callable[[bytes], bytes]) -> None:
    (copied / "stage3.onnx").write_bytes(change((copied / "stage3.onnx").read_bytes()))
    with pytest.raises(RuntimeLoadError, match=r"stage3.onnx has the SHA-256 .*export the graphs again"):
        open_lightglue(copied)


def test_missing_files_are_named(copied: Path) -> None:
    (copied / "head2.onnx").unlink()
    with pytest.raises(RuntimeLoadError, match=r"head2.onnx named in the manifest is missing"):
        open_lightglue(copied)
    (copied / "manifest.json").unlink()
    with pytest.raises(RuntimeLoadError, match=r"cannot read .*manifest.json"):
        open_lightglue(copied)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 99}, "not a manifest of this version"),
        ({"network": {}}, "does not describe a network"),
        ({"network": {"layers": 4, "stage_ends": [4], "depth": 1}}, "does not describe a network"),
        ({"method": "superglue"}, "the graphs of 'superglue', not of lightglue"),
        ({"graphs": {}}, "names no graph"),
        ({"graphs": {"embed": {}}}, "not a manifest of this version"),
        ({"colour": "red"}, "not a manifest of this version"),
    ],
)
def test_foreign_manifests_are_refused(copied: Path, change: dict[str, object], said: str) -> None:
    content = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(content | change))
    with pytest.raises(RuntimeLoadError, match=said):
        open_lightglue(copied)


def test_graphs_of_another_size_are_refused(copied: Path) -> None:
    content = json.loads((copied / "manifest.json").read_text())
    content["network"]["width"] = 64
    (copied / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(RuntimeLoadError, match="export it again"):
        open_lightglue(copied)


@pytest.mark.parametrize("stage_ends", [(), (2,), (4, 2), (2, 2, 4), (2, 4, 5), (0, 4)])
def test_impossible_stages_are_refused(stage_ends: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(MatcherError, match=r"stages cannot end after the layers .* end with 4"):
        export_lightglue(seeded(), ORIGIN, tmp_path, stage_ends)


def test_a_graph_that_differs_from_its_model_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = seeded()
    wrong.log_assignment["2"].final_proj.bias.add_(1.0)
    monkeypatch.setattr(to_onnx, "head_graph", lambda model, layer, original=to_onnx.head_graph: original(wrong, layer))
    with pytest.raises(MatcherError, match="'head3' differs from its model"):
        export_lightglue(seeded(), ORIGIN, tmp_path / "new")
    assert not (tmp_path / "new" / "manifest.json").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="choose a writable folder"):
        export_lightglue(seeded(), ORIGIN, tmp_path / "new")


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="choose a writable folder"):
        export_lightglue(seeded(), ORIGIN, tmp_path / "file" / "graphs")
