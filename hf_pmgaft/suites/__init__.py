"""Suites of zero-shot sets as data: the sixteen that papers report, natural shifts, and one's own in YAML."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
