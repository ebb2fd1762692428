"""Batches of pairs: what is drawn depends on the seed and the number of the step alone, so that training resumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.matchers.lightglue import network_input
from feature_matcher_ros.models.lightglue_config import LightGlueConfig
from feature_matcher_ros.training.views import View, best_points, project


@dataclass(frozen=True, slots=True, eq=False)
class PairBatch:
    """B pairs with N points in each image."""

    descriptors: tuple[Tensor, Tensor]  # (B, N, descriptor_size)
    positions: tuple[Tensor, Tensor]  # (B, N, 2 or 4), as the network takes them
    keypoints: tuple[Tensor, Tensor]  # (B, N, 2), pixels
    projected: tuple[Tensor, Tensor]  # (B, N, 2), where they should lie in the other image

    def to(self, device: torch.device) -> PairBatch:
        """The same batch on another device."""
        return PairBatch(*(tuple(tensor.to(device, non_blocking=True) for tensor in pair) for pair in self._fields()))

    def _fields(self) -> tuple[tuple[Tensor, Tensor], ...]:
        return self.descriptors, self.positions, self.keypoints, self.projected


class PairBatches(Dataset[PairBatch]):
    """Batch ``number`` of a seed, drawn from the views of some scenes."""

    def __init__(
        self,
        scenes: Sequence[Sequence[View]],
        network: LightGlueConfig,
        *,
        num_keypoints: int,
        batch_size: int,
        num_batches: int,
        seed: tuple[int, ...],
    ) -> None:
        """Views with fewer points than asked for are not used.

        Raises:
            SourceError: no scene has two views with enough points.
        """
        rich = [[view for view in views if len(view.features) >= num_keypoints] for views in scenes]
        self._scenes = [views for views in rich if len(views) >= 2]
        if not self._scenes:
            raise SourceError(
                f"none of {len(scenes)} scenes has two views with {num_keypoints} points: give more or richer images."
            )
        self._network = network
        self._num_keypoints, self._batch_size, self._num_batches = num_keypoints, batch_size, num_batches
        self._seed = seed

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, number: int) -> PairBatch:
        rng = np.random.default_rng((*self._seed, number))
        pairs = [self._pair(rng) for _ in range(self._batch_size)]
        return PairBatch(*(_stacked(column) for column in zip(*pairs, strict=True)))

    def _pair(self, rng: np.random.Generator) -> tuple[tuple[Tensor, Tensor], ...]:
        views = self._scenes[rng.integers(len(self._scenes))]
        view0, view1 = (best_points(views[i], self._num_keypoints) for i in rng.choice(len(views), 2, replace=False))
        inputs = [network_input(view.features, self._network) for view in (view0, view1)]
        return (
            _tensors(*(given.descriptors for given in inputs)),
            _tensors(*(given.positions for given in inputs)),
            _tensors(view0.features.keypoints, view1.features.keypoints),
            _tensors(
                project(view0.scene_points, view1.projection, view1.features.image_size),
                project(view1.scene_points, view0.projection, view0.features.image_size),
            ),
        )


def _tensors(array0: np.ndarray, array1: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.ascontiguousarray(array0)), torch.from_numpy(np.ascontiguousarray(array1))


def _stacked(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])
