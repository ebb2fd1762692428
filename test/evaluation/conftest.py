"""What several tests of benchmarks need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_pairs_scene import write_pairs

from feature_matcher_ros.geometry import pose_from, rotation_from_vector
from feature_matcher_ros.models.lightglue_config import LightGlueConfig


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Graphs, and the weights that they were exported from."""
    pytest.importorskip("torch", reason="the comparison needs torch: pip install feature_matcher_ros[torch]")
    pytest.importorskip("onnx", reason="the comparison needs onnx: pip install feature_matcher_ros[torch]")
    from random_network import write_random_network

    folder = tmp_path_factory.mktemp("network")
    return folder, write_random_network(folder, LightGlueConfig(128, 16, 2, 3))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSON file of two pairs of rendered images: a moved camera, and a camera that stands."""
    motion = pose_from(rotation_from_vector([0.0, 0.02, 0.01]), [0.4, 0.05, 0.0])
    return write_pairs(tmp_path_factory.mktemp("pairs"), [motion, np.eye(4)], [motion, np.eye(4)])
