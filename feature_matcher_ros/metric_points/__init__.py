"""Places of pixels in metres, by stereo or by depth."""

from feature_matcher_ros.metric_points.measurement import measure_points

__all__ = ["measure_points"]
