"""SuperGlue: matching the points of two images by attention and transport (Sarlin et al., CVPR 2020, arXiv 1911.11763).

The network of which LightGlue was made: always all layers and all points. ``embed`` adds to the descriptors of an image
what its points' places and scores say, each layer refines the states of both images, and ``assignment`` turns them into
a matrix of log probabilities by optimal transport.

States are (N, width), of one image each. Modules bear the names of the published checkpoints; what these hold as
convolutions of size 1 are linear layers here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.errors import WeightsError
from feature_matcher_ros.models.checkpoint import count_parts, loaded, named_tensors
from feature_matcher_ros.models.optimal_transport import log_transport
from feature_matcher_ros.models.superglue_config import SuperGlueConfig

_HEADS = 4  # of the published networks; tensors do not tell
_PLACE = 3  # x, y and score


def _perceptron(widths: Iterable[int]) -> nn.Sequential:
    """Linear layers, after all but the last of which values are normalised and cut off at 0."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers[:-2])


class KeypointEncoder(nn.Module):
    """What the place and score of a point add to its descriptor (paper, eq. 2)."""

    def __init__(self, config: SuperGlueConfig) -> None:
        super().__init__()
        self.encoder = _perceptron((_PLACE, *config.encoder_widths, config.width))

    def forward(self, positions: Tensor, keypoint_scores: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(torch.cat((positions, keypoint_scores[:, None]), dim=1))
        return encoded


class Attention(nn.Module):
    """What the points of one image see of those of another, or of the same (paper, eq. 4 and 5)."""

    def __init__(self, config: SuperGlueConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.merge = nn.Linear(config.width, config.width)
        self.proj = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(3))  # queries, keys, values

    def forward(self, state: Tensor, source: Tensor) -> Tensor:
        query, key, value = (
            self._by_head(project(vectors)) for project, vectors in zip(self.proj, (state, source, source), strict=True)
        )
        context = functional.scaled_dot_product_attention(query, key, value)
        message: Tensor = self.merge(context.permute(1, 2, 0).flatten(1))
        return message

    def _by_head(self, vectors: Tensor) -> Tensor:
        """Neighbouring channels belong to different heads: (N, head_size * heads) -> (heads, N, head_size)."""
        return vectors.unflatten(1, (-1, self.heads)).permute(2, 0, 1)


class Propagation(nn.Module):
    """How the states of one image change by what they see of a source (paper, eq. 3)."""

    def __init__(self, config: SuperGlueConfig) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.mlp = _perceptron((2 * config.width, 2 * config.width, config.width))

    def forward(self, state: Tensor, source: Tensor) -> Tensor:
        changed: Tensor = state + self.mlp(torch.cat((state, self.attn(state, source)), dim=1))
        return changed


class _GraphNetwork(nn.Module):
    """Attention within the images, then across, in turn."""

    def __init__(self, config: SuperGlueConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Propagation(config) for _ in range(2 * config.layers))


class SuperGlueModel(nn.Module):
    """The network, in the steps in which matchers run it."""

    def __init__(self, config: SuperGlueConfig) -> None:
        super().__init__()
        self.config = config
        self.kenc = KeypointEncoder(config)
        self.gnn = _GraphNetwork(config)
        self.final_proj = nn.Linear(config.width, config.width)
        self.bin_score = nn.Parameter(torch.ones(()))

    def embed(self, descriptors: Tensor, positions: Tensor, keypoint_scores: Tensor) -> Tensor:
        """States (N, width) of descriptors (N, width) and scores (N,).

        ``positions`` (N, 2) are pixels minus the image's centre, divided by 0.7 times its longer side.
        """
        return descriptors + self.kenc(positions, keypoint_scores)

    def layer(self, layer: int, state0: Tensor, state1: Tensor) -> tuple[Tensor, Tensor]:
        """The states after one more layer."""
        within, across = self.gnn.layers[2 * layer], self.gnn.layers[2 * layer + 1]
        state0, state1 = within(state0, state0), within(state1, state1)
        return across(state0, state1), across(state1, state0)

    def assignment(self, state0: Tensor, state1: Tensor) -> Tensor:
        """Log probabilities (N0 + 1, N1 + 1) of all pairs; the last row and column mean "no partner"."""
        vectors0, vectors1 = self.final_proj(state0), self.final_proj(state1)
        scores = (vectors0 @ vectors1.T) * self.config.width**-0.5  # paper, eq. 7, in the measure of published weights
        seen0, seen1 = scores.new_ones(1, len(state0)), scores.new_ones(1, len(state1))
        return log_transport(scores[None], self.bin_score, seen0, seen1, self.config.sinkhorn_iterations)[0]


def superglue_from_checkpoint(tensors: Mapping[str, Tensor]) -> SuperGlueModel:
    """Build a network with published weights, in float32, ready for inference.

    Raises:
        WeightsError: the tensors are not those of a SuperGlue network.
    """
    named = {name: _without_kernel(tensor) for name, tensor in named_tensors(tensors).items()}
    return loaded(SuperGlueModel(_config_of(named)), named, "superglue")


def is_superglue(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensors have the names of such a network."""
    return {"kenc.encoder.0.weight", "gnn.layers.0.attn.merge.weight", "bin_score"} <= named_tensors(tensors).keys()


def _without_kernel(tensor: Tensor) -> Tensor:
    """The matrix of a convolution of size 1, (out, in, 1) -> (out, in)."""
    return tensor.squeeze(-1) if tensor.ndim == 3 else tensor


def _config_of(tensors: Mapping[str, Tensor]) -> SuperGlueConfig:
    """Read the size of a network off its tensors; the number of heads is that of all published ones."""
    if not is_superglue(tensors):
        raise WeightsError(
            "the checkpoint has no tensors 'kenc.encoder.0.weight', 'gnn.layers.0.attn.merge.weight' and 'bin_score' "
            "and is therefore not one of SuperGlue: give the file of a published SuperGlue."
        )
    steps = sorted(
        int(name.split(".")[2])
        for name, tensor in tensors.items()
        if name.startswith("kenc.encoder.") and name.endswith(".weight") and tensor.ndim == 2  # no normalisation
    )
    return SuperGlueConfig(
        width=len(tensors["gnn.layers.0.attn.merge.weight"]),
        encoder_widths=tuple(len(tensors[f"kenc.encoder.{step}.weight"]) for step in steps[:-1]),
        heads=_HEADS,
        layers=count_parts(tensors, "gnn.layers.") // 2,
    )
