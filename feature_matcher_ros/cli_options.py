"""Options that several commands have in common, and what they mean."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from feature_matcher_ros.config import FrontEndConfig, load_config, override
from feature_matcher_ros.errors import ConfigError, OutputError

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file of parameters.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="One parameter, e.g. extractor.max_keypoints=2048. Repeatable.")
]
MatcherOption = Annotated[str | None, typer.Option("--matcher", "-m", help="The same as --set matcher.name=NAME.")]


def configured(path: Path | None, settings: list[str] | None, matcher: str | None = None) -> FrontEndConfig:
    """The parameters of a file, overridden by those of the command line.

    Raises:
        ConfigError: the file or a value is wrong.
    """
    config = override(FrontEndConfig() if path is None else load_config(path), values_of(settings))
    return config if matcher is None else override(config, {"matcher.name": matcher})


def values_of(settings: list[str] | None) -> dict[str, str]:
    """The values of ``--set``, by path.

    Raises:
        ConfigError: one has no value.
    """
    pairs = [setting.partition("=") for setting in settings or []]
    for name, equals, _ in pairs:
        if not equals:
            raise ConfigError(f"--set {name} has no value: write --set {name}=VALUE.")
    return {name: value for name, _, value in pairs}


def refuse_idle(options: Mapping[str, bool]) -> None:
    """Refuse options that were given and would do nothing; each key is a sentence that says what the option is for.

    Raises:
        ConfigError: one of them is true.
    """
    for sentence, is_idle in options.items():
        if is_idle:
            raise ConfigError(f"{sentence}, or leave it out.")


def require_writable(*paths: Path | None) -> None:
    """Find out before minutes of work that the result could not be written.

    Raises:
        OutputError: one of the files cannot be written.
    """
    for path in filter(None, paths):
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            raise OutputError(f"{path} cannot be written: give --output and --plot a file in a folder of yours.")


def modality_named(name: str | None) -> Any:
    """The modality of that name; None where no name was given.

    Raises:
        ConfigError: there is none of that name.
    """
    from feature_matcher_ros.evaluation.sequences import Modality

    if name is None:
        return None
    try:
        return Modality(name.upper())
    except ValueError as error:
        choices = ", ".join(modality.value.lower() for modality in Modality)
        raise ConfigError(f"--modality {name} is not one of {choices}.") from error
