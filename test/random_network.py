"""A LightGlue network of random weights: good for the time it takes and for what files hold, for nothing else."""

from pathlib import Path

import torch

from feature_matcher_ros.export.to_onnx import Origin, export_lightglue
from feature_matcher_ros.models.lightglue import LightGlueModel
from feature_matcher_ros.models.lightglue_config import LightGlueConfig


def write_random_network(folder: Path, config: LightGlueConfig) -> Path:
    """Write its graphs into a folder and return the path of its weights."""
    torch.manual_seed(0)
    model = LightGlueModel(config).eval().requires_grad_(False)
    export_lightglue(model, Origin("random", "none, they mean nothing", "a test"), folder)
    weights = folder / "weights.pth"
    torch.save(model.state_dict(), weights)
    return weights
