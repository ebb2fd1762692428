"""The package as colcon builds it: what `ros2 run`, `ros2 launch` and the node itself look for is where they look.

colcon is on the Python package index; only the tests that start something need ROS.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

pytest.importorskip("colcon_ros", reason="needs colcon")
pytest.importorskip("colcon_python_setup_py", reason="needs colcon")
pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

from live_harness import NEEDS_BAG, NEEDS_RCLPY, ORB, PATIENCE_S, Consumer, LiveCamera, wait_until
from same_as_replay import CONFIG, HEARD, assert_same, replayed

from feature_matcher_ros.config import FrontEndConfig, override
from feature_matcher_ros.datatypes import Frame
from feature_matcher_ros.evaluation.replay import replay
from feature_matcher_ros.ros.topics import CORRESPONDENCES, DIAGNOSTICS, STATUS, Topic

ROOT = Path(__file__).parents[2]
PACKAGE = "feature_matcher_ros"
TOPICS = (STATUS, CORRESPONDENCES)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed package, built from a copy, for building leaves things in the source."""
    workspace = tmp_path_factory.mktemp("workspace")
    kept = ("package.xml", "setup.py", "setup.cfg", "pyproject.toml", "resource", "config", "launch", "engines", "test")
    source = workspace / "src" / PACKAGE
    source.mkdir(parents=True)
    for name in (*kept, PACKAGE):
        (source / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "colcon", "--log-base", "log", "build", "--base-paths", "src"]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace / "install" / PACKAGE


def test_everything_is_where_ros_looks_for_it(prefix: Path) -> None:
    share, programs = prefix / "share" / PACKAGE, prefix / "lib" / PACKAGE
    assert {path.name for path in programs.iterdir()} == {"feature-matcher", "front_end_node"}
    assert all(os.access(path, os.X_OK) for path in programs.iterdir())
    assert (prefix / "share" / "ament_index" / "resource_index" / "packages" / PACKAGE).is_file()
    for folder in ("launch", "config"):
        assert {path.name for path in (share / folder).iterdir()} == {
            path.name for path in (ROOT / folder).iterdir() if path.suffix != ".pyc" and path.is_file()
        }
    assert (share / "engines" / "lightglue_sift" / "manifest.json").is_file()
    assert (share / "package.xml").read_text() == (ROOT / "package.xml").read_text()
    modules = {path.relative_to(ROOT) for path in (ROOT / PACKAGE).rglob("*.py")}
    [site] = prefix.glob("lib/python*/site-packages")
    assert {path.relative_to(site) for path in (site / PACKAGE).rglob("*.py")} == modules


