"""Package for pip and, by way of ``package.xml``, for colcon."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "feature_matcher_ros"


def _files(folder: str, pattern: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).glob(pattern))


setup(
    name=PACKAGE,
    version="0.1.0",
    description="A real-time visual SLAM front-end: correspondences with stable track ids, and robust relative poses",
    license="Apache-2.0",
    maintainer="feature_matcher_ros maintainers",
    maintainer_email="maintainers@example.org",
    python_requires=">=3.10",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/config", _files("config", "*")),
        (f"share/{PACKAGE}/launch", _files("launch", "*.launch.py")),
        *((f"share/{PACKAGE}/{folder}", _files(folder, "*.*")) for folder in _files("engines", "*/")),
    ],
    # CONTRIBUTING.md says in one line each what these are for.
    install_requires=[
        "numpy>=1.26",
        # Without windows: nothing here opens one, and servers lack the libGL that the other variant loads.
        "opencv-python-headless>=4.8",
        "poselib>=2.0.5",
        "onnxruntime>=1.17",
        "PyYAML>=6.0",
        "typer>=0.12",
        "rich>=13.0",
        "rosbags>=0.11",
        "matplotlib>=3.8",
    ],
    extras_require={
        # To build engines, which needs no GPU; the library has wheels for x86-64 only.
        "engines": ["tensorrt-rtx>=1.7,<2; platform_machine in 'x86_64 AMD64'", "onnx>=1.16"],
        "tensorrt": ["tensorrt-rtx>=1.7,<2", "onnx>=1.16", "pycuda>=2024.1"],  # to run them too
        "torch": ["torch>=2.2", "onnx>=1.16", "onnxscript>=0.3", "safetensors>=0.4"],
        "rerun": ["rerun-sdk>=0.20"],
        "dds": ["cyclonedds>=11.0.1,<12"],  # two of its inner functions are used
        "test": ["pytest>=8.0"],  # colcon looks here to choose its test runner
        "dev": [
            "pytest>=8.0",
            "scipy>=1.11",
            "onnx>=1.16",
            "evo>=1.28",
            "ruff>=0.17.5,<0.18",
            "mypy>=2.4,<3",
            "types-PyYAML>=6.0",
            # Where it has wheels; without it the tests over the wire are skipped.
            "cyclonedds>=11.0.1,<12; python_version<'3.14' and platform_machine in 'x86_64 AMD64'",
        ],
    },
    entry_points={
        "console_scripts": [
            "feature-matcher = feature_matcher_ros.cli:main",
            "front_end_node = feature_matcher_ros.cli_live:front_end_node",
        ]
    },
    zip_safe=False,
)
