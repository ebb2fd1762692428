"""LightGlue: matching the points of two images by attention (Lindenberger et al., ICCV 2023, arXiv 2306.13643).

The network is a chain that can be left after any layer: ``embed`` lifts the descriptors of both images and
encodes their positions, each of the layers refines the states, ``certainty`` says per point how final and how
matchable it is, and ``assignment`` turns the states of any layer into a matrix of log probabilities. What to
do with the certainties is not decided here but by ``matchers.adaptive``.

All tensors may have any number of leading (batch) dimensions. Modules bear the names of the published
checkpoints, so that those load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.errors import WeightsError
from feature_matcher_ros.models.checkpoint import loaded
from feature_matcher_ros.models.lightglue_config import LightGlueConfig


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """The rotary encoding of positions (paper, eq. 5): one angle for each pair of a head's channels."""

    cosines: Tensor  # (..., N, head_size / 2)
    sines: Tensor  # (..., N, head_size / 2)

    def rotate(self, vectors: Tensor) -> Tensor:
        """Turn neighbouring channels (2k, 2k + 1) of ``vectors`` (..., heads, N, head_size) by the k-th angle."""
        cosines, sines = self.cosines.unsqueeze(-3), self.sines.unsqueeze(-3)  # (..., 1, N, head_size / 2)
        even, odd = vectors[..., 0::2], vectors[..., 1::2]
        turned = torch.stack((even * cosines - odd * sines, odd * cosines + even * sines), dim=-1)
        return turned.flatten(-2)  # (..., heads, N, head_size)


