"""Which parameters may change while frames are processed, and what becomes of such a change."""

from __future__ import annotations

from feature_matcher_ros.config import FrontEndConfig, iterate_parameters

_SECTIONS = ("pose.", "keyframes.")
_SINGLE = frozenset(
    f"matcher.{name}"
    for name in (
        *("max_ratio", "depth_confidence", "width_confidence", "confidence_thresholds"),
        *("matchability_thresholds", "min_score", "match_budget_ms"),
    )
)


_AT_RESET = frozenset({"keyframes.max_recovery_keyframes"})


def is_run_time_safe(path: str) -> bool:
    """Tell whether the next frame can follow another value, with the networks and subscriptions there are."""
    return path in _SINGLE or (path.startswith(_SECTIONS) and path not in _AT_RESET)


def fixed_changes(before: FrontEndConfig, after: FrontEndConfig) -> list[str]:
    """The parameters that differ and cannot be followed without configuring anew."""
    pairs = zip(iterate_parameters(before), iterate_parameters(after), strict=True)
    return [one.path for one, other in pairs if one.default != other.default and not is_run_time_safe(one.path)]
