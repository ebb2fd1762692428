"""What differs between the networks that are trained: their views, batches, losses and counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from feature_matcher_ros.training.config import TrainingConfig
from feature_matcher_ros.training.match_counts import MatchCounts
from feature_matcher_ros.training.view_store import ViewFormat

MATCHING, CONFIDENCE = "matching", "confidence"


class Batch(Protocol):
    """Pairs as one training step sees them."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""


_View = TypeVar("_View")
_Batch = TypeVar("_Batch", bound=Batch)
_Model = TypeVar("_Model", bound=nn.Module)


class Task(ABC, Generic[_View, _Batch, _Model]):
    """One kind of network, and how it is trained in the two stages."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the file that the weights are written to."""

    @property
    @abstractmethod
    def view_format(self) -> ViewFormat[_View]:
        """How the views are made that it is trained on."""

    @abstractmethod
    def untrained(self) -> _Model:
        """The network that training begins with."""

    @abstractmethod
    def from_checkpoint(self, tensors: Mapping[str, Tensor]) -> _Model:
        """A network with weights that training may begin with instead.

        Raises:
            WeightsError: the tensors are not those of such a network.
        """

    @abstractmethod
    def batches(self, scenes: Sequence[Sequence[_View]], count: int, seed: tuple[int, ...]) -> Dataset[_Batch]:
        """Random pairs, the same for the same seed."""

    @abstractmethod
    def objective(self, stage: str, model: _Model) -> nn.Module:
        """Takes a batch and returns losses (n,)."""

    @abstractmethod
    def minimised(self, stage: str, losses: Tensor) -> Tensor:
        """The one number () to be made small."""

    @abstractmethod
    def count(self, model: _Model, batch: _Batch) -> list[MatchCounts]:
        """The matches that the network finds after each of its layers, against the truth."""