class PositionEncoding(nn.Module):
    """Learned frequencies: angles are linear in the position (Li et al., 2021)."""

    def __init__(self, position_size: int, head_size: int) -> None:
        super().__init__()
        self.Wr = nn.Linear(position_size, head_size // 2, bias=False)

    def forward(self, positions: Tensor) -> Rotation:
        angles = self.Wr(positions)  # (..., N, head_size / 2)
        return Rotation(torch.cos(angles), torch.sin(angles))


def _feed_forward(width: int) -> nn.Sequential:
    """What updates a state from itself and a message, concatenated."""
    return nn.Sequential(
        nn.Linear(2 * width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, width)
    )


def _split_heads(vectors: Tensor, heads: int) -> Tensor:
    return vectors.unflatten(-1, (heads, -1)).transpose(-2, -3)  # (..., N, width) -> (..., heads, N, head_size)


def _join_heads(vectors: Tensor) -> Tensor:
    return vectors.transpose(-2, -3).flatten(-2)  # (..., heads, N, head_size) -> (..., N, width)


class SelfAttention(nn.Module):
    """Points of one image look at each other; the attention depends on where they lie relative to each other."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.Wqkv = nn.Linear(config.width, 3 * config.width)  # rows ordered by head, channel, (q, k, v)
        self.out_proj = nn.Linear(config.width, config.width)
        self.ffn = _feed_forward(config.width)

    def forward(self, state: Tensor, rotation: Rotation) -> Tensor:
        packed = self.Wqkv(state).unflatten(-1, (self.heads, -1, 3)).transpose(-3, -4)  # (..., heads, N, head_size, 3)
        query, key, value = packed.unbind(-1)
        context = functional.scaled_dot_product_attention(
            rotation.rotate(query), rotation.rotate(key), value.contiguous()
        )
        message = self.out_proj(_join_heads(context))
        return state + self.ffn(torch.cat((state, message), dim=-1))


class CrossAttention(nn.Module):
    """Points of two images look at each other, both ways through one similarity (paper, eq. 6)."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.scale = config.head_size**-0.25  # on either side of the product
        self.to_qk = nn.Linear(config.width, config.width)
        self.to_v = nn.Linear(config.width, config.width)
        self.to_out = nn.Linear(config.width, config.width)
        self.ffn = _feed_forward(config.width)

    def forward(self, state0: Tensor, state1: Tensor) -> tuple[Tensor, Tensor]:
        key0, key1 = (_split_heads(self.to_qk(state), self.heads) * self.scale for state in (state0, state1))
        value0, value1 = (_split_heads(self.to_v(state), self.heads) for state in (state0, state1))
        similarity = key0 @ key1.transpose(-1, -2)  # (..., heads, N0, N1)
        context0 = torch.softmax(similarity, dim=-1) @ value1
        context1 = torch.softmax(similarity, dim=-2).transpose(-1, -2) @ value0
        return self._update(state0, context0), self._update(state1, context1)

    def _update(self, state: Tensor, context: Tensor) -> Tensor:
        return state + self.ffn(torch.cat((state, self.to_out(_join_heads(context))), dim=-1))


class Layer(nn.Module):
    """One self-attention for each image with the same weights, then one cross-attention."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.cross_attn = CrossAttention(config)

    def forward(
        self, state0: Tensor, state1: Tensor, rotation0: Rotation, rotation1: Rotation
    ) -> tuple[Tensor, Tensor]:
        return self.cross_attn(self.self_attn(state0, rotation0), self.self_attn(state1, rotation1))


class Assignment(nn.Module):
    """Similarity and matchability become the log of a soft partial assignment (paper, eq. 7 to 9)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = width**-0.25  # on either side of the product
        self.matchability = nn.Linear(width, 1)
        self.final_proj = nn.Linear(width, width)

    def forward(self, state0: Tensor, state1: Tensor) -> Tensor:
        """(..., N0 + 1, N1 + 1): the last row and column are the dustbins of unmatchable points."""
        similarity, logits0, logits1 = self.compare(state0, state1)
        logits0, logits1 = logits0.unsqueeze(-1), logits1.unsqueeze(-2)
        pairs = functional.log_softmax(similarity, dim=-1) + functional.log_softmax(similarity, dim=-2)
        pairs = pairs + functional.logsigmoid(logits0) + functional.logsigmoid(logits1)
        with_column = torch.cat((pairs, functional.logsigmoid(-logits0)), dim=-1)
        last_row = functional.pad(functional.logsigmoid(-logits1), (0, 1))  # the corner means nothing
        return torch.cat((with_column, last_row), dim=-2)

    def compare(self, state0: Tensor, state1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Similarity (..., N0, N1) of all pairs, and the logits (..., N0) and (..., N1) of having a partner at all."""
        vectors0, vectors1 = (self.final_proj(state) * self.scale for state in (state0, state1))
        logits0, logits1 = (self.matchability(state).squeeze(-1) for state in (state0, state1))
        return vectors0 @ vectors1.transpose(-1, -2), logits0, logits1


class Confidence(nn.Module):
    """How sure it is that further layers will not change what a point is matched to (paper, eq. 10)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Sequential(nn.Linear(width, 1), nn.Sigmoid())

    def forward(self, state: Tensor) -> Tensor:
        return self.token(state).squeeze(-1)  # (..., N)


class LightGlueModel(nn.Module):
    """The network. ``forward`` runs all of it; matchers run it in steps."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config
        lift = nn.Linear(config.descriptor_size, config.width) if config.has_input_projection else nn.Identity()
        self.input_proj = lift
        self.posenc = PositionEncoding(config.position_size, config.head_size)
        self.transformers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        heads = {str(layer): Assignment(config.width) for layer in range(config.layers) if config.has_head(layer)}
        self.log_assignment = nn.ModuleDict(heads)
        early_layers = config.layers - 1 if config.adaptive else 0
        self.token_confidence = nn.ModuleList(Confidence(config.width) for _ in range(early_layers))

    def forward(self, descriptors0: Tensor, descriptors1: Tensor, positions0: Tensor, positions1: Tensor) -> Tensor:
        """Log assignment (..., N0 + 1, N1 + 1) after all layers; see ``embed`` for the arguments."""
        state0, rotation0 = self.embed(descriptors0, positions0)
        state1, rotation1 = self.embed(descriptors1, positions1)
        for layer in range(self.config.layers):
            state0, state1 = self.layer(layer, state0, state1, rotation0, rotation1)
        return self.assignment(self.config.layers - 1, state0, state1)

    def embed(self, descriptors: Tensor, positions: Tensor) -> tuple[Tensor, Rotation]:
        """States (..., N, width) of descriptors (..., N, descriptor_size), and the encoding of their positions.

        ``positions`` (..., N, 2 or 4) are pixels minus the image's centre, divided by half its longer side;
        where the network takes them, followed by the scale in pixels and the orientation in radians.
        """
        return self.input_proj(descriptors), self.posenc(positions)

    def layer(
        self, layer: int, state0: Tensor, state1: Tensor, rotation0: Rotation, rotation1: Rotation
    ) -> tuple[Tensor, Tensor]:
        """The states after one more layer."""
        return self.transformers[layer](state0, state1, rotation0, rotation1)

    def confidence(self, layer: int, state: Tensor) -> Tensor:
        """(..., N) in [0, 1]; the last layer has none, as nothing can change after it."""
        return self.token_confidence[layer](state)

    def matchability(self, layer: int, state: Tensor) -> Tensor:
        """(..., N): the probability that a point has a partner at all."""
        return torch.sigmoid(self.log_assignment[str(layer)].matchability(state)).squeeze(-1)

    def assignment(self, layer: int, state0: Tensor, state1: Tensor) -> Tensor:
        """Log probabilities (..., N0 + 1, N1 + 1) of all pairs; the last row and column mean "no partner"."""
        return self.log_assignment[str(layer)](state0, state1)


def lightglue_from_checkpoint(tensors: Mapping[str, Tensor]) -> LightGlueModel:
    """Build the network a published or own checkpoint belongs to, in float32, ready for inference.

    Raises:
        WeightsError: the tensors are not those of a LightGlue network.
    """
    named = {_canonical_name(name): tensor.float() for name, tensor in tensors.items() if not _is_unused(name)}
    config = config_of_checkpoint(named)
    return loaded(LightGlueModel(config), named, f"LightGlue with {config}")


def config_of_checkpoint(tensors: Mapping[str, Tensor]) -> LightGlueConfig:
    """Read the size of a network off its tensors.

    Raises:
        WeightsError: a tensor that every LightGlue network has is missing.
    """
    for name in ("posenc.Wr.weight", "transformers.0.self_attn.out_proj.weight"):
        if name not in tensors:
            raise WeightsError(
                f"the checkpoint has no tensor '{name}' and is therefore not one of LightGlue: "
                "give the file of a published LightGlue."
            )
    width = tensors["transformers.0.self_attn.out_proj.weight"].shape[0]
    half_head, position_size = tensors["posenc.Wr.weight"].shape
    return LightGlueConfig(
        descriptor_size=tensors["input_proj.weight"].shape[1] if "input_proj.weight" in tensors else width,
        width=width,
        heads=width // (2 * half_head),
        layers=1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("transformers.")),
        scale_orientation=position_size == 4,
        project_input="input_proj.weight" in tensors and tensors["input_proj.weight"].shape[1] == width,
        adaptive="token_confidence.0.token.0.weight" in tensors,
    )


def _is_unused(name: str) -> bool:
    """Whether a tensor takes no part: a rule that ``matchers.adaptive`` has, a relict, or XFeat's own extractor."""
    is_relict = name.startswith("log_assignment.") and name.endswith(".r")
    return name == "confidence_thresholds" or is_relict or name.startswith("extractor.")


def _canonical_name(name: str) -> str:
    """The name of a tensor, where older files say ``self_attn.3`` and XFeat's put ``matcher`` before it."""
    name = name.removeprefix("matcher.")
    first, _, rest = name.partition(".")
    if first in ("self_attn", "cross_attn"):
        layer, _, rest = rest.partition(".")
        return f"transformers.{layer}.{first}.{rest}"
    return name
