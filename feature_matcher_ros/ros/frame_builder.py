"""Frames from the messages of a live camera."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import DepthView, Frame, StereoView
from feature_matcher_ros.errors import ImageError
from feature_matcher_ros.evaluation.bag_transforms import clean_frame_id
from feature_matcher_ros.node_config import NodeConfig
from feature_matcher_ros.ros.depth_decoder import decode_compressed_depth, decode_depth
from feature_matcher_ros.ros.image_decoder import decode_compressed_image, decode_image
from feature_matcher_ros.ros.live_rig import LiveCameras, LiveRig, Role
from feature_matcher_ros.ros.synchronizer import Bundle


class FrameBuilder:
    """Decodes the messages of a camera and adds what is known of it."""

    def __init__(self, config: NodeConfig, rig: LiveRig, second: Role | None) -> None:
        self._rig, self._second = rig, second
        self._decode_image = decode_image if config.image_transport == "raw" else decode_compressed_image
        self._decode_depth = decode_depth if config.depth_transport == "raw" else decode_compressed_depth

    def build(self, bundle: Bundle) -> Frame:
        """Make the frame of an image and its partner.

        Raises:
            ImageError: an image cannot be decoded, or is not of the size of its camera or of the mask.
            CalibrationError: a camera is not calibrated, or how two stand to each other is not known.
        """
        frame_id = clean_frame_id(bundle.image.header.frame_id)
        image = self._decode_image(bundle.image)
        mask = self._rig.mask
        if mask is not None and mask.shape != image.shape[:2]:
            size, other = image.shape[1::-1], mask.shape[::-1]
            raise ImageError(f"an image has {size[0]}x{size[1]} pixels but its mask {other[0]}x{other[1]}: change it.")
        stereo, depth = None, None
        if self._second is None:
            cameras = self._rig.cameras(frame_id, "", (0, 0))
        else:
            cameras = self._rig.cameras(frame_id, bundle.second.header.frame_id, self._size_of(bundle.second))
        if self._second is Role.RIGHT:
            stereo = self._stereo(bundle.second, cameras)
        elif self._second is Role.DEPTH:
            depth = self._depth(bundle.second, cameras)
        return Frame(bundle.stamp_ns, image, cameras.camera, frame_id or "camera", stereo, depth, mask)

    def _stereo(self, message: Any, cameras: LiveCameras) -> StereoView:
        assert cameras.second is not None and cameras.second_pose is not None
        return StereoView(self._decode_image(message), cameras.second, cameras.second_pose)

    def _depth(self, message: Any, cameras: LiveCameras) -> DepthView:
        assert cameras.second is not None and cameras.second_pose is not None
        return DepthView(self._decode_depth(message, cameras.units_per_m), cameras.second, cameras.second_pose)

    def _size_of(self, message: Any) -> tuple[int, int]:
        """(width, height) of depth, whose camera may have to be scaled to it."""
        if self._second is not Role.DEPTH:
            return 0, 0
        if hasattr(message, "width"):
            return int(message.width), int(message.height)
        depth: NDArray[np.float32] = self._decode_depth(message, 1.0)
        return depth.shape[1], depth.shape[0]
