import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

EMOJI = Path("examples/emoji")
EMOJI_PARTS = ("model", "llava", "data", "LICENSES")


class BuildWithEmoji(build_py):
    """Puts the embedded model and sets beside the package. An editable install finds them where they are."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for part in EMOJI_PARTS:
            shutil.copytree(EMOJI / part, Path(self.build_lib, "hf_pmgaft", "emoji", part), dirs_exist_ok=True)


version = next(
    line.split('"')[1]
    for line in Path("hf_pmgaft/__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)

extras = {
    "deepspeed": ["deepspeed>=0.19"],
    "eval": ["pyautoattack>=0.2"],
    "metric": ["evaluate>=0.4.5"],
    "track": ["trackio"],
    "onnx": ["onnxscript>=0.5"],
    "vlm": ["sacrebleu>=2.4"],
    # What no CLIPModel can hold is evaluated through open_clip, which needs the torchvision of its torch; before 3.3
    # its tokenizers ask for what transformers 5 has no more.
    "zoo": ["open_clip_torch>=3.3", "torchvision"],
}
# The page in the browser. Gradio's server changes every few weeks; what the page closes of it was tested from here on.
extras["demo"] = ["gradio>=6.31"]
extras["docs"] = ["sphinx>=8", "myst-parser>=4", "furo>=2024.8.6"]
# What drives Debian's chromium in tests of pages, and checks whether they are accessible.
extras["browser"] = ["playwright>=1.50", "axe-core-python>=0.1"]
extras["test"] = ["html5lib>=1.1", "pytest>=8", "pytest-xdist>=3.8", "setuptools>=77.0.1", "tensorboard>=2.19"]
extras["test"] += extras["deepspeed"] + extras["eval"] + extras["metric"] + extras["vlm"]
extras["dev"] = [*extras["test"], "ruff>=0.14", "import-linter>=2.13", "mypy>=1.18"]

setup(
    name="hf_pmgaft",
    version=version,
    description="Zero-shot adversarial robustness of CLIP as a Hugging Face Trainer: PMG-AFT, TeCoA, FARE",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["hf_pmgaft", "hf_pmgaft.*"]),
    package_data={
        "hf_pmgaft": [
            "py.typed",
            "*.pyi",
            "*/*.pyi",
            "hub/templates/*.md",
            "metrics/*/*.py",
            "pages/templates/*",
            "few_shots/*.yaml",
            "recipes/*.yaml",
            "recipes/*.json",
            "suites/*.yaml",
            "suites/*.json",
            "suites/*.md",
            "suites/*/*.txt",
        ]
    },
    cmdclass={"build_py": BuildWithEmoji},
    entry_points={"console_scripts": ["pmgaft = hf_pmgaft.cli:main"]},
    install_requires=[
        "torch>=2.7",
        "transformers>=5.19",
        "accelerate>=1.10",
        "datasets>=4.6",  # before it, no table beside images is read where pandas is 3
        "peft>=0.20",
        "psutil",
        "safetensors>=0.8",
        "pillow>=10.1",  # whose own font can be scaled
        "matplotlib>=3.9",
        "numpy>=2.0",
        "pyyaml>=6.0.1",
        "tqdm>=4.66.3",
        "lazy_loader>=0.4",
        "jinja2>=3.1",
    ],
    extras_require=extras,
)
