"""The size of a LightGlue network, known also where there is no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LightGlueConfig:
    """The size of a network; ``config_of_checkpoint`` reads it off the tensors."""

    descriptor_size: int = 128
    width: int = 256  # length of a point's state
    heads: int = 4
    layers: int = 9
    scale_orientation: bool = False  # positions are (x, y, scale, orientation) instead of (x, y)
    project_input: bool = False  # whether descriptors as long as the state are multiplied by a matrix too
    adaptive: bool = True  # may be left after any layer; False: only the last layer has an assignment head

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def position_size(self) -> int:
        return 4 if self.scale_orientation else 2

    @property
    def has_input_projection(self) -> bool:
        return self.project_input or self.descriptor_size != self.width

    def has_head(self, layer: int) -> bool:
        """Whether matches can be read out after this layer."""
        return self.adaptive or layer == self.layers - 1
