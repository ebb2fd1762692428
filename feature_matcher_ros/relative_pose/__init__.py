"""The motion between two views, robustly, with its kind, its length where known, and its covariance."""

from feature_matcher_ros.relative_pose.estimation import estimate_from_normalized, estimate_relative_pose

__all__ = ["estimate_from_normalized", "estimate_relative_pose"]
