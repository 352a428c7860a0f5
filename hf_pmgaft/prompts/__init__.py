"""Class names and prompt templates: what they must be, where they are read from, and how a name stands in a prompt."""

from .characters import shows, without_invisible
from .class_names import check_class_names, parse_class_names
from .files import read_lines, read_names
from .names import prompt_name
from .readable import check_readable
from .shipped import check_order_of_labels, names_from, shipped_class_names, shipped_lists
from .synonyms import check_synonyms
from .templates import DEFAULT_PROMPT_TEMPLATES, check_prompt_templates

__all__ = [
    "DEFAULT_PROMPT_TEMPLATES",
    "check_class_names",
    "check_order_of_labels",
    "check_prompt_templates",
    "check_readable",
    "check_synonyms",
    "names_from",
    "parse_class_names",
    "prompt_name",
    "read_lines",
    "read_names",
    "shipped_class_names",
    "shipped_lists",
    "shows",
    "without_invisible",
]
