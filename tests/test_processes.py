"""The helpers that count processes."""

import subprocess
import sys

import psutil
from helpers.processes import command, started


def test_a_process_that_has_just_ended_is_not_a_failure():
    child = subprocess.Popen(
        [sys.executable, "-c", "input()", "a word of its own"], stdin=subprocess.PIPE
    )
    assert [p.pid for p in started("a word of its own")] == [child.pid]
    child.stdin.close()
    process = psutil.Process(child.pid)
    while process.status() != psutil.STATUS_ZOMBIE:  # nobody has waited for it
        pass
    assert command(process) == "" and not started("a word of its own")
    child.wait()
    assert command(process) == ""
