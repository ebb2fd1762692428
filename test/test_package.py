"""What is said about the package agrees: setup.py, package.xml, the changelog, README, CONTRIBUTING, Makefile."""

import re
import runpy
import sys
import types
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

ROOT = Path(__file__).parents[1]
PACKAGE = "feature_matcher_ros"

# Import name → distribution on the Python package index, key in rosdep; None where ROS has no key.
DISTRIBUTIONS = {
    "numpy": ("numpy", "python3-numpy"),
    "cv2": ("opencv-python-headless", "python3-opencv"),
    "poselib": ("poselib", None),
    "onnxruntime": ("onnxruntime", "python3-onnxruntime-pip"),
    "yaml": ("PyYAML", "python3-yaml"),
    "typer": ("typer", "python3-typer"),
    "rich": ("rich", "python3-rich"),
    "rosbags": ("rosbags", "python3-rosbags-pip"),
    "matplotlib": ("matplotlib", "python3-matplotlib"),
}


class _Recorder(dict[str, Any]):
    def __call__(self, **arguments: Any) -> None:
        self.update(arguments)


@pytest.fixture(scope="module")
def arguments() -> dict[str, Any]:
    """The arguments of ``setup``, from running setup.py with a ``setup`` that only records them."""
    recorder = _Recorder()
    folders = [path.parent.relative_to(ROOT) for path in sorted((ROOT / PACKAGE).rglob("__init__.py"))]
    setuptools = types.ModuleType("setuptools")
    vars(setuptools).update(setup=recorder, find_packages=lambda include: [".".join(path.parts) for path in folders])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setitem(sys.modules, "setuptools", setuptools)
        runpy.run_path("setup.py")
    return recorder


@pytest.fixture(scope="module")
def manifest() -> ET.Element:
    return ET.parse(ROOT / "package.xml").getroot()


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~;\[ ]", requirement)[0] for requirement in requirements}


def test_package_xml_and_setup_py_say_the_same(arguments: dict[str, Any], manifest: ET.Element) -> None:
    maintainer = manifest.find("maintainer")
    assert maintainer is not None
    assert manifest.findtext("name") == arguments["name"] == PACKAGE
    assert manifest.findtext("version") == arguments["version"]
    assert str(manifest.findtext("description")).strip() == arguments["description"] + "."
    assert manifest.findtext("license") == arguments["license"] == "Apache-2.0"
    assert maintainer.text == arguments["maintainer"]
    assert maintainer.get("email") == arguments["maintainer_email"]
    assert re.fullmatch(r"[\w.+-]+@[\w-]+(\.[\w-]+)*\.[a-z]{2,}", arguments["maintainer_email"])
    assert manifest.get("format") == "3"
    assert manifest.findtext("export/build_type") == "ament_python"


def test_every_library_has_its_rosdep_key(arguments: dict[str, Any], manifest: ET.Element) -> None:
    assert _names(arguments["install_requires"]) == {distribution for distribution, _ in DISTRIBUTIONS.values()}
    declared = {element.text for element in manifest.findall("exec_depend")}
    expected = {key for _, key in DISTRIBUTIONS.values() if key is not None}
    assert {name for name in declared if name and name.startswith("python3-")} == expected


def test_every_required_library_is_imported_and_justified(arguments: dict[str, Any]) -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / PACKAGE).rglob("*.py"))
    for module, (distribution, _) in DISTRIBUTIONS.items():
        assert re.search(rf"^\s*(import|from) {module}\b", sources, re.MULTILINE), f"nothing imports {module}"
        assert f"`{distribution}`" in _text("CONTRIBUTING.md")
    for extra, requirements in arguments["extras_require"].items():
        for distribution in _names(requirements):
            assert f"`{distribution}`" in _text("CONTRIBUTING.md"), f"{distribution} of the extra {extra}"


def test_the_changelog_has_the_form_of_rep_132(arguments: dict[str, Any]) -> None:
    lines = _text("CHANGELOG.rst").splitlines()
    assert lines[1] == f"Changelog for package {PACKAGE}"
    assert lines[0] == lines[2] == "^" * len(lines[1])
    titles = [lines[i - 1] for i, line in enumerate(lines) if i > 3 and re.fullmatch(r"-+", line)]
    assert all(re.fullmatch(r"Forthcoming|\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", title) for title in titles)
    released = [title.split()[0] for title in titles if title != "Forthcoming"]
    assert titles[0] == "Forthcoming" or released[0] == arguments["version"]


def test_everything_that_ros_looks_for_is_installed(arguments: dict[str, Any]) -> None:
    installed = dict(arguments["data_files"])
    assert installed["share/ament_index/resource_index/packages"] == [f"resource/{PACKAGE}"]
    assert installed[f"share/{PACKAGE}"] == ["package.xml"]
    assert "config/front_end.yaml" in installed[f"share/{PACKAGE}/config"]
    assert all((ROOT / path).is_file() for paths in installed.values() for path in paths)
    assert f"$base/lib/{PACKAGE}" in _text("setup.cfg")


def test_no_module_and_no_data_file_is_left_out_of_the_wheel(arguments: dict[str, Any]) -> None:
    folders = {path.parent for path in (ROOT / PACKAGE).rglob("*.py")}
    assert {folder.relative_to(ROOT).as_posix().replace("/", ".") for folder in folders} == set(arguments["packages"])
    data = {
        path
        for path in (ROOT / PACKAGE).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts
    }
    declared = {
        path
        for package, patterns in arguments["package_data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    assert data == declared


def test_every_command_of_the_documents_exists() -> None:
    from feature_matcher_ros.cli import app

    targets = set(re.findall(r"^([a-z-]+):", _text("Makefile"), re.MULTILINE))
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for document in ("README.md", "CONTRIBUTING.md"):
        code = "\n".join(a or b for a, b in re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", _text(document), re.DOTALL))
        assert set(re.findall(r"^\s*make ([a-z-]+)", code, re.MULTILINE)) <= targets
        for command, rest in re.findall(r"feature-matcher ([a-z]+)([^\n#]*)", code):
            assert command in commands, f"{document}: feature-matcher {command}"
            options = {option for parameter in commands[command].params for option in parameter.opts}
            assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= options, f"{document}: feature-matcher {command}{rest}"
    readme = _text("README.md")
    assert "make demo" in readme and "make test" in readme


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", _text(document)):
            path = target[0] or target[1]
            assert path.startswith("https://") or (ROOT / path).exists(), f"{document}: {path}"


def test_this_interpreter_is_one_that_setup_py_admits(arguments: dict[str, Any]) -> None:
    assert arguments["python_requires"] == ">=3.10"
    assert sys.version_info >= (3, 10)
    assert 'target-version = "py310"' in _text("pyproject.toml")
