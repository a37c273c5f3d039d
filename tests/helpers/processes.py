"""The processes that a test started, by their command lines."""

import os
from contextlib import suppress

import psutil


def command(process: psutil.Process) -> str:
    """Its command line; empty once it has ended, even if its exit code was not read yet."""
    with suppress(psutil.NoSuchProcess):  # a zombie process is one of these
        return " ".join(process.cmdline())
    return ""


def started(word: str, pid: int | None = None) -> list[psutil.Process]:
    """Living descendants of a process (of this one by default) with a word in their commands."""
    descendants = psutil.Process(pid or os.getpid()).children(recursive=True)
    return [process for process in descendants if word in command(process)]


def with_variable(name: str, value: str) -> list[psutil.Process]:
    """Living processes other than this one that have an environment variable."""
    matching = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(name) == value and process.pid != os.getpid():
                matching.append(process)
    return [p for p in matching if command(p) and "resource_tracker" not in command(p)]