def test_colcon_test_runs_the_tests_of_the_package(prefix: Path, tmp_path: Path) -> None:
    """With pytest, as setup.py asks for it; one file of them, for the others run here already."""
    workspace = prefix.parents[1]
    command = [sys.executable, "-m", "colcon", "--log-base", "log", "test", "--return-code-on-test-failure"]
    command += ["--base-paths", "src", "--pytest-args", "test/test_errors.py", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    [results] = (workspace / "build").rglob("pytest.xml")
    suite = ET.parse(results).getroot().find("testsuite")
    assert suite is not None
    ran = int(suite.attrib["tests"]) - int(suite.attrib["skipped"])
    assert ran >= 2 and suite.attrib["failures"] == suite.attrib["errors"] == "0"


@pytest.fixture
def sourced(prefix: Path) -> dict[str, str]:
    """The environment after sourcing the workspace."""
    [site] = prefix.glob("lib/python*/site-packages")
    paths = {"AMENT_PREFIX_PATH": str(prefix), "PYTHONPATH": str(site)}
    return {**os.environ, **{name: f"{path}:{os.environ.get(name, '')}" for name, path in paths.items()}}


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its own group, which SIGINT reaches as from a terminal: all of its processes at once."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd=log.parent
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def ends_cleanly(process: subprocess.Popen[bytes], log: Path) -> None:
    os.killpg(process.pid, signal.SIGINT)
    process.wait(PATIENCE_S)
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "front_end.launch.py",
            "sensor image second transport depth_transport search_timeout_s config calibration namespace name remaps "
            "process_every_frame use_sim_time autostart publish_unscaled rviz log_level",
        ),
        (
            "replay.launch.py",
            "bag sensor image second rate loop process_every_frame config namespace publish_unscaled rviz log_level",
        ),
    ],
)
@pytest.mark.ros
@NEEDS_RCLPY
def test_every_launch_argument_is_described(name: str, expected: str, sourced: dict[str, str]) -> None:
    command = ["ros2", "launch", PACKAGE, name, "--show-args"]
    done = subprocess.run(command, env=sourced, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    arguments = re.findall(r"^ {4}'(\w+)':\n {8}(.*)$", done.stdout, re.MULTILINE)
    assert [argument for argument, _ in arguments] == expected.split()
    assert all(text.rstrip().endswith(".") or "Valid choices" in text for _, text in arguments), arguments


@pytest.mark.ros
@NEEDS_RCLPY
def test_ros2_run_and_launch_with_the_only_camera_there_is(
    sourced: dict[str, str], frames: list[Frame], tmp_path: Path
) -> None:
    """``ros2 run`` is told the topic; ``ros2 launch`` finds it, and is given a namespace."""
    settings = ORB | {"node.max_frame_age_ms": 0.0, "node.qos": "reliable"}
    parameters = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
    run = ["ros2", "run", PACKAGE, "front_end_node", "--ros-args", "-r", "image:=/camera/image", *parameters]
    follow(run, "", sourced, frames, tmp_path / "run.log")
    config = tmp_path / "config.yaml"
    content = "extractor: {name: orb}\n    matcher: {name: mutual_nearest}\n    node: {max_frame_age_ms: 0.0}\n"
    config.write_text(f"/**:\n  ros__parameters:\n    {content}")
    launch = ["ros2", "launch", PACKAGE, "front_end.launch.py", f"config:={config}", "namespace:=robot"]
    follow(launch, "/robot", sourced, frames, tmp_path / "launch.log")
    assert "process has finished cleanly" in (tmp_path / "launch.log").read_text()


@pytest.mark.ros
@NEEDS_RCLPY
def test_launch_takes_the_camera_that_the_file_names(
    sourced: dict[str, str], frames: list[Frame], tmp_path: Path
) -> None:
    """Though there is another one, which a search could not tell from it."""
    config = tmp_path / "config.yaml"
    node = "node: {image_topic: /camera/image, qos: reliable, max_frame_age_ms: 0.0}\n"
    content = f"extractor: {{name: orb}}\n    matcher: {{name: mutual_nearest}}\n    {node}"
    config.write_text(f"/**:\n  ros__parameters:\n    {content}")
    with LiveCamera("other", namespace="/other"):
        launch = ["ros2", "launch", PACKAGE, "front_end.launch.py", f"config:={config}"]
        follow(launch, "", sourced, frames, tmp_path / "launch.log")
    assert "process has finished cleanly" in (tmp_path / "launch.log").read_text()


@pytest.mark.ros
@NEEDS_RCLPY
def test_launch_testing_finds_what_replay_finds(sourced: dict[str, str], stereo_bag: Path, tmp_path: Path) -> None:
    """In a process of its own, for the plugins of launch_testing do not fit every pytest."""
    config = tmp_path / "config.yaml"
    parameters = {
        **{"extractor": {"name": "orb"}, "matcher": {"name": "mutual_nearest"}},
        **{"keyframes": {"match_every_frame": True}, "node": {"qos": "reliable"}},
    }
    config.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
    fast = ORB | {"keyframes.match_every_frame": True}
    replay(stereo_bag, tmp_path / "run", config=override(FrontEndConfig(), fast))
    command = [
        sys.executable,
        "-m",
        "launch_testing.launch_test",
        str(Path(__file__).with_name("launched_front_end.py")),
    ]
    command += [f"bag:={stereo_bag}", f"config:={config}", f"expected:={tmp_path / 'run' / 'topics'}"]
    done = subprocess.run(command, env=sourced, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 1 test" in done.stdout + done.stderr


@pytest.mark.ros
@NEEDS_RCLPY
@NEEDS_BAG
def test_the_launched_replay_says_what_replay_says(sourced: dict[str, str], rgbd_bag: Path, tmp_path: Path) -> None:
    """One command plays the bag to the node; both end with it."""
    expected = replayed(rgbd_bag, tmp_path / "run")
    config = tmp_path / "config.yaml"
    sections: dict[str, dict[str, object]] = {"node": {"qos": "reliable"}}
    for (section, name), value in ((path.split("."), value) for path, value in CONFIG.items()):
        sections.setdefault(section, {})[name] = value
    config.write_text(yaml.safe_dump({"/**": {"ros__parameters": sections}}))
    command = ["ros2", "launch", PACKAGE, "replay.launch.py", f"bag:={rgbd_bag}", f"config:={config}"]
    command += ["rviz:=false", "process_every_frame:=true", "rate:=0.5"]
    log = tmp_path / "launch.log"
    with Consumer(HEARD) as consumer, running(command, sourced, log) as process:
        assert process.wait(2 * PATIENCE_S) == 0, log.read_text()
    assert len(consumer.messages[STATUS]) == len(expected[DIAGNOSTICS]), log.read_text()
    assert_same(consumer, expected)
    said = log.read_text()
    assert said.count("process has finished cleanly") == 2 and "Traceback" not in said, said


def follow(command: list[str], namespace: str, sourced: dict[str, str], frames: list[Frame], log: Path) -> None:
    """Start something, show it frames until it says what it sees, and end it."""
    topics = [Topic(topic.name.replace("~", f"{namespace}/feature_matcher"), topic.type_name) for topic in TOPICS]
    with LiveCamera() as camera, running(command, sourced, log) as process, Consumer(topics) as consumer:
        wait_until(lambda: camera.has_listeners() or process.poll() is not None, f"a node that listens: {log}")
        assert process.poll() is None, log.read_text()
        deadline = time.monotonic() + PATIENCE_S
        while not consumer.messages[topics[1]]:
            assert time.monotonic() < deadline, log.read_text()
            for frame in frames[::4]:
                camera.send(frame)
                time.sleep(0.3)
        ends_cleanly(process, log)


@pytest.mark.ros
@NEEDS_RCLPY
def test_two_cameras_are_listed_instead_of_guessed(sourced: dict[str, str], tmp_path: Path) -> None:
    command = ["ros2", "launch", PACKAGE, "front_end.launch.py", "search_timeout_s:=3.0"]
    with LiveCamera("one", namespace="/one"), LiveCamera("two", namespace="/two"):
        done = subprocess.run(command, env=sourced, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "2 topics could be the image, /one/camera/image, /two/camera/image: name the one that is meant." in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("front_end.launch.py", ["config:=/no.yaml"], "cannot read the configuration /no.yaml"),
        ("front_end.launch.py", ["search_timeout_s:=soon"], "search_timeout_s:=soon is no number above zero"),
        ("front_end.launch.py", ["remaps:=a:=b c"], "remaps:='a:=b c' holds what has not the form FROM:=TO."),
        ("front_end.launch.py", ["rviz:=true"], "rviz2 is not installed: install it, or say rviz:=false."),
        ("replay.launch.py", ["bag:=/no"], "rviz2 is not installed: install it, or say rviz:=false."),
        ("replay.launch.py", ["bag:=/no", "rviz:=false"], "'/no' does not exist"),
        ("replay.launch.py", ["bag:=/no", "rviz:=false", "rate:=0"], "rate:=0 is no number above zero"),
    ],
)
@pytest.mark.ros
@NEEDS_RCLPY
def test_what_is_wrong_is_said_before_anything_is_started(
    name: str, arguments: list[str], sentence: str, sourced: dict[str, str]
) -> None:
    if "rviz2" in sentence and shutil.which("rviz2"):
        pytest.skip("RViz is installed")
    given = ["image:=/camera/image"] if name.startswith("front_end") else []
    command = ["ros2", "launch", PACKAGE, name, *given, *arguments]
    done = subprocess.run(command, env=sourced, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and sentence in said
    assert "process started" not in said and "Traceback" not in said
