"""A page in the browser: make adversarial images, see what models take them for, and look at reports.

The names are listed in `__init__.pyi`, and imported when first used; Gradio when the page is built.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
