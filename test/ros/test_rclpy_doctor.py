"""``feature-matcher doctor`` where ROS 2 is: it sees what its nodes see, also without the wheel of Cyclone DDS."""

import subprocess
import sys
import threading

import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")
pytest.importorskip("rclpy", reason="needs a sourced ROS 2 environment")

from live_harness import PATIENCE_S, LiveCamera, remap

from feature_matcher_ros.datatypes import Frame

pytestmark = pytest.mark.ros

DOCTOR = "import sys; sys.modules['cyclonedds'] = None; from feature_matcher_ros.cli import main; main()"


def ask(qos: str) -> tuple[int, str]:
    command = [sys.executable, "-c", DOCTOR, "doctor", "--set", f"node.qos={qos}"]
    command += ["--ros-args", *remap(image="/camera/image")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    return done.returncode, " ".join(f"{done.stdout} {done.stderr}".split())


def test_it_sees_what_never_connects(frames: list[Frame]) -> None:
    stop = threading.Event()
    with LiveCamera(reliable=False) as camera:

        def drive() -> None:
            while not stop.wait(0.05):
                camera.send(frames[0])

        driver = threading.Thread(target=drive)
        driver.start()
        try:
            deaf, well = ask("reliable"), ask("sensor_data")
        finally:
            stop.set()
            driver.join()
    assert deaf[0] == 1 and "is best effort and the node asks for reliable" in deaf[1], deaf
    assert well[0] == 0 and "all inputs are there" in well[1], well
