"""Shared rooms of the tests: a cache of their own, and the embedded encoder loaded once."""

import os
import shutil
import tempfile
import uuid

if (
    os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") != "1"
):  # tests run side by side: each computes with one thread
    os.environ |= {
        name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
os.environ.setdefault("MMCLUST_CACHE", tempfile.mkdtemp(prefix="mmclust-test-"))
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import psutil
import pytest
from helpers.processes import command

hypothesis.settings.register_profile(
    "house", deadline=None
)  # the first example of a test imports what it needs
hypothesis.settings.load_profile("house")


@pytest.fixture(scope="session")
def mini():
    import mmclust as mm

    return mm.load_encoder("mini")


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium (or a Chrome), driven by Playwright."""
    program = next(
        filter(
            None,
            map(
                shutil.which,
                ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
            ),
        ),
        None,
    )
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        (pytest.fail if os.environ.get("MMCLUST_BROWSER") == "required" else pytest.skip)(
            "needs Chromium (apt-get install chromium) and playwright (the extra `test`)"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )  # root has no sandbox
        yield browser
        browser.close()


def of_this_test(token: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.environ().get("MMCLUST_TEST") == token
                and process.pid != os.getpid()
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except psutil.Error:
            pass
    return [p for p in found if "resource_tracker" not in command(p)]


@pytest.fixture
def nothing_is_left(monkeypatch):
    """Whatever a test started, its children's children too, is gone at its end."""
    token = uuid.uuid4().hex
    monkeypatch.setenv("MMCLUST_TEST", token)
    yield
    left = psutil.wait_procs(of_this_test(token), timeout=20)[1]
    for process in left:
        process.kill()
    assert not left, [command(p)[:200] for p in left]
