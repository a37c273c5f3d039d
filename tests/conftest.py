"""Shared rooms of the tests: a cache of their own, and the embedded encoder loaded once."""

import os
import tempfile

os.environ.setdefault("MMCLUST_CACHE", tempfile.mkdtemp(prefix="mmclust-test-"))
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import pytest

hypothesis.settings.register_profile("house", deadline=None)  # the first example of a test imports what it needs
hypothesis.settings.load_profile("house")


@pytest.fixture(scope="session")
def mini():
    import mmclust as mm

    return mm.load_encoder("mini")
