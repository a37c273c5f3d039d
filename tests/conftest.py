"""Shared by all tests: a cache of their own, the embedded encoder, a browser, no processes left."""

import os

# Before anything imports torch, also in the processes of pytest-xdist: threads that wait spin only
# briefly (see mmclust/threads.py, which must not be imported before this).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
if os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") != "1":  # tests side by side: one thread each
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

import shutil
import tempfile
import uuid

os.environ.setdefault("MMCLUST_CACHE", tempfile.mkdtemp(prefix="mmclust-test-"))
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import psutil
import pytest
from helpers.processes import command, with_variable

# Without a deadline: the first example of a test imports what it needs.
hypothesis.settings.register_profile("mmclust", deadline=None)
hypothesis.settings.load_profile("mmclust")
LONGEST_FILES = ("test_paper_profile.py", "test_pipeline.py")  # with `-m slow`
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pytest_collection_modifyitems(items):
    """The longest files first, so that two workers end at nearly the same time."""
    items.sort(key=lambda item: item.path.name not in LONGEST_FILES)


@pytest.fixture(scope="session")
def mini():
    import mmclust as mm

    return mm.load_encoder("mini")


def missing(what):
    """Skip the test that needs a program, or fail where all programs must be there."""
    required = os.environ.get("MMCLUST_BROWSER") == "required"
    (pytest.fail if required else pytest.skip)(f"needs {what}")


@pytest.fixture(scope="session")
def nginx():
    path = f"{os.environ['PATH']}:/usr/sbin"
    return shutil.which("nginx", path=path) or missing("nginx (apt-get install nginx-light)")


@pytest.fixture(scope="module")
def chromium():
    """Chromium or Chrome, controlled by Playwright."""
    programs = [path for path in map(shutil.which, BROWSERS) if path]
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        programs = []
    if not programs:
        missing("Chromium (apt-get install chromium) and playwright (the extra `test`)")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    options = ["--no-sandbox"] if root else []  # the sandbox refuses root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=programs[0], args=options)
        yield browser
        browser.close()


@pytest.fixture
def nothing_is_left(monkeypatch):
    """All processes that a test started, and their descendants, have ended at its end."""
    token = uuid.uuid4().hex
    monkeypatch.setenv("MMCLUST_TEST", token)
    yield
    left = psutil.wait_procs(with_variable("MMCLUST_TEST", token), timeout=20)[1]
    for process in left:
        process.kill()
    assert not left, [command(process)[:200] for process in left]
