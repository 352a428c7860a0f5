"""Scores of what a vision-language model writes: targets and captions."""

from __future__ import annotations

from collections.abc import Sequence


def contains(text: str, target: str) -> bool:
    """Whether a target stands in a text, whatever the white space.

    Example:
        >>> contains("so, money  bag", "money bag")
        True
    """
    return " ".join(target.split()) in " ".join(text.split())


def caption_score(text: str, references: Sequence[str]) -> float:
    """chrF++ of a caption against the best of its references, from 0 to 1 (Popović, 2017), by `sacrebleu`.

    Raises:
        ImportError: if `sacrebleu` is not installed.

    Example:
        >>> caption_score("a red cat", ["a dog", "a red cat"])
        1.0
    """
    try:
        from sacrebleu.metrics import CHRF
    except ImportError as error:
        raise ImportError("Captions are scored by sacrebleu. Install it with pip install 'hf_pmgaft[vlm]'.") from error
    return CHRF(word_order=2).sentence_score(text, list(references)).score / 100
