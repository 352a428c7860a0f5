"""One thread, no Hub, and the tiny model with its processor and images as fixtures."""

import os
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import datasets
import pytest
import torch
from support.hub_server import HubServer, own_hub
from support.tiny import make_images, make_model, make_processor
from transformers import CLIPModel, CLIPProcessor


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def model() -> CLIPModel:
    return make_model()


@pytest.fixture(scope="session")
def processor() -> CLIPProcessor:
    return make_processor()


@pytest.fixture(scope="session")
def images() -> datasets.Dataset:
    return make_images()


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[HubServer]:
    """A Hub on loopback that this process talks to as the user `user`; nothing is cached before."""
    with own_hub(monkeypatch, tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def golden() -> dict:
    import json
    from pathlib import Path

    return json.loads((Path(__file__).parent / "golden" / "objectives.json").read_text())
