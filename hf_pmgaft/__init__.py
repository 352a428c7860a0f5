"""Adversarially robust CLIP, the Hugging Face way.

The public names are listed in `__init__.pyi`, and imported when first used: torch and transformers take seconds.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
