"""Errors as visitors see them: the package's own sentence, in the page, after which it goes on."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable
from typing import Any

import gradio as gr

from .visitors import Stopped

# What is raised with a message for people; others are bugs, of which a visitor learns no more than that.
EXPECTED = (ValueError, TypeError, OSError, RuntimeError, FloatingPointError)
SECONDS = 30


def shown_errors(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Shows in the page what an event handler raises for people to read. Results that are shown stay.

    Example:
        >>> @shown_errors
        ... def handle():
        ...     raise ValueError("You passed <b>, which is no class.")
        >>> handle()
        Traceback (most recent call last):
        gradio.exceptions.Error: 'You passed &lt;b&gt;, which is no class.'
    """

    @functools.wraps(handler)
    def handled(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except Stopped as stop:
            raise gr.Error(str(stop), SECONDS, title="Stopped", print_exception=False) from stop
        except EXPECTED as error:
            text = html.escape(str(error), quote=False)  # Gradio shows HTML, and names are a visitor's
            raise gr.Error(text, SECONDS, title="This cannot work", print_exception=False) from error

    return handled
