"""Model cards, read back."""

from huggingface_hub import ModelCard

from hf_pmgaft import RobustnessReport
from hf_pmgaft.evaluation.report import SetResult

PGD = {"attack": "pgd", "eps": "4/255", "norm": "linf", "num_steps": 20, "loss": "margin", "restarts": 1}


def rows(card: ModelCard) -> dict[str, list[str]]:
    """The lines of the card's tables by their first cell."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in card.text.splitlines() if line[:1] == "|"
    ]
    return {first: rest for first, *rest in cells}


def unknown_keys(content, known, path: str = "") -> list[str]:
    """Keys of YAML that are not among the known ones, with where they stand."""
    if known is None:
        return []
    if isinstance(known, list):
        return [key for part in content for key in unknown_keys(part, known[0], path)]
    found = [f"{path}{key}" for key in content if key not in known]
    return found + [k for key in content.keys() & known for k in unknown_keys(content[key], known[key], f"{key}.")]


def make_report(figures: dict[str, tuple[float, float]], seed: int = 0) -> RobustnessReport:
    """A report of a PGD attack: by set the clean and the robust accuracy."""
    sets = [SetResult(name, 10, 150, clean, robust, {}) for name, (clean, robust) in figures.items()]
    return RobustnessReport({"attacks": [PGD], "verdict": "last iterate", "seed": seed}, sets)
