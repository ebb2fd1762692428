"""``evaluation.scene_renderer`` in torch: all rectangles at once, for training on a GPU.

The equations are the same; textures are read without the rounding of positions that ``cv2.remap`` does, so that
images differ by a few grey levels where a texture is sharp. On a CPU the other one is faster: it looks at each
rectangle only where it can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.evaluation.scene_renderer import (
    PYRAMID_LEVELS,
    SUBPIXELS,
    RayGrid,
    RenderedView,
    Scene,
    outlines,
)

_RAYS_AT_A_TIME = 1 << 14  # times a hundred rectangles, times 30 bytes: 50 MB


@dataclass(frozen=True, slots=True, eq=False)
class _Hits:
    """What each of R rays meets."""

    inverse_depth: Tensor  # (R,), 0 where nothing is
    quad: Tensor  # (R,), -1 where nothing is
    x: Tensor  # (R,), atlas position divided by depth
    y: Tensor  # (R,)


class TorchRenderer:
    """Renders grey views of a scene on a device; called like ``render_view`` with its scene and grid bound."""

    def __init__(self, scene: Scene, grid: RayGrid, device: str) -> None:
        self._scene, self._grid, self._device = scene, grid, device
        self._rays = self._tensor(np.stack([grid.x.ravel(), grid.y.ravel()]))
        self._texels = self._tensor(np.stack([scene.texels(quad) for quad in range(len(scene.quads))]))
        self._pyramid = torch.from_numpy(scene.pyramid).to(device)
        self._level_start = self._tensor(scene.level_start)

    def __call__(self, world_from_cam: Float) -> RenderedView:
        """Render what the camera sees from a place."""
        matrices = self._scene.atlas_from_ray(world_from_cam)
        facing = np.flatnonzero(~np.isnan(matrices[:, 2, 2]))
        places, texels = self._tensor(matrices[facing]), self._texels[torch.from_numpy(facing).to(self._device)]
        base = self._tensor(0.5 * np.log2(np.linalg.det(matrices[facing]) * self._grid.pixel_area))
        hits = _intersect(self._rays, places, texels)
        image = self._shade(hits, base).round().reshape(self._grid.x.shape)
        numbers = np.append(facing, -1).astype(np.int16)
        quads = numbers[hits.quad.cpu().numpy()].reshape(self._grid.x.shape)
        rows, columns = np.nonzero(outlines(quads))
        rays = self._tensor(np.stack(self._grid.around((rows, columns))).reshape(2, -1))
        several = self._shade(_intersect(rays, places, texels), base).round().reshape(len(SUBPIXELS), -1)
        pixels = image.to(torch.uint8).cpu().numpy()
        pixels[rows, columns] = several.mean(dim=0).round().to(torch.uint8).cpu().numpy()
        inverse_depth = hits.inverse_depth.cpu().numpy().reshape(quads.shape)
        with np.errstate(divide="ignore"):
            depth = np.where(quads >= 0, 1.0 / inverse_depth, np.nan).astype(np.float32)
        return RenderedView(pixels, depth, quads)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self._device)

    def _shade(self, hits: _Hits, base: Tensor) -> Tensor:
        """Grey levels (R,); the level of the pyramid is that at which a texel is as large as the pixel."""
        is_hit = hits.quad >= 0
        inverse_depth = torch.where(is_hit, hits.inverse_depth, 1.0)
        base = torch.cat([base, base.new_zeros(1)])  # -1 takes the appended one
        level = (base[hits.quad] - 1.5 * inverse_depth.log2()).clamp(0.0, PYRAMID_LEVELS - 1.001)
        finer = level.floor()
        x, y = hits.x / inverse_depth, hits.y / inverse_depth
        grey = torch.lerp(self._at_level(x, y, finer), self._at_level(x, y, finer + 1.0), level - finer)
        return torch.where(is_hit, grey, 0.0)

    def _at_level(self, x: Tensor, y: Tensor, level: Tensor) -> Tensor:
        scale = torch.exp2(-level)
        x, y = x * scale - 0.5, y * scale + self._level_start[level.long()] - 0.5
        left, top = x.floor(), y.floor()
        column, row = left.long().clamp(0, self._pyramid.shape[1] - 2), top.long().clamp(0, len(self._pyramid) - 2)
        upper, lower = (
            torch.lerp(self._texel(at, column), self._texel(at, column + 1), x - left) for at in (row, row + 1)
        )
        return torch.lerp(upper, lower, y - top)

    def _texel(self, row: Tensor, column: Tensor) -> Tensor:
        return self._pyramid[row, column].float()


def _intersect(rays: Tensor, places: Tensor, texels: Tensor) -> _Hits:
    """What the rays (2, R) meet of Q rectangles, given by their matrices (Q, 3, 3) and parts (Q, 4) of the atlas."""
    if len(places) == 0:
        nothing = rays.new_zeros(rays.shape[1])
        return _Hits(nothing, torch.full_like(nothing, -1, dtype=torch.long), nothing, nothing)
    parts = [_nearest(part, places, texels) for part in rays.split(_RAYS_AT_A_TIME, dim=1)]
    return _Hits(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _nearest(rays: Tensor, places: Tensor, texels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inverse depth, number of the rectangle, x and y of the nearest hit of every ray."""
    x, y, inverse_depth = (
        row[:, :1] * rays[0] + (row[:, 1:2] * rays[1] + row[:, 2:]) for row in places.unbind(1)
    )  # (Q, R) each
    left, top, right, bottom = (edge[:, None] * inverse_depth for edge in texels.unbind(1))
    is_seen = (inverse_depth > 0) & (x >= left) & (x < right) & (y >= top) & (y < bottom)
    nearest, quad = torch.where(is_seen, inverse_depth, 0.0).max(dim=0)
    x, y = (values.gather(0, quad[None])[0] for values in (x, y))
    return nearest, torch.where(nearest > 0, quad, -1), x, y
