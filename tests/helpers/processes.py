"""What a test started: its processes, by their command lines."""

import os
from contextlib import suppress

import psutil


def command(process: psutil.Process) -> str:
    """Its command line; empty when it has ended, also when nobody has asked for its exit code yet."""
    with suppress(psutil.NoSuchProcess):  # a zombie is one of these
        return " ".join(process.cmdline())
    return ""


def started(word: str, pid: int | None = None) -> list[psutil.Process]:
    """Living children, and their children, of a process (this one) that have a word in their command lines."""
    return [
        p for p in psutil.Process(pid or os.getpid()).children(recursive=True) if word in command(p)
    ]
