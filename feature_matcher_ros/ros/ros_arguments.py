"""The arguments that every ROS 2 node understands, ``--ros-args -r a:=b -p name:=value --params-file FILE``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.ros.names import NodeName, RemappingRule

_REMAP = ("-r", "--remap")
_PARAMETER = ("-p", "--param")
_PARAMETER_FILE = ("--params-file",)
_LOG_LEVEL = ("--log-level",)
_IGNORED = ("-e", "--enclave", "--log-config-file", "--log-file-name")  # with a value that means nothing here
_SWITCHES = re.compile(r"--(enable|disable)-(rosout|stdout|external-lib)-logs")
_LEVELS = {"debug": "DEBUG", "info": "INFO", "warn": "WARNING", "error": "ERROR", "fatal": "CRITICAL"}


@dataclass(frozen=True, slots=True)
class RosArguments:
    """What the arguments say."""

    node: NodeName = field(default_factory=NodeName)
    values: tuple[tuple[str, object], ...] = ()  # parameters by path, later ones count
    files: tuple[Path, ...] = ()
    log_level: str = "INFO"  # of Python's logging


def parse_ros_arguments(arguments: Sequence[str], name: str = "feature_matcher") -> RosArguments:
    """Read the arguments between ``--ros-args`` and ``--``; ``name`` is that of the node without a rule.

    Raises:
        ConfigError: an argument is unknown, has no value, or has a value of the wrong form.
    """
    rules: list[RemappingRule] = []
    values: list[tuple[str | None, str, object]] = []
    files: list[Path] = []
    log_level = "INFO"
    for option, value in _options(arguments):
        if option in _REMAP:
            rules.append(_rule(value))
        elif option in _PARAMETER:
            values.append(_parameter(value))
        elif option in _PARAMETER_FILE:
            files.append(Path(value))
        elif option in _LOG_LEVEL:
            log_level = _level(value)
    node = _named(name, rules)
    ours = tuple((path, value) for owner, path, value in values if owner in (None, node.name, node.full_name))
    return RosArguments(node, ours, tuple(files), log_level)


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    remaining, inside = iter(arguments), False
    for argument in remaining:
        if argument == "--ros-args":
            inside = True
        elif argument == "--" and inside:
            inside = False
        elif not inside:
            raise ConfigError(f"the argument '{argument}' is not known: ROS arguments stand behind --ros-args.")
        elif argument in (*_REMAP, *_PARAMETER, *_PARAMETER_FILE, *_LOG_LEVEL, *_IGNORED):
            value = next(remaining, None)
            if value is None:
                raise ConfigError(f"{argument} has no value: write for example {argument} NAME:=VALUE.")
            yield argument, value
        elif not _SWITCHES.fullmatch(argument):
            raise ConfigError(f"the ROS argument '{argument}' is not known: use -r, -p, --params-file or --log-level.")


def _rule(text: str) -> RemappingRule:
    source, assigned, target = text.partition(":=")
    if not assigned or not source or not target:
        raise ConfigError(f"the remapping '{text}' has not the form FROM:=TO.")
    node, colon, rest = source.partition(":")
    return RemappingRule(rest, target, node) if colon and "//" not in source else RemappingRule(source, target)


def _parameter(text: str) -> tuple[str | None, str, object]:
    name, assigned, value = text.partition(":=")
    if not assigned or not name:
        raise ConfigError(f"the parameter '{text}' has not the form NAME:=VALUE.")
    node, colon, rest = name.partition(":")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of the parameter '{text}' is not YAML: correct it.") from error
    return (node, rest, parsed) if colon else (None, name, parsed)


def _level(text: str) -> str:
    level = _LEVELS.get(text.rpartition(":=")[2].lower())
    if level is None:
        raise ConfigError(f"the log level '{text}' is not one of {', '.join(_LEVELS)}.")
    return level


def _named(name: str, rules: Sequence[RemappingRule]) -> NodeName:
    """Apply the rules for the node's own name, of which the first counts."""
    own, namespace = name, "/"
    for rule in reversed(rules):
        if rule.node in (None, own):
            if rule.source in ("__node", "__name"):
                name = rule.target
            elif rule.source == "__ns":
                namespace = rule.target
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or not re.fullmatch(
        r"/|(/[A-Za-z_][A-Za-z0-9_]*)+", namespace
    ):
        raise ConfigError(
            f"'{name}' in '{namespace}' cannot be a node: write letters, digits and '_', the namespace from '/' on."
        )
    return NodeName(name, namespace, tuple(rule for rule in rules if not rule.source.startswith("__")))
