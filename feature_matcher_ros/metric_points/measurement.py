"""The places of pixels in metres, from what a frame brings beside its image."""

from __future__ import annotations

from feature_matcher_ros.datatypes import Frame, MetricPoints, Pixels, ScaleSource
from feature_matcher_ros.metric_points.depth_points import measure_by_depth
from feature_matcher_ros.metric_points.stereo_points import measure_by_stereo


def measure_points(frame: Frame, pixels: Pixels) -> MetricPoints | None:
    """Where the pixels (M, 2) of a frame are, in the axes of its camera; None if nothing in it gives a scale.

    Stereo goes before depth, as in ``Frame.scale_source``.
    """
    if frame.stereo is not None:
        points, sigma_m = measure_by_stereo(frame.image, frame.camera, frame.stereo, pixels)
        return MetricPoints(points, sigma_m, ScaleSource.STEREO)
    if frame.depth is not None:
        points, sigma_m = measure_by_depth(frame.camera, frame.depth, pixels)
        return MetricPoints(points, sigma_m, ScaleSource.DEPTH)
    return None
