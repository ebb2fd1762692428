"""Everything that decides how a network turns out; a checkpoint holds it, and training goes on only with the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

from feature_matcher_ros.config import ExtractorConfig
from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.models.dense_config import EfficientLoftrConfig, LoftrConfig
from feature_matcher_ros.models.lightglue_config import LightGlueConfig
from feature_matcher_ros.parameters import Parameter, ParameterInfo, checked

# What numbers can be set to; those of the extractor have their ranges with them.
_RANGES = {
    **dict.fromkeys(("seed", "steps", "warmup_steps", "learning_rate", "weight_decay"), (0, math.inf)),
    **dict.fromkeys(("num_keypoints", "batch_size", "validation_pairs", "heads", "fine_heads"), (1, math.inf)),
    **dict.fromkeys(("num_scenes", "views_per_scene", "layers", "rounds"), (2, math.inf)),
    **dict.fromkeys(("rendered_share", "shrunk_share"), (0, 1)),
    **dict.fromkeys(("ema_decay", "validation_share"), (0, 0.9999)),
    **dict.fromkeys(("width", "descriptor_size", "aggregation"), (1, math.inf)),
    "max_gradient_norm": (1e-6, math.inf),
}


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which views are made; each scene is seen ``views_per_scene`` times, and any two of them make a pair."""

    extractor: ExtractorConfig | None  # None: for networks that see the images themselves
    image_size: tuple[int, int] = (640, 480)  # (width, height)
    num_scenes: int = 600
    rendered_share: float = 0.4  # rooms with photographs on walls and boxes; the others are photographs lying in space
    shrunk_share: float = 0.0  # scenes whose points are sought in images of half the size
    views_per_scene: int = 6
    seed: int = 0

    def is_rendered(self, number: int) -> bool:
        """What kind a scene is of; the kinds take turns, so that scenes can be added later."""
        return int((number + 1) * self.rendered_share) > int(number * self.rendered_share)


@dataclass(frozen=True, slots=True)
class StageConfig:
    """One of the two stages of the recipe."""

    steps: int
    learning_rate: float
    warmup_steps: int = 100


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """The recipe."""

    data: DataConfig
    network: LightGlueConfig | EfficientLoftrConfig | LoftrConfig
    matching: StageConfig  # first: matches, from every layer
    confidence: StageConfig  # second: the confidence classifiers alone; no steps without any
    num_keypoints: int = 256  # of each image of a pair, the best ones; of a dense network, cells that are refined
    batch_size: int = 8  # pairs
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    ema_decay: float = 0.999
    validation_share: float = 0.04  # of the scenes
    validation_pairs: int = 128
    seed: int = 0

    @property
    def is_dense(self) -> bool:
        """Whether the network has no detector."""
        return not isinstance(self.network, LightGlueConfig)


_EFFICIENT_LOFTR = EfficientLoftrConfig(
    widths=(32, 64, 128), blocks=(1, 2, 4), heads=4, rounds=3, has_confidence=True
)  # a quarter of the authors' arithmetic for a convolution, and a quarter of their convolutions
_DENSE_DATA = DataConfig(None, (256, 192), num_scenes=2000, rendered_share=0.5)
_SIFT = LightGlueConfig(descriptor_size=128, width=128, heads=4, layers=6, scale_orientation=True, project_input=True)

