"""Any Hub, ImageFolder, parquet, saved or streaming set -> training examples and evaluation sets.

The names are listed in `__init__.pyi`, and imported when first used, since `datasets` takes seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
