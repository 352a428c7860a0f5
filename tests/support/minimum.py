"""Prints the oldest versions that the package and its tests allow, as requirements: `torch>=2.7` becomes `torch==2.7`.

pip install $(python tests/support/minimum.py)
"""

from importlib.metadata import requires

from packaging.requirements import Requirement

EXTRA = "test"


def oldest_versions(requirements: list[str]) -> list[str]:
    """The requirements that hold with the tests' extra, each at its lower bound, or as it stands without one.

    Example:
        >>> oldest_versions(["torch>=2.7", 'pytest>=8; extra == "test"', 'sphinx>=8; extra == "docs"'])
        ['torch==2.7', 'pytest==8']
    """
    parsed = [Requirement(text) for text in requirements]
    needed = [item for item in parsed if item.marker is None or item.marker.evaluate({"extra": EXTRA})]
    return [_oldest(item) for item in needed]


def _oldest(requirement: Requirement) -> str:
    bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
    return f"{requirement.name}=={bounds[0]}" if bounds else requirement.name


if __name__ == "__main__":
    print(*oldest_versions(requires("hf_pmgaft")))
