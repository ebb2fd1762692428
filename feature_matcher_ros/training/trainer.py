"""Trains a network in two stages (as in LightGlue's section 3.4): matches first, then when to stop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from feature_matcher_ros.errors import OutputError, TrainingError, WeightsError
from feature_matcher_ros.training.checkpoints import CHECKPOINT, Checkpoint, Origins, checkpoint_in, save_checkpoint
from feature_matcher_ros.training.config import StageConfig, TrainingConfig
from feature_matcher_ros.training.match_counts import MatchCounts
from feature_matcher_ros.training.progress import MetricsLog, ProgressCallback, TrainingProgress
from feature_matcher_ros.training.task import CONFIDENCE, MATCHING, Batch
from feature_matcher_ros.training.tasks import task_of

_VALIDATION_SEED = 1_000_003
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainerOptions:
    """What does not change the outcome."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    num_workers: int = 0  # processes that make batches
    report_steps: int = 20
    validation_steps: int = 500
    checkpoint_steps: int = 250


class Trainer:
    """One training run, in one folder; started again, it goes on where its last checkpoint was written.

    Under ``torchrun`` each process draws pairs of its own, and the first one writes.
    """

    def __init__(
        self,
        config: TrainingConfig,
        scenes: Sequence[Sequence[Any]],
        folder: Path,
        options: TrainerOptions | None = None,
        on_progress: ProgressCallback = lambda progress: None,
        initial: nn.Module | None = None,
        origins: Origins | None = None,
    ) -> None:
        """Take the last scenes for validation and the others for training; begin with the weights of ``initial``.

        ``origins`` tells what the scenes and weights are, so that only a run that began with the same goes on.

        Raises:
            OutputError: the folder cannot be made.
            ConfigError, TrainingError: the checkpoint in it is of another recipe or origin, or damaged.
            WeightsError: the weights to begin with are those of another network.
        """
        self._config, self._options, self._folder = config, options or TrainerOptions(), folder
        self._task, self._on_progress = task_of(config), on_progress
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {folder} ({error}): choose a writable one.") from error
        held_back = min(max(1, round(config.validation_share * len(scenes))), len(scenes) - 1)
        self._scenes, self.held_back = scenes[:-held_back], scenes[-held_back:]
        count = math.ceil(config.validation_pairs / config.batch_size)
        self._validation = [*self._batches(self.held_back, count, (config.seed, _VALIDATION_SEED))]
        self._model = self._task.untrained().to(self._options.device)
        if initial is not None:
            self._model.load_state_dict(fitting(initial, config).state_dict())
        self._average = self._new_average()
        self._log = MetricsLog(folder)
        self._origins = origins or {}
        self._resumed = checkpoint_in(folder, config, self._origins)
        if self._resumed is not None and is_first_process():
            _LOG.info("%s %s", folder, _progress_of(self._resumed, config))

    def run(self) -> nn.Module:
        """Run what is left of both stages and return the network.

        Raises:
            TrainingError: the loss is no longer finite.
            OutputError: a checkpoint cannot be written.
        """
        if self._resumed is None or self._resumed.stage == MATCHING:
            self._run_stage(MATCHING, self._config.matching)
            self._model.load_state_dict(self._average.module.state_dict())
            # A mean of its own: the long memory of the first stage would hold this short one back.
            self._average = self._new_average()
        if self._config.confidence.steps:
            self._run_stage(CONFIDENCE, self._config.confidence)
        return self._average.module.eval()

    def validate(self) -> tuple[MatchCounts, ...]:
        """Matches of every layer of the averaged network, on pairs of scenes that it was not trained on."""
        device = self._options.device
        with torch.inference_mode():
            counts = [self._task.count(self._average.module, batch.to(device)) for batch in self._validation]
        return tuple(sum(of_layer, MatchCounts(0, 0, 0)) for of_layer in zip(*counts, strict=True))

    def _run_stage(self, name: str, stage: StageConfig) -> None:
        parameters = _only_trainable(self._model, name)
        self._model.train(name == MATCHING)  # means that normalisations keep are final after the first stage
        objective = self._task.objective(name, self._model)
        optimizer = torch.optim.AdamW(parameters, stage.learning_rate, weight_decay=self._config.weight_decay)
        first = self._resume(name, optimizer)
        seed = (self._config.seed, 0 if name == MATCHING else 1, _rank())
        batches = self._batches(self._scenes, stage.steps, seed, first)
        if distributed.is_initialized():
            objective = DistributedDataParallel(objective)
        report = _Report(name, stage.steps, self._config.batch_size * _world_size())
        if first == 0 and is_first_process():
            self._tell(TrainingProgress(name, 0, stage.steps, (), 0.0, self.validate()))
        for step, batch in enumerate(batches, start=first):
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(stage, step)
            losses = self._losses(objective, batch.to(self._options.device))
            self._step(self._task.minimised(name, losses), parameters, optimizer)
            if not torch.isfinite(losses).all():
                raise TrainingError(
                    f"the loss became {losses.mean()} at step {step} of the stage {name}, with the batch of seed "
                    f"{(*seed, step)}: start again with a lower learning rate."
                )
            self._average.update_parameters(self._model)
            report.add(losses.detach())
            self._report(report, name, step + 1, stage.steps, optimizer)

    def _new_average(self) -> AveragedModel:
        return AveragedModel(self._model, avg_fn=_averaging(self._config.ema_decay), use_buffers=True).eval()

    def _losses(self, objective: nn.Module, batch: Batch) -> Tensor:
        device = self._options.device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            losses: Tensor = objective(batch)
        return losses

    def _step(self, loss: Tensor, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, self._config.max_gradient_norm)
        optimizer.step()

    def _report(self, report: _Report, name: str, done: int, steps: int, optimizer: torch.optim.Optimizer) -> None:
        is_last, options = done == steps, self._options
        if not is_first_process():
            return
        validates = is_last or done % options.validation_steps == 0
        if validates or done % options.report_steps == 0 or done == 1:
            self._tell(report.progress(done, self.validate() if validates else ()))
        if is_last or done % options.checkpoint_steps == 0:
            state = (self._model.state_dict(), self._average.state_dict(), optimizer.state_dict())
            path = self._folder / CHECKPOINT
            save_checkpoint(path, self._config, Checkpoint(name, done, *state), self._origins)

    def _tell(self, progress: TrainingProgress) -> None:
        self._log.write(progress)
        self._on_progress(progress)

    def _resume(self, name: str, optimizer: torch.optim.Optimizer) -> int:
        """The first step that is left to do."""
        checkpoint = self._resumed
        if checkpoint is None or checkpoint.stage != name:
            return 0
        self._model.load_state_dict(checkpoint.model)
        self._average.load_state_dict(checkpoint.average)
        optimizer.load_state_dict(dict(checkpoint.optimizer))
        return checkpoint.step

    def _batches(
        self, scenes: Sequence[Sequence[Any]], count: int, seed: tuple[int, ...], first: int = 0
    ) -> Iterable[Batch]:
        batches = self._task.batches(scenes, count, seed)
        return DataLoader(batches, batch_size=None, sampler=range(first, count), num_workers=self._options.num_workers)


