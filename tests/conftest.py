"""Shared rooms of the tests: a cache of their own, and the embedded encoder loaded once."""

import os
import tempfile

if os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") != "1":  # tests run side by side: each computes with one thread
    os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
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
