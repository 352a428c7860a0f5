"""Templates of pages."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .. import __version__
from ..evaluation.tables import render


def render_page(template: str, **values: Any) -> str:
    """A page from a template of this folder, which writes whatever it is given as text, but for tables."""
    return _templates().get_template(template).render(version=__version__, **values) + "\n"


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("hf_pmgaft.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["table"] = lambda rows: Markup(render(rows, "html"))
    environment.filters["json"] = lambda value: json.dumps(value, indent=1)
    return environment
