"""Evaluation that can be trusted: sets x attacks -> verdicts per image -> a report, and reports compared.

The names are listed in `__init__.pyi`, and imported when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
