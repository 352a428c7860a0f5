"""One thread, no Hub, the options of our own, and the tiny model with its processor and images as fixtures."""

import os
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import datasets
import pytest
import torch
from support.hub_runs import files_of
from support.hub_server import HubServer, own_hub
from support.options import fail_if_it_lacks, is_in_third
from support.tiny import make_images, make_model, make_processor
from transformers import CLIPModel, CLIPProcessor

# ---- Options ----


def pytest_addoption(parser):
    parser.addoption("--third", metavar="COMMIT", help="run a third of the tests, which the commit's hash decides")
    parser.addoption(
        "--must-have", action="append", default=[], metavar="MODULE", help="a test that skips for want of it fails"
    )
    parser.addoption("--screenshots", metavar="FOLDER", help="keep what browser tests saw in this folder")
    parser.addoption("--write", action="store_true", help="write the pages that tests compare: docs/recipes.md")


def pytest_collection_modifyitems(config, items):
    commit = config.getoption("third")
    if commit:
        others = [item for item in items if not is_in_third(item, commit)]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    return fail_if_it_lacks(report, item.config.getoption("must_have"))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    return fail_if_it_lacks(report, collector.config.getoption("must_have"))


# ---- Fixtures ----


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


@pytest.fixture(scope="session")
def clip_files() -> dict[str, bytes]:
    """The files of a small CLIP with its processor."""
    return files_of(make_model(), make_processor())


@pytest.fixture
def impatient(monkeypatch) -> list[float]:
    """Waits between attempts take no time; how long they would have been."""
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    return waits
