"""What a test started: its processes, by their command lines."""

import os
import subprocess
from contextlib import suppress

import psutil
import pytest


def command(process: psutil.Process) -> str:
    """Its command line; empty if it has ended, also if it is a zombie."""
    with suppress(psutil.NoSuchProcess):  # a zombie is one of these
        return " ".join(process.cmdline())
    return ""


def with_variable(name: str, value: str) -> list[psutil.Process]:
    """Living processes other than this one that have an environment variable."""
    matching = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(name) == value and process.pid != os.getpid():
                matching.append(process)
    return [p for p in matching if command(p) and "resource_tracker" not in command(p)]


def started(word: str, pid: int | None = None) -> list[psutil.Process]:
    """Living descendants of a process (this one) that have a word in their command lines."""
    return [
        p for p in psutil.Process(pid or os.getpid()).children(recursive=True) if word in command(p)
    ]


def mount_namespace() -> list[str]:
    """The command that gives a program mounts of its own; the test is skipped without one."""
    reason = ""
    for way in (["unshare", "-rm"], ["unshare", "-m"]):
        mount = [*way, "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"]
        try:
            tried = subprocess.run(mount, capture_output=True, text=True)
        except OSError as error:
            return pytest.skip(f"no namespaces here: {error}")
        if tried.returncode == 0:
            return way
        reason = tried.stderr.strip()
    return pytest.skip(f"no mount namespaces here: {reason}")
