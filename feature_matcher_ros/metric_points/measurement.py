"""The places of pixels in metres, from what a frame brings beside its image."""

from __future__ import annotations

from feature_matcher_ros.datatypes import Float, Frame, MetricPoints, Pixels, ScaleSource
from feature_matcher_ros.geometry import normalize_points
from feature_matcher_ros.metric_points.depth_points import measure_by_depth
from feature_matcher_ros.metric_points.stereo_points import measure_by_stereo


def measure_points(frame: Frame, pixels: Pixels, *, normalized: Float | None = None) -> MetricPoints | None:
    """Where the pixels (M, 2) of a frame are, in the axes of its camera; None if nothing in it gives a scale.

    Stereo goes before depth, as in ``Frame.scale_source``. A caller that has undistorted the pixels already passes
    their ``normalized`` coordinates (M, 2).
    """
    if frame.scale_source is ScaleSource.NONE:
        return None
    normalized = normalize_points(pixels, frame.camera) if normalized is None else normalized
    if frame.stereo is not None:
        points, sigma_m = measure_by_stereo(frame.image, frame.stereo, pixels, normalized)
        return MetricPoints(points, sigma_m, ScaleSource.STEREO)
    assert frame.depth is not None
    points, sigma_m = measure_by_depth(frame.camera, frame.depth, pixels, normalized)
    return MetricPoints(points, sigma_m, ScaleSource.DEPTH)
