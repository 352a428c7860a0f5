"""Defences at test time by name: what wraps a classifier, and is one. A new one is one file and one row here."""

from ..attacks.options import ATTACKERS
from .defence import Defence, PixelDefence
from .random_noise import RandomNoise

DEFENCES: dict[str, type[Defence]] = {
    "random_noise": RandomNoise,
}

__all__ = ["ATTACKERS", "DEFENCES", "Defence", "PixelDefence", "RandomNoise"]
