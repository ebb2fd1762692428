"""Which module may import what, proved on the syntax trees.

Imports point inward, ``cli → ros, evaluation, training, export → front_end → matchers → extractors →
runtimes → the rest of the core → datatypes, config → errors``, and each third-party package has its place.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

PACKAGE = "feature_matcher_ros"
ROOT = Path(__file__).parents[1] / PACKAGE

# The rings of the house, innermost first. A module imports from its own ring and from those before it.
RINGS = (
    ("errors",),
    ("datatypes", "datatypes/*", "parameter_file", "parameter_values", "parameters", "config"),
    ("*", "relative_pose/*", "metric_points/*"),  # the rest of the core: geometry, tracks …
    ("models", "models/*"),
    ("runtimes", "runtimes/*"),
    ("extractors", "extractors/*"),
    ("matchers", "matchers/*"),
    ("front_end",),
    ("*/*", "evaluation", "export", "ros", "training"),
    ("cli", "cli_*"),
)
_THE_REST = 2

CORE = {"numpy", "cv2", "poselib", "yaml"}
ONLY_HERE = {
    "onnxruntime": ("runtimes/onnx_runtime",),
    "torch": ("models/*", "export/*", "training/*", "runtimes/torch_*"),
    "onnx": ("export/*", "runtimes/torch_graph"),
    "safetensors": ("models/*", "training/*"),
    "tensorrt": ("runtimes/tensorrt_library",),
    "tensorrt_rtx": ("runtimes/tensorrt_library",),
    "pycuda": ("runtimes/tensorrt_device",),
    "rosbags": ("evaluation/*", "ros/dds_*"),
    "cyclonedds": ("ros/dds_*",),
    "matplotlib": ("evaluation/*",),
    "mpl_toolkits": ("evaluation/*",),
    "rerun": ("evaluation/*",),
    "typer": ("cli", "cli_*"),
    "rich": ("cli", "cli_*"),
    **dict.fromkeys(
        ("rclpy", "message_filters", "cv_bridge", "tf2_ros", "ament_index_python", "launch"), ("ros/rclpy_*",)
    ),
    "*_msgs": ("ros/rclpy_*",),
    "*_srvs": ("ros/rclpy_*",),
    "*_interfaces": ("ros/rclpy_*",),
    "rosidl_runtime_py": ("ros/rclpy_*",),
}


@dataclass(frozen=True)
class Module:
    """One module of the package: ``evaluation/metrics`` and what it imports, as dotted names."""

    name: str
    imports: tuple[str, ...]
    eager: tuple[str, ...] = ()  # those that run when the module itself is imported


def _modules() -> list[Module]:
    return [_module(path.relative_to(ROOT), path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))]


def _module(path: Path, source: str) -> Module:
    parts = path.with_suffix("").parts
    package = (PACKAGE, *parts[:-1])
    name = "/".join(parts[:-1] if parts[-1] == "__init__" else parts)
    tree = ast.parse(source)
    eager = ast.Module([node for node in tree.body if _runs_on_import(node)], [])
    return Module(name, tuple(_imports(tree, package)), tuple(_imports(eager, package)))


def _runs_on_import(node: ast.stmt) -> bool:
    checked_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return not checked_only and not isinstance(node, ast.FunctionDef | ast.ClassDef)


def _imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Every import, also inside functions and under ``TYPE_CHECKING``, also by name at run time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _is_import_by_name(node.func):
            target = node.args[0] if node.args else None
            yield target.value if isinstance(target, ast.Constant) and isinstance(target.value, str) else "<computed>"


def _is_import_by_name(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def _ring(name: str) -> int:
    for number, patterns in enumerate(RINGS):
        if any(_fits(name, pattern) for pattern in patterns if pattern != "*"):
            return number
    return _THE_REST


def _fits(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) and name.count("/") >= pattern.count("/")


def _inside(dotted: str, names: set[str]) -> str | None:
    """The module of this package that a dotted import means; None for any other package."""
    if dotted.split(".")[0] != PACKAGE:
        return None
    name = dotted.removeprefix(PACKAGE).removeprefix(".").replace(".", "/")
    while name and name not in names:  # the last part may be a class or a function
        name = name.rpartition("/")[0]
    return name


def _places(package: str) -> tuple[str, ...] | None:
    """Where a third-party package may be imported; None where it may be nowhere."""
    if package in CORE:
        return ("*",)
    return next((places for pattern, places in ONLY_HERE.items() if fnmatch(package, pattern)), None)


def violations(modules: list[Module]) -> list[str]:
    """One sentence per import that breaks a rule."""
    names = {module.name for module in modules}
    found: list[str] = []
    for module in modules:
        for dotted in module.imports:
            inside = _inside(dotted, names)
            package = dotted.split(".")[0]
            if inside is not None:
                if inside and _ring(inside) > _ring(module.name):
                    found.append(f"{module.name} imports outward: {dotted}")
            elif package not in sys.stdlib_module_names:
                places = _places(package)
                if places is None or not any(fnmatch(module.name, place) for place in places):
                    found.append(f"{module.name} may not import {dotted}")
    return found


def cycles(modules: list[Module]) -> list[str]:
    """Modules that cannot be imported without importing themselves, and those that import such ones."""
    names = {module.name for module in modules}
    graph = {module.name: {_inside(dotted, names) for dotted in module.eager} - {None, ""} for module in modules}
    while free := [name for name, targets in graph.items() if not targets & graph.keys() - {name}]:
        for name in free:
            del graph[name]
    return sorted(graph)


def test_the_package_keeps_its_import_rules() -> None:
    assert violations(_modules()) == []


def test_no_modules_import_each_other() -> None:
    assert cycles(_modules()) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("geometry", "import rosbags"),
        ("geometry", "import scipy.optimize"),
        ("datatypes", "import feature_matcher_ros.geometry"),
        ("errors", "from feature_matcher_ros.datatypes import Camera"),
        ("relative_pose", "from feature_matcher_ros.matchers.matcher import Matcher"),
        ("tracks", "def later():\n    import torch"),
        ("tracks", "import importlib\nimportlib.import_module('torch')"),
        ("tracks", "import importlib\nimportlib.import_module('to' + 'rch')"),
        ("matchers/mutual_nearest", "from feature_matcher_ros import front_end"),
        ("matchers/mutual_nearest", "from ..front_end import FrontEnd"),
        ("matchers/lightglue", "import onnxruntime"),
        ("runtimes/onnx_runtime", "import torch"),
        ("runtimes/onnx_runtime", "from feature_matcher_ros.extractors.extractor import Extractor"),
        ("front_end", "from feature_matcher_ros.evaluation import metrics"),
        ("evaluation/report", "import rich"),
        ("evaluation/report", "from feature_matcher_ros.cli import main"),
        ("ros/server", "import rclpy"),
        ("ros/server", "from sensor_msgs.msg import Image"),
        ("ros/conversions", "import cyclonedds"),
    ],
)
def test_a_breach_is_found(name: str, source: str) -> None:
    others = [Module(other, ()) for other in ("errors", "datatypes", "geometry", "front_end", "cli", "matchers")]
    others += [Module(other, ()) for other in ("matchers/matcher", "extractors/extractor", "evaluation/metrics")]
    assert len(violations([*others, _module(Path(f"{name}.py"), source)])) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("relative_pose", "import poselib, numpy as np\nfrom feature_matcher_ros.geometry import skew"),
        ("runtimes/onnx_runtime", "import onnxruntime"),
        ("matchers/mutual_nearest", "from feature_matcher_ros.extractors.extractor import Extractor"),
        ("evaluation/report", "import matplotlib.pyplot\nfrom feature_matcher_ros.front_end import FrontEnd"),
        ("ros/rclpy_node", "import rclpy.node\nfrom sensor_msgs.msg import Image"),
        ("cli", "import typer, rich.table\nfrom feature_matcher_ros.evaluation import metrics"),
    ],
)
def test_what_is_allowed_passes(name: str, source: str) -> None:
    others = [Module(other, ()) for other in ("geometry", "front_end", "extractors/extractor", "evaluation/metrics")]
    assert violations([*others, _module(Path(f"{name}.py"), source)]) == []


def test_a_cycle_is_found() -> None:
    sources = {"a": "from feature_matcher_ros.b import B", "b": "import feature_matcher_ros.c", "c": "from . import a"}
    modules = [_module(Path(f"{name}.py"), source) for name, source in sources.items()]
    assert cycles([*modules, _module(Path("d.py"), "import feature_matcher_ros.a")]) == ["a", "b", "c", "d"]
    assert cycles([*modules[1:], _module(Path("a.py"), "def later():\n    from . import b")]) == []


def test_the_core_runs_on_numpy_opencv_poselib_onnxruntime_and_yaml_alone() -> None:
    """Import every core module in a fresh interpreter to which all other packages are hidden."""
    hidden = {package for package in ONLY_HERE if "*" not in package} - {"onnxruntime"} | {"scipy", "pandas", "PIL"}
    optional = {"models", "runtimes/torch_"}
    core = [module.name for module in _modules() if _ring(module.name) <= _ring("front_end")]
    names = [f"{PACKAGE}.{name.replace('/', '.')}" for name in core if name and not name.startswith(tuple(optional))]
    assert f"{PACKAGE}.front_end" in names
    program = f"import sys, importlib; sys.modules |= dict.fromkeys({sorted(hidden)})\n"
    program += f"for name in {names}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
