"""Model cards, read back."""

from huggingface_hub import ModelCard


def rows(card: ModelCard) -> dict[str, list[str]]:
    """The lines of the card's tables by their first cell."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in card.text.splitlines() if line[:1] == "|"
    ]
    return {first: rest for first, *rest in cells}
