"""Detector-free networks of few channels that nobody trained, in which equal features are the most similar."""

from pathlib import Path

import torch

from feature_matcher_ros.export.dense_to_onnx import export_dense
from feature_matcher_ros.export.to_onnx import Origin
from feature_matcher_ros.models.dense_config import EfficientLoftrConfig, LoftrConfig
from feature_matcher_ros.models.dense_network import DenseNetwork
from feature_matcher_ros.models.efficient_loftr import EfficientLoftr
from feature_matcher_ros.models.loftr import Loftr

TINY = EfficientLoftrConfig(widths=(12, 16, 32), blocks=(1, 1, 2), heads=1, rounds=2, has_confidence=True)


def normalised(network: DenseNetwork) -> DenseNetwork:
    """Untrained, but its features are normalised within either image, so that equal ones are the most similar."""
    for number, layer in enumerate(network.loftr_coarse.layers):
        layer.norm2.weight.fill_(20.0 if number == 0 else 0.0)
    return network


def untrained() -> EfficientLoftr:
    torch.manual_seed(0)
    return normalised(EfficientLoftr(TINY).eval().requires_grad_(False))


def untrained_loftr(has_dustbin: bool = False) -> Loftr:
    torch.manual_seed(0)
    config = LoftrConfig(widths=(16, 16, 32), heads=1, fine_heads=1, rounds=2, has_dustbin=has_dustbin)
    network = Loftr(config).eval().requires_grad_(False)
    network.backbone.layer3_outconv.weight.mul_(10.0)  # against the position encoding
    return normalised(network)


NETWORKS = {
    "efficient_loftr": lambda: untrained().merge(),
    "loftr": untrained_loftr,
    "loftr by transport": lambda: untrained_loftr(has_dustbin=True),
}


def exported(name: str, place: Path) -> Path:
    """The graphs of a network, written below a folder when they are first asked for."""
    folder = place / "tiny_dense_networks" / name.replace(" ", "_")
    if not (folder / "manifest.json").is_file():
        export_dense(NETWORKS[name](), Origin("tiny", "Apache-2.0", "this test"), folder)
    return folder
