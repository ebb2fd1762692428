"""Our extractors against stored points of the published code, by torch and by ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: pip install feature_matcher_ros[torch]")
pytest.importorskip(
    "onnxscript", reason="exporting extractors needs onnxscript: pip install feature_matcher_ros[torch]"
)

from feature_matcher_ros.config import ExtractorConfig  # noqa: E402
from feature_matcher_ros.datatypes import Features  # noqa: E402
from feature_matcher_ros.export.points_to_onnx import export_points, points_by_torch  # noqa: E402
from feature_matcher_ros.export.to_onnx import Origin  # noqa: E402
from feature_matcher_ros.export.to_torch import lightglue_by_torch  # noqa: E402
from feature_matcher_ros.extractors.network_points import NetworkPoints  # noqa: E402
from feature_matcher_ros.extractors.point_graphs import PointGraphs, open_points  # noqa: E402
from feature_matcher_ros.matchers.lightglue import LightGlue  # noqa: E402
from feature_matcher_ros.models.checkpoint import read_checkpoint  # noqa: E402
from feature_matcher_ros.models.lightglue import lightglue_from_checkpoint  # noqa: E402
from feature_matcher_ros.models.point_networks import point_network_from_checkpoint  # noqa: E402

pytestmark = pytest.mark.data

FILES = {
    "xfeat": "xfeat.pt",
    "aliked": "aliked-n16.pth",
    "disk": "disk_depth_fp16.pth",
    "superpoint": "superpoint_v1_fp16.pth",
}
HOW = ("torch", pytest.param("onnx", marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def opened(shared_data: Path, tmp_path_factory: pytest.TempPathFactory):
    """Opens a network once, by torch or exported."""
    graphs: dict[tuple[str, str], PointGraphs] = {}

    def open_network(name: str, how: str) -> PointGraphs:
        if (name, how) not in graphs:
            network = point_network_from_checkpoint(name, read_checkpoint(shared_data / "weights" / FILES[name]))
            if how == "onnx":
                folder = tmp_path_factory.mktemp(name)
                manifest = export_points(network, Origin(name, "-", "-"), folder)
                assert all(entry.max_difference < 1e-3 for entry in manifest.graphs.values())
                graphs[name, how] = open_points(folder, num_threads=1)
            else:
                graphs[name, how] = points_by_torch(network)
        return graphs[name, how]

    return open_network


def assert_same_points(found: Features, stored: dict[str, np.ndarray], image: int) -> None:
    """The published points are among ours, and described as ours."""
    published = stored[f"kpts{image}"]
    distance = np.linalg.norm(published[:, None] - found.keypoints[None], axis=2)
    nearest, is_near = distance.argmin(axis=1), distance.min(axis=1) < 0.1
    assert is_near.mean() >= 0.99
    cosines = np.sum(stored[f"desc{image}"] * found.descriptors[nearest], axis=1)[is_near]
    assert np.mean(cosines >= 0.999) >= 0.99


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("pair", ["fr3", "kitti"])
@pytest.mark.parametrize("image", [0, 1])
def test_xfeat(opened, shared_data: Path, pair: str, image: int, how: str) -> None:
    folder = shared_data / "reference" / "xfeat_lighterglue_L3"
    picture = cv2.imread(str(folder / f"{pair}_img{image}.png"))
    for num_points in (512, 2048):
        extractor = NetworkPoints(opened("xfeat", how), ExtractorConfig(max_keypoints=num_points, grid_cell_px=0))
        with np.load(folder / f"{pair}_{num_points}.npz") as stored:
            assert_same_points(extractor.extract(picture), dict(stored), image)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("pair", ["fr3_1024", "scannet0_512"])
def test_aliked(opened, shared_data: Path, pair: str, how: str) -> None:
    """The stored points are the best by their shifted scores of 2048 chosen by their pixels' scores, as ours are."""
    folder = shared_data / "reference" / "lightglue_aliked_seeded"
    graphs = opened("aliked", how)
    graphs = replace(graphs, config=replace(graphs.config, min_score=0.0))
    extractor = NetworkPoints(graphs, ExtractorConfig(max_keypoints=2048, grid_cell_px=0))
    picture = cv2.imread(str(folder / f"{pair.split('_')[0]}_img0.png"))
    with np.load(folder / f"{pair}.npz") as stored:
        assert_same_points(extractor.extract(picture), dict(stored), 0)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["torch", "onnx"])
@pytest.mark.parametrize("name", ["disk", "superpoint"])
def test_points_of_two_views_are_the_same(opened, shared_data: Path, name: str, how: str) -> None:
    """No outputs of the published code are at hand for these: the geometry that XFeat's matches give must agree."""
    folder = shared_data / "reference" / "xfeat_lighterglue_L3"
    extractor = NetworkPoints(opened(name, how), ExtractorConfig(max_keypoints=1024, grid_cell_px=0))
    first, second = (extractor.extract(cv2.imread(str(folder / f"fr3_img{image}.png"))) for image in (0, 1))
    with np.load(folder / "fr3_2048.npz") as stored:
        pairs = np.flatnonzero(stored["matches0"] >= 0)
        points = stored["kpts0"][pairs], stored["kpts1"][stored["matches0"][pairs]]
    F, _ = cv2.findFundamentalMat(*points, cv2.USAC_MAGSAC, 1.0, 0.999, 5000)
    similarity = first.descriptors @ second.descriptors.T
    best = similarity.argmax(axis=1)
    mutual = np.flatnonzero(similarity.argmax(axis=0)[best] == np.arange(len(best)))
    lines = np.column_stack((first.keypoints[mutual], np.ones(len(mutual)))) @ F.T
    partners = np.column_stack((second.keypoints[best[mutual]], np.ones(len(mutual))))
    distance = np.abs(np.sum(lines * partners, axis=1)) / np.linalg.norm(lines[:, :2], axis=1)
    assert np.count_nonzero(distance < 2.0) > 150
    assert np.mean(distance < 2.0) > 0.5


@pytest.mark.parametrize("pair", ["fr3_1024", "kitti_512"])
def test_from_images_to_matches(shared_data: Path, pair: str) -> None:
    """Extractor and matcher together are the published pair of them."""
    folder = shared_data / "reference" / "xfeat_lighterglue_L3"
    points = point_network_from_checkpoint("xfeat", read_checkpoint(shared_data / "weights" / "xfeat.pt"))
    network = lightglue_from_checkpoint(read_checkpoint(shared_data / "weights" / "xfeat_lighterglue_L3.pt"))
    name, num_points = pair.split("_")
    config = ExtractorConfig(max_keypoints=int(num_points), grid_cell_px=0)
    matcher = LightGlue(NetworkPoints(points_by_torch(points), config), lightglue_by_torch(network))
    features = [matcher.extract(cv2.imread(str(folder / f"{name}_img{image}.png"))) for image in (0, 1)]
    matches = matcher.match(features[0], features[1])
    with np.load(folder / f"{pair}.npz") as stored:
        first = np.flatnonzero(stored["matches0"] >= 0)
        published = np.hstack((stored["kpts0"][first], stored["kpts1"][stored["matches0"][first]]))
    found = np.hstack((matches.points0, matches.points1))
    distance = np.abs(published[:, None] - found[None]).max(axis=2).min(axis=1)
    assert abs(len(found) - len(published)) <= 0.02 * len(published)
    assert np.mean(distance < 0.1) > 0.97
