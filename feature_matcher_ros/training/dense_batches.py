"""Batches of pairs of images; what is drawn depends on the seed and the number of the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.training.dense_ground_truth import CellTargets, WindowTargets, cell_targets, window_targets
from feature_matcher_ros.training.dense_views import DenseView


@dataclass(frozen=True, slots=True, eq=False)
class DenseBatch:
    """B pairs of images with L cells each, and M matching cells of some of the pairs."""

    image0: Tensor  # (B, 1, H, W) in [0, 1]
    image1: Tensor  # (B, 1, H, W)
    partner: Tensor  # (B, L) int64, cell of image 1 of each of image 0, ``UNMATCHABLE`` or ``IGNORED``
    place: Tensor  # (B, L, 2), place in image 1 of each cell of image 0; NaN where unknown, infinite outside
    window_pair: Tensor  # (M,) int64, which pair
    cell0: Tensor  # (M,) int64
    cell1: Tensor  # (M,) int64
    pixel1: Tensor  # (M, 64) int64, which pixel of window 1 each of window 0 matches, or ``NO_PIXEL``
    fraction: Tensor  # (M, 64, 2) from there to the true place, in pixels

    def to(self, device: torch.device) -> DenseBatch:
        """The same batch on another device."""
        return DenseBatch(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))


class DenseBatches(Dataset[DenseBatch]):
    """Batch ``number`` of a seed, drawn from the views of some scenes.

    The first half of the pairs of a batch have windows, as refining costs as much as all the rest.
    """

    def __init__(
        self,
        scenes: Sequence[Sequence[DenseView]],
        *,
        num_windows: int,
        batch_size: int,
        num_batches: int,
        seed: tuple[int, ...],
    ) -> None:
        """Pairs of views that share nothing are drawn too: they teach what does not match.

        Raises:
            SourceError: no scene has two views.
        """
        self._scenes = [views for views in scenes if len(views) >= 2]
        if not self._scenes:
            raise SourceError(f"none of {len(scenes)} scenes has two views: give more images, or views_per_scene.")
        self._num_windows, self._batch_size, self._num_batches = num_windows, batch_size, num_batches
        self._seed = seed

    @staticmethod
    def num_refined(batch_size: int) -> int:
        """How many pairs of a batch have windows."""
        return (batch_size + 1) // 2

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, number: int) -> DenseBatch:
        rng = np.random.default_rng((*self._seed, number))
        pairs = [self._views(rng) for _ in range(self._batch_size)]
        cells = [cell_targets(*pair) for pair in pairs]
        refined = range(self.num_refined(self._batch_size))
        windows = [window_targets(*pairs[index], cells[index], self._num_windows, rng) for index in refined]
        return _batch(pairs, cells, windows)

    def _views(self, rng: np.random.Generator) -> tuple[DenseView, DenseView]:
        views = self._scenes[rng.integers(len(self._scenes))]
        first, second = rng.choice(len(views), 2, replace=False)
        return views[first], views[second]


def _batch(
    pairs: Sequence[tuple[DenseView, DenseView]], cells: Sequence[CellTargets], windows: Sequence[WindowTargets]
) -> DenseBatch:
    image0, image1 = (np.stack([pair[side].image for pair in pairs])[:, None] for side in (0, 1))
    counts = [len(targets.cell0) for targets in windows]
    return DenseBatch(
        image0=torch.from_numpy(image0).float() / 255.0,
        image1=torch.from_numpy(image1).float() / 255.0,
        partner=torch.from_numpy(np.stack([targets.partner for targets in cells])),
        place=torch.from_numpy(np.stack([targets.place for targets in cells])),
        window_pair=torch.from_numpy(np.repeat(np.arange(len(windows)), counts)),
        cell0=torch.from_numpy(np.concatenate([targets.cell0 for targets in windows])),
        cell1=torch.from_numpy(np.concatenate([targets.cell1 for targets in windows])),
        pixel1=torch.from_numpy(np.concatenate([targets.pixel1 for targets in windows])),
        fraction=torch.from_numpy(np.concatenate([targets.fraction for targets in windows])),
    )
