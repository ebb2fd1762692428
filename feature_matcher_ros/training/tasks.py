"""Which task a recipe is for."""

from __future__ import annotations

from typing import Any

from feature_matcher_ros.models.dense_config import EfficientLoftrConfig, LoftrConfig
from feature_matcher_ros.training.config import TrainingConfig
from feature_matcher_ros.training.dense_tasks import EfficientLoftrTask, LoftrTask
from feature_matcher_ros.training.lightglue_task import LightGlueTask
from feature_matcher_ros.training.task import Task


def task_of(config: TrainingConfig) -> Task[Any, Any, Any]:
    """The task of the network that is to be trained."""
    network = config.network
    if isinstance(network, EfficientLoftrConfig):
        return EfficientLoftrTask(config, network)
    return LoftrTask(config, network) if isinstance(network, LoftrConfig) else LightGlueTask(config, network)
