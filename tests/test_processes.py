"""The helpers of the tests that list processes."""

import subprocess
import sys

import psutil
from helpers.processes import command, started


def test_a_process_that_has_just_ended_is_not_listed():
    child = subprocess.Popen(
        [sys.executable, "-c", "input()", "a unique word"], stdin=subprocess.PIPE
    )
    assert [process.pid for process in started("a unique word")] == [child.pid]
    child.stdin.close()
    process = psutil.Process(child.pid)
    while process.status() != psutil.STATUS_ZOMBIE:  # its exit code has not been read
        pass
    assert command(process) == "" and not started("a unique word")
    child.wait()
    assert command(process) == ""
