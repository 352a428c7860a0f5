"""Defences at test time by name: what wraps a classifier, and is one. A new one is one file and one row here."""

from ..attacks.options import ATTACKERS
from .anti_adversary import AntiAdversary
from .clipure import CLIPure, CLIPureReleased
from .defence import Defence, PixelDefence
from .ensemble import Ensemble
from .hedge import Hedge
from .r_tpt import RTPT
from .random_noise import RandomNoise
from .smoothing import Smoothing
from .ttc import TTC

DEFENCES: dict[str, type[Defence]] = {
    "anti_adversary": AntiAdversary,
    "clipure": CLIPure,
    "clipure_released": CLIPureReleased,
    "ensemble": Ensemble,
    "hedge": Hedge,
    "r_tpt": RTPT,
    "random_noise": RandomNoise,
    "smoothing": Smoothing,
    "ttc": TTC,
}

__all__ = [
    "ATTACKERS",
    "DEFENCES",
    "AntiAdversary",
    "CLIPure",
    "CLIPureReleased",
    "Defence",
    "Ensemble",
    "Hedge",
    "PixelDefence",
    "RandomNoise",
    "RTPT",
    "Smoothing",
    "TTC",
]
