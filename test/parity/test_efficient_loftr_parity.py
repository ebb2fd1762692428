"""Our Efficient LoFTR against stored outputs of the published code, by torch and by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.export.dense_to_onnx import dense_by_torch, export_dense  # noqa: E402
from feature_matcher_ros.export.to_onnx import Origin  # noqa: E402
from feature_matcher_ros.matchers.dense_graphs import open_dense  # noqa: E402
from feature_matcher_ros.matchers.detector_free import DenseRules, DetectorFree, calibrated  # noqa: E402
from feature_matcher_ros.models.checkpoint import read_checkpoint  # noqa: E402
from feature_matcher_ros.models.efficient_loftr import EfficientLoftr, efficient_loftr_from_checkpoint  # noqa: E402

pytestmark = pytest.mark.data

SMALL = ("fr3_320x256_full", "fr3_320x256_opt")
LARGE = ("fr3_640x480_full", "fr3_640x480_opt")


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "reference" / "eloftr_seeded"


@pytest.fixture(scope="module")
def network(folder: Path) -> EfficientLoftr:
    return efficient_loftr_from_checkpoint(read_checkpoint(folder / "eloftr_seed0_fp16.pth")).merge()


@pytest.fixture(scope="module")
def graphs(network: EfficientLoftr, tmp_path_factory: pytest.TempPathFactory) -> Path:
    exported = tmp_path_factory.mktemp("efficient_loftr")
    manifest = export_dense(network, Origin("seeded", "-", "-"), exported)
    assert all(entry.max_difference < 1e-3 for entry in manifest.graphs.values())
    return exported


def assert_same_features(found: np.ndarray, stored: np.ndarray) -> None:
    assert np.abs(found - stored).max() <= 1e-4 * np.abs(stored).max()


def states(network: EfficientLoftr, stored: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    images = [torch.from_numpy(stored[f"input{side}"])[None, None].float() / 255.0 for side in (0, 1)]
    cells = torch.ones(1, 1, *(size // 8 for size in images[0].shape[2:]))
    with torch.inference_mode():
        state0, state1 = (network.encode(image, cells)["state"] for image in images)
        for number in range(network.config.rounds):
            state0, state1 = network.round(number, state0, state1, cells, cells)
    return state0, state1


def test_coarse_features_of_both_forms(folder: Path, network: EfficientLoftr) -> None:
    for name in ("fr3_320x256_full", "fr3_320x256_full_noreparam"):
        stored = dict(np.load(folder / f"{name}.npz"))
        if name.endswith("noreparam"):
            network = efficient_loftr_from_checkpoint(read_checkpoint(folder / "eloftr_seed0_fp16.pth"))
        image = torch.from_numpy(stored["input0"])[None, None].float() / 255.0
        with torch.inference_mode():
            assert_same_features(network.backbone(image)[2].numpy()[0], stored["bb_feats_c"][0])
        state0, state1 = states(network, stored)
        assert_same_features(state0.numpy(), stored["tf0"])
        assert_same_features(state1.numpy(), stored["tf1"])


def assert_same_matches(matcher: DetectorFree, stored: dict[str, np.ndarray], is_optimized: bool) -> None:
    """The same pairs of cells, and points within 0.05 px of the published ones."""
    features = [matcher.extract(stored[f"input{side}"]) for side in (0, 1)]
    matches = matcher.match(features[0], features[1])
    order = np.argsort(stored["i_ids"], kind="stable")
    assert len(matches) == len(order)
    assert np.abs(matches.points0 - stored["mkpts0_f"][order]).max() < 0.05
    assert np.abs(matches.points1 - stored["mkpts1_f"][order]).max() < 0.05
    confidence = stored["mconf"][order]
    if is_optimized:
        assert np.allclose(matches.scores, calibrated(confidence), atol=1e-3)
    else:
        assert np.abs(matches.scores - confidence).max() < 1e-3
    assert matches.scores.min() >= 0.0
    assert matches.scores.max() <= 1.0


def rules(stored: dict[str, np.ndarray], is_optimized: bool) -> DenseRules:
    # The published code wants more than its threshold, which here is the value of a match.
    threshold = float(calibrated(stored["thr"])) + 1e-6 if is_optimized else 0.0
    return DenseRules(min_score=threshold, max_matches=10_000)


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_matches_by_torch(folder: Path, network: EfficientLoftr, name: str) -> None:
    stored, is_optimized = dict(np.load(folder / f"{name}.npz")), name.endswith("opt")
    matcher = DetectorFree(dense_by_torch(network, is_optimized), rules(stored, is_optimized))
    assert_same_matches(matcher, stored, is_optimized)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_matches_by_onnx_runtime(folder: Path, graphs: Path, name: str) -> None:
    stored, is_optimized = dict(np.load(folder / f"{name}.npz")), name.endswith("opt")
    opened = open_dense(graphs, is_optimized, num_threads=1)
    assert_same_matches(DetectorFree(opened, rules(stored, is_optimized)), stored, is_optimized)
