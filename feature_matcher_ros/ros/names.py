"""Names of the ROS graph: expanding, remapping."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from feature_matcher_ros.errors import ConfigError

_MAX_SIMILAR = 5
_NAME = re.compile(r"(~|/|~?/?[A-Za-z_][A-Za-z0-9_]*)(/[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class RemappingRule:
    """``from:=to``; with a ``node`` it concerns the node of that name alone."""

    source: str
    target: str
    node: str | None = None


@dataclass(frozen=True, slots=True)
class NodeName:
    """A node and the rules by which it names topics."""

    name: str = "feature_matcher"
    namespace: str = "/"
    rules: tuple[RemappingRule, ...] = ()

    @property
    def full_name(self) -> str:
        return f"{self.namespace.rstrip('/')}/{self.name}"

    def expand(self, topic: str) -> str:
        """The full name of a topic, as yet not remapped.

        Raises:
            ConfigError: this is no name of a topic.
        """
        if not _NAME.fullmatch(topic) or topic in ("~", "/"):
            raise ConfigError(
                f"'{topic}' is no name of a topic: write letters, digits, '_' and '/', maybe behind '~/'."
            )
        if topic.startswith("~"):
            return f"{self.full_name}/{topic[1:].lstrip('/')}"
        return topic if topic.startswith("/") else f"{self.namespace.rstrip('/')}/{topic}"

    def resolve(self, topic: str) -> str:
        """The full name of a topic, remapped by the first rule that fits."""
        name = self.expand(topic)
        for rule in self.rules:
            if rule.node in (None, self.name, self.full_name) and self.expand(_without_scheme(rule.source)) == name:
                return self.expand(_without_scheme(rule.target))
        return name


def camera_info_topic(image_topic: str) -> str:
    """The CameraInfo topic that belongs to an image topic: its sibling, as in ``image_transport``."""
    return f"{image_topic.rpartition('/')[0]}/camera_info"


def similar_topics(topic: str, candidates: Sequence[str]) -> list[str]:
    """The candidates that share words with a topic, those that share most first; all of them if none does."""
    words = set(_words(topic))
    shared = {name: len(words & set(_words(name))) for name in candidates}
    some = [name for name in candidates if shared[name]] or list(candidates)
    return sorted(some, key=lambda name: (-shared[name], name))[:_MAX_SIMILAR]


def _words(topic: str) -> list[str]:
    return [word for word in re.split(r"[/_]|(?<=[a-z])(?=\d)", topic.lower()) if word not in ("", "raw")]


def _without_scheme(name: str) -> str:
    return name.removeprefix("rostopic://")
