"""Of a TorchScript archive the tensors alone are read."""

import pickle
import zipfile

import pytest
import torch
from torch import nn

from hf_pmgaft.models.weights import read_weights


class Half(nn.Module):
    """What OpenAI's files are like: half precision, numbers among the attributes, lists of integers."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)).half()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("context_length", torch.tensor(77))
        self.sizes = [1, 2]

    def forward(self, x):
        return self.blocks(x) * self.scale


def archive(module: nn.Module, file) -> None:
    torch.jit.script(module).save(str(file))


def test_its_tensors_have_the_names_and_values_of_the_module(tmp_path):
    module = Half()
    archive(module, tmp_path / "half.pt")
    weights = read_weights(tmp_path / "half.pt")
    expected = {name: value for name, value in module.state_dict().items() if name != "context_length"}
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_no_loader_of_code_is_called_and_the_code_need_not_even_be_whole(tmp_path, monkeypatch):
    archive(Half(), tmp_path / "half.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *args, **kwargs: pytest.fail("its code was loaded"))
    with zipfile.ZipFile(tmp_path / "half.pt") as whole, zipfile.ZipFile(tmp_path / "broken.pt", "w") as broken:
        for name in whole.namelist():
            broken.writestr(name, b"import os" if "/code/" in name else whole.read(name))
    assert read_weights(tmp_path / "broken.pt").keys() == read_weights(tmp_path / "half.pt").keys()


class Evil:
    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


def test_a_pickle_of_more_than_tensors_is_refused_in_it_too(tmp_path):
    archive(Half(), tmp_path / "half.pt")
    with zipfile.ZipFile(tmp_path / "half.pt") as whole, zipfile.ZipFile(tmp_path / "evil.pt", "w") as evil:
        for name in whole.namelist():
            content = pickle.dumps(Evil(tmp_path / "ran"), protocol=2) if name.endswith("/data.pkl") else None
            evil.writestr(name, content or whole.read(name))
    with pytest.raises(ValueError, match=r"cannot be read as plain weights: it asks for \S*open.*torch\.save\(model"):
        read_weights(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
