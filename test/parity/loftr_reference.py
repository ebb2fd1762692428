"""Weights and images made of nothing but a seed, and what the published LoFTR code gives for them.

``python test/parity/loftr_reference.py`` writes ``loftr_kornia.npz`` anew; it needs kornia 0.9, whose LoFTR is the
authors' (both Apache-2.0).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from feature_matcher_ros.models.loftr import Loftr

REFERENCE = Path(__file__).with_name("loftr_kornia.npz")
SHIFT = (8, 24)  # rows and columns of image 0 that image 1 lacks
CHANNELS = slice(None, None, 16)  # of the coarse features, to keep the file small


def seeded_tensors() -> dict[str, torch.Tensor]:
    """Tensors of all names and shapes of the published network, such that features of equal places are alike."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, tensor in sorted(Loftr().state_dict().items()):
        shape = tuple(tensor.shape)
        if not tensor.is_floating_point():
            values = np.zeros(shape, np.int64)
        elif tensor.ndim > 1:
            values = rng.standard_normal(shape) * (2.0 / np.prod(shape[1:])) ** 0.5
        elif name.endswith(("weight", "running_var")):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = 0.1 * rng.standard_normal(shape)
        if name == "backbone.layer3_outconv.weight" or (name.startswith("loftr_coarse") and ".norm2." in name):
            values = 0.1 * values  # comparable with the position encoding, and what attention adds with both
        tensors[name] = torch.from_numpy(values.astype(values.dtype if values.dtype == np.int64 else np.float32))
    return tensors


def images() -> tuple[np.ndarray, np.ndarray]:
    """Two (H, W) images of one texture."""
    squares = np.random.default_rng(1).integers(0, 256, (42, 54)).astype(np.uint8)
    texture = np.kron(squares, np.ones((4, 4), np.uint8))
    return texture[: -SHIFT[0], : -SHIFT[1]], texture[SHIFT[0] :, SHIFT[1] :]


def published_outputs() -> dict[str, np.ndarray]:
    """What kornia's network gives, with every match whatever its score."""
    from kornia.feature import LoFTR
    from kornia.feature.loftr.loftr import default_cfg

    config = {**default_cfg, "match_coarse": {**default_cfg["match_coarse"], "thr": 0.0}}
    network = LoFTR(pretrained=None, config=config).eval()
    network.load_state_dict(seeded_tensors())
    given = [torch.from_numpy(image)[None, None].float() / 255.0 for image in images()]
    with torch.inference_mode():
        encoded = [network.extract_features(image) for image in given]
        states = network.loftr_coarse(*(part["coarse"].flatten(2).transpose(1, 2) for part in encoded))
        found = network({"image0": given[0], "image1": given[1]})
    outputs = {f"coarse{side}": part["coarse"][0, CHANNELS] for side, part in enumerate(encoded)}
    outputs |= {f"fine{side}": part["fine"][0, CHANNELS, ::6, ::6] for side, part in enumerate(encoded)}
    outputs |= {f"state{side}": state[0, :, CHANNELS] for side, state in enumerate(states)}
    outputs |= {name: found[name] for name in ("keypoints0", "keypoints1", "confidence")}
    return {name: tensor.numpy() for name, tensor in outputs.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    np.savez_compressed(REFERENCE, **published_outputs())
