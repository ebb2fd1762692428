"""Images as our decoder reads them, and as cv_bridge does."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs a sourced ROS 2 environment")
pytest.importorskip("cv_bridge.boost.cv_bridge_boost", reason="needs cv_bridge with its compiled part")

from cv_bridge import CvBridge

from feature_matcher_ros.ros.depth_decoder import MILLIMETRES, decode_depth
from feature_matcher_ros.ros.image_decoder import decode_image
from feature_matcher_ros.ros.messages import make_header
from feature_matcher_ros.ros.rclpy_messages import RclpyMessages

pytestmark = pytest.mark.ros

HEIGHT, WIDTH = 24, 32
ENCODINGS = {
    **{"mono8": 1, "mono16": 2, "bgr8": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4, "bgr16": 6, "rgb16": 6},
    **{"bayer_rggb8": 1, "bayer_bggr8": 1, "bayer_gbrg8": 1, "bayer_grbg8": 1, "yuv422": 2, "yuv422_yuy2": 2},
}
MAKE = RclpyMessages()


def message(encoding: str, bytes_per_pixel: int, padding: int, data: np.ndarray | None = None) -> object:
    step = WIDTH * bytes_per_pixel + padding
    if data is None:
        data = np.random.default_rng(3).integers(0, 256, HEIGHT * step, np.uint8)
    size = {"height": HEIGHT, "width": WIDTH, "step": step, "is_bigendian": 0}
    return MAKE("sensor_msgs/msg/Image", header=make_header(MAKE, 1, "camera"), encoding=encoding, data=data, **size)


@pytest.mark.parametrize("padding", [0, 12])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_both_read_the_same_pixels(encoding: str, padding: int) -> None:
    """Within one grey value: two versions of OpenCV round differently."""
    image = message(encoding, ENCODINGS[encoding], padding)
    bridge = CvBridge()
    for wanted, color in (("mono8", False), ("bgr8", True)):
        if wanted == "bgr8" and encoding.startswith("mono"):
            continue  # grey stays grey here
        expected = bridge.imgmsg_to_cv2(image, wanted)
        found = decode_image(image, color=color)  # type: ignore[arg-type]
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).max() <= 1, (encoding, wanted)


def test_both_read_the_same_depth() -> None:
    depth = np.random.default_rng(5).integers(1, 9000, (HEIGHT, WIDTH), np.uint16)
    image = message("16UC1", 2, 0, depth.view(np.uint8).ravel())
    expected = CvBridge().imgmsg_to_cv2(image, "passthrough").astype(np.float32) / np.float32(1000.0)
    np.testing.assert_allclose(decode_depth(image, MILLIMETRES), expected, rtol=1e-6)  # type: ignore[arg-type]


def test_pixels_are_copied_once_and_not_one_by_one() -> None:
    """What ``data`` is given arrives unchanged, as the kind of array that rclpy takes without a look at each number."""
    image = message("mono8", 1, 0)
    assert type(image.data).__name__ == "array" and image.data.typecode == "B"  # type: ignore[attr-defined]
    expected = np.random.default_rng(3).integers(0, 256, HEIGHT * WIDTH, np.uint8)
    assert bytes(image.data) == expected.tobytes()  # type: ignore[attr-defined]
    view = decode_image(image)  # type: ignore[arg-type]
    assert np.shares_memory(view, np.frombuffer(image.data, np.uint8))  # type: ignore[attr-defined]
