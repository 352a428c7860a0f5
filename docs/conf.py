"""How Sphinx builds these pages: `make docs`. Pages are Markdown, the API reference comes from the docstrings."""

import re

import hf_pmgaft

project = "hf_pmgaft"
author = "the authors of hf_pmgaft"
release = hf_pmgaft.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = project
exclude_patterns = ["build"]

# Headings can be linked to as on GitHub: page.md#the-heading.
myst_heading_anchors = 3

# Docstrings are in the Hugging Face format: Markdown's backticks mean code.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_typehints = "none"  # the docstrings say types and shapes in words
autodoc_member_order = "bysource"

LINK = re.compile(r"\[`([^`]+)`\](?:\([^)]*\))?")
FENCE = re.compile(r"^(\s*)```(\w*)\s*$")
HEADING = re.compile(r"^(\s*)    > (.*)$")
PART = re.compile(r"<!-- page: (\S+) -->.*?<!-- end of page -->", re.S)


def to_restructured_text(app, what, name, obj, options, lines):
    """Turns what Hugging Face docstrings take from Markdown into what Sphinx reads."""
    converted, indent = [], None
    for line in lines:
        fence = FENCE.match(line)
        if fence and indent is None:
            indent = fence[1]
            converted += ["", f"{indent}.. code-block:: {fence[2] or 'text'}", ""]
        elif fence:
            indent = None
            converted.append("")
        elif indent is not None:
            converted.append(f"   {line}" if line.strip() else "")
        elif heading := HEADING.match(line):
            add_group(converted, heading[1], heading[2])
        else:
            converted.append(escaped(LINK.sub(r"``\1``", line)))
    lines[:] = converted


def escaped(line):
    """Outside of code a bar is a bar and an underscore an underscore."""
    parts = re.split(r"(`+[^`]*`+)", line)
    return "".join(part if part.startswith("`") else re.sub(r"(\||_\b)", r"\\\1", part) for part in parts)


def add_group(lines, indent, title):
    """Begins a new list of arguments under its own title, in place of `> Title` within one list."""
    while lines and lines[-1].strip() in ("", "Args:"):
        lines.pop()
    lines += ["", f"{indent}**{title}**", "", f"{indent}Args:"]


def put_parts_in(app, name, source):
    """Puts HTML that a study made where a page marks what stands for it on GitHub."""
    source[0] = PART.sub(r"```{raw} html\n:file: \1\n```", source[0])


def setup(app):
    app.connect("source-read", put_parts_in)
    # Before napoleon, whose priority is 500.
    app.connect("autodoc-process-docstring", to_restructured_text, priority=400)