PRESETS = {
    "sift": TrainingConfig(
        data=DataConfig(ExtractorConfig(name="sift", max_keypoints=512), shrunk_share=0.4),
        network=_SIFT,
        matching=StageConfig(steps=60_000, learning_rate=5e-4),
        confidence=StageConfig(steps=1_500, learning_rate=1e-2),
    ),
    "efficient_loftr": TrainingConfig(
        data=_DENSE_DATA,
        network=_EFFICIENT_LOFTR,
        matching=StageConfig(steps=40_000, learning_rate=1.5e-3, warmup_steps=50),
        confidence=StageConfig(steps=1_000, learning_rate=1e-2),
        num_keypoints=48,
        batch_size=4,
    ),
    "loftr": TrainingConfig(
        data=_DENSE_DATA,
        network=LoftrConfig(widths=(64, 96, 128), heads=4, fine_heads=4, rounds=3),
        matching=StageConfig(steps=40_000, learning_rate=1e-3),
        confidence=StageConfig(steps=0, learning_rate=0.0),
        num_keypoints=96,
        batch_size=4,
    ),
    "smoke": TrainingConfig(
        data=DataConfig(
            ExtractorConfig(name="sift", max_keypoints=128),
            (320, 240),
            num_scenes=48,
            rendered_share=0.2,
            views_per_scene=4,
        ),
        network=replace(_SIFT, width=64, heads=2, layers=3),
        matching=StageConfig(steps=220, learning_rate=1e-3, warmup_steps=20),
        confidence=StageConfig(steps=40, learning_rate=1e-2, warmup_steps=5),
        num_keypoints=96,
        ema_decay=0.98,
        validation_share=0.15,
        validation_pairs=48,
    ),
}


def preset(name: str) -> TrainingConfig:
    """A recipe by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"'{name}' is no training preset: choose from {', '.join(PRESETS)}.")
    return PRESETS[name]


def recipe_of(config: DataConfig | TrainingConfig) -> dict[str, Any]:
    """What decides the outcome, as plain values; not how fast points are found, and by what."""
    content = asdict(config)
    extractor = content.get("data", content)["extractor"]
    for name in ("runtime", "num_threads"):
        if extractor is not None:
            del extractor[name]
    return content


def with_settings(config: TrainingConfig, settings: Sequence[str]) -> TrainingConfig:
    """The recipe with some values replaced, each given as ``name=value`` or ``section.name=value``.

    Raises:
        ConfigError: a name is unknown, or a value is not of the type of the one it replaces, or out of range.
    """
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"'{setting}' sets nothing: write it as matching.steps=3000.")
        config = _replaced(config, name.split("."), value, name)
    _require_even_heads(config.network)
    _require_trainable(config)
    return config


def _replaced(config: Any, path: Sequence[str], value: str, name: str) -> Any:
    known = [field.name for field in fields(config)]
    if path[0] not in known:
        raise ConfigError(f"'{name}' is not known, as there is no '{path[0]}': choose from {', '.join(known)}.")
    current = getattr(config, path[0])
    if len(path) > 1 and is_dataclass(current):
        return replace(config, **{path[0]: _replaced(current, path[1:], value, name)})
    if len(path) > 1 or not isinstance(current, (int, float, str)):
        raise ConfigError(f"'{name}' is no single value: name one inside of it, such as matching.steps.")
    low, high = _RANGES.get(path[0], (-math.inf, math.inf))
    declared = {field.name: field.metadata.get("info") for field in fields(config)}[path[0]]
    entry = Parameter(name, type(current), current, declared or ParameterInfo("", minimum=low, maximum=high))
    return replace(config, **{path[0]: checked(entry, value)})


def _require_trainable(config: TrainingConfig) -> None:
    network, steps = config.network, config.confidence.steps
    if isinstance(network, LightGlueConfig):
        if not network.adaptive:
            raise ConfigError("network.adaptive = false is of no use here: every layer of LightGlue learns to match.")
    elif steps and not network.has_confidence:
        raise ConfigError(f"confidence.steps = {steps} trains what this network has not: set confidence.steps=0.")


def _require_even_heads(network: LightGlueConfig | EfficientLoftrConfig | LoftrConfig) -> None:
    """Every head of attention takes as many channels; in LightGlue pairs of them are turned by an angle."""
    channels = 2 if isinstance(network, LightGlueConfig) else 1
    if network.width % (channels * network.heads):
        raise ConfigError(
            f"network.heads = {network.heads} cannot share the {network.width} channels of a state: give a number that "
            f"divides {network.width // channels}."
        )
