"""Reports as pages: one HTML file each, that needs no network, no JavaScript and no Python to be read.

The names are listed in `__init__.pyi`, and imported when first used, since matplotlib takes a second.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
