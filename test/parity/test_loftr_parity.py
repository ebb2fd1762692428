"""Our LoFTR against stored outputs of the published code, by torch and by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: pip install feature_matcher_ros[torch]")
pytest.importorskip("onnx", reason="parity of graphs needs onnx: pip install feature_matcher_ros[torch]")

from loftr_reference import CHANNELS, REFERENCE, images, seeded_tensors  # noqa: E402

from feature_matcher_ros.export.dense_to_onnx import dense_by_torch, export_dense  # noqa: E402
from feature_matcher_ros.export.to_onnx import Origin  # noqa: E402
from feature_matcher_ros.matchers.dense_graphs import DenseGraphs, open_dense  # noqa: E402
from feature_matcher_ros.matchers.detector_free import DenseRules, DetectorFree  # noqa: E402
from feature_matcher_ros.models.loftr import Loftr, loftr_from_checkpoint, position_encoding  # noqa: E402


@pytest.fixture(scope="module")
def network() -> Loftr:
    return loftr_from_checkpoint(seeded_tensors())


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(REFERENCE) as file:
        return dict(file)


def test_features(network: Loftr, stored: dict[str, np.ndarray]) -> None:
    given = [torch.from_numpy(image)[None, None].float() / 255.0 for image in images()]
    cells = torch.ones(1, 1, *(size // 8 for size in given[0].shape[2:]))
    with torch.inference_mode():
        for side, image in enumerate(given):
            coarse, fine = network.backbone(image)
            same(coarse + position_encoding(coarse), stored[f"coarse{side}"], lambda found: found[0, CHANNELS])
            same(fine, stored[f"fine{side}"], lambda found: found[0, CHANNELS, ::6, ::6])
        states = tuple(network.encode(image, cells)["state"] for image in given)
        for number in range(network.config.rounds):
            states = network.round(number, *states, cells, cells)
    for side, state in enumerate(states):
        same(state, stored[f"state{side}"], lambda found: found[0, CHANNELS].flatten(1).T)


def same(found, stored: np.ndarray, part) -> None:
    assert np.abs(part(found).numpy() - stored).max() <= 1e-4 * np.abs(stored).max()


def test_matches_by_torch(network: Loftr, stored: dict[str, np.ndarray]) -> None:
    assert_same_matches(dense_by_torch(network), stored)


@pytest.mark.slow
def test_matches_by_onnx_runtime(network: Loftr, stored: dict[str, np.ndarray], tmp_path: Path) -> None:
    manifest = export_dense(network, Origin("seeded", "-", "-"), tmp_path)
    assert manifest.method == "loftr"
    assert_same_matches(open_dense(tmp_path, num_threads=1), stored)


def assert_same_matches(graphs: DenseGraphs, stored: dict[str, np.ndarray]) -> None:
    matcher = DetectorFree(graphs, DenseRules(min_score=0.0, max_matches=10_000))
    matches = matcher.match(*(matcher.extract(image) for image in images()))
    assert len(matches) == len(stored["confidence"]) > 100
    assert np.array_equal(matches.points0, stored["keypoints0"])
    assert np.abs(matches.points1 - stored["keypoints1"]).max() < 0.005
    assert np.abs(matches.scores - stored["confidence"]).max() < 1e-4
