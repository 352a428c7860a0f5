"""Eight images, two of each class in turn."""

import datasets
import pytest
from support.tiny import make_images


@pytest.fixture(scope="session")
def eight() -> datasets.Dataset:
    return make_images(8)
