"""What models and reports are called in tables and pictures."""

import pytest

from hf_pmgaft.short_names import short_names


def test_models_are_named_by_the_parts_that_tell_them_apart():
    assert short_names("model", ["outputs/plain", "a/b/robust"]) == ["outputs/plain", "b/robust"]
    assert short_names("model", ["x/a/merged", "y/a/merged"]) == ["x/a/merged", "y/a/merged"]
    with pytest.raises(ValueError, match="twice"):
        short_names("model", ["a", "a"])
