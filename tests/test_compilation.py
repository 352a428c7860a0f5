"""What compilation needs is looked for where torch looks for it."""

import importlib.util
import sys

import pytest

from hf_pmgaft.compilation import check_compiler


def test_triton_is_what_compiles_for_a_gpu(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="torch_compile, but Triton.*pip install triton"):
        check_compiler("torch_compile", "cuda")
    check_compiler("torch_compile", "xpu")  # of which nothing is known


@pytest.mark.parametrize(("platform", "compiler"), [("linux", "g[+][+]"), ("darwin", "clang[+][+]"), ("win32", "cl")])
def test_each_system_has_its_compiler(monkeypatch, platform, compiler):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(ValueError, match=f"the C.. compiler {compiler}, .*leave compile out"):
        check_compiler("compile", "cpu")