class _Report:
    """Means since the last report."""

    def __init__(self, stage: str, steps: int, pairs_per_step: int) -> None:
        self._stage, self._steps, self._pairs_per_step = stage, steps, pairs_per_step
        self._restart()

    def _restart(self) -> None:
        self._sum, self._count, self._begun = torch.zeros(1), 0, time.perf_counter()

    def add(self, losses: Tensor) -> None:
        self._sum = self._sum.to(losses.device) + losses
        self._count += 1

    def progress(self, done: int, layers: tuple[MatchCounts, ...]) -> TrainingProgress:
        rate = self._count * self._pairs_per_step / max(1e-9, time.perf_counter() - self._begun)
        means = tuple((self._sum / self._count).tolist())
        self._restart()
        return TrainingProgress(self._stage, done, self._steps, means, rate, layers)


def write_weights(model: nn.Module, path: Path) -> None:
    """Write the weights in half precision.

    Raises:
        OutputError: they cannot be written.
    """
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in kept.items()}
    try:
        save_file(tensors, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise OutputError(f"cannot write the weights {path} ({error}): free some space.") from error


def _only_trainable(model: nn.Module, stage: str) -> list[nn.Parameter]:
    """Freeze what a stage does not train and return the rest."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("token_confidence") == (stage == CONFIDENCE))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _progress_of(checkpoint: Checkpoint, config: TrainingConfig) -> str:
    is_last = checkpoint.stage == CONFIDENCE or not config.confidence.steps
    if is_last and checkpoint.step == (config.confidence.steps or config.matching.steps):
        return "was trained to the end before: nothing is left to train"
    return f"goes on after step {checkpoint.step} of the stage {checkpoint.stage}"


def fitting(initial: nn.Module, config: TrainingConfig) -> nn.Module:
    """The weights to begin with, if they are of the network of a recipe.

    Raises:
        WeightsError: they are not.
    """
    if initial.config != config.network:
        raise WeightsError(
            f"the weights to begin with are those of {initial.config}, and {config.network} is to be trained: "
            "choose the preset that they were trained with."
        )
    return initial


def _averaging(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An exponential moving average that reaches its full length only after as many steps."""

    def average(mean: Tensor, latest: Tensor, count: Tensor | int) -> Tensor:
        if not latest.is_floating_point():
            return latest  # how often something happened
        weight = 1.0 - min(decay, (1.0 + float(count)) / (10.0 + float(count)))
        return mean.lerp(latest, weight)

    return average


def _learning_rate(stage: StageConfig, step: int) -> float:
    """A linear warm-up, then half a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup_steps))
    return stage.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * step / stage.steps)))


def is_first_process() -> bool:
    """Whether this process is the one that writes; without ``torchrun`` there is no other."""
    return _rank() == 0


def _rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def _world_size() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1
