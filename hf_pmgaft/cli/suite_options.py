"""The options by which a command evaluates a suite, which `pmgaft train` and `pmgaft evaluate` share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what brings in `datasets` comes where it is used, so that --help is quick
    from ..data.evaluation_sets import ZeroShotDataset

HELP = {
    "suite": "A benchmark in place of single sets: paper16, fare13, natural_shift, segmentation or a YAML file.",
    "suite_sets": "Some sets of the suite; all if absent.",
    "data_root": "Folder with a sub-folder per set of the suite, read in place of the Hub.",
    "limit": "Images per set of the suite, by its stored sample ids.",
}


def load_suite_sets(options: Any, processor: Any) -> tuple[list[ZeroShotDataset], dict[str, Any]]:
    """The sets of the suite that a command line names, and what reports record of it.

    Args:
        options: With `suite`, `suite_sets`, `data_root` and `limit`.
        processor (`CLIPProcessor`): Resizes and crops.

    Raises:
        ValueError: if no set can be loaded.
    """
    from ..suites.loading import load_available_sets

    sets, missing = load_available_sets(
        options.suite,
        processor,
        names=options.suite_sets or None,
        limit=options.limit,
        data_root=options.data_root,
    )
    if not sets:
        raise ValueError(f"No set of --suite {options.suite} can be loaded. {' '.join(missing.values())}")
    record = {"suite": Path(options.suite).stem}
    return sets, {**record, "missing": missing} if missing else record


def end_with_missing(provenance: dict[str, Any]) -> None:
    """Ends the process with exit code 1 if sets of the suite are missing, after all else is done."""
    missing = provenance.get("missing", {})
    if missing:
        listed = " ".join(missing.values())
        sys.exit(f"error: The figures are without {len(missing)} of the suite's sets: {', '.join(missing)}. {listed}")
