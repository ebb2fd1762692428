"""The size of a SuperGlue network, known also where there is no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SuperGlueConfig:
    """The size of a network, by default the published one; ``superglue_from_checkpoint`` reads it off the tensors."""

    width: int = 256  # length of a descriptor, and of a point's state
    encoder_widths: tuple[int, ...] = (32, 64, 128, 256)  # between place and score of a point, and its state
    heads: int = 4
    layers: int = 9  # each an attention within either image and one across
    sinkhorn_iterations: int = 100
