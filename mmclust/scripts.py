"""What scripts and commands need: a guard around the code that starts processes, and output that
any console can print."""

from __future__ import annotations

import inspect
import io
import linecache
import sys
import traceback
from multiprocessing.spawn import get_preparation_data


def print_any_text() -> None:
    """Print letters that the console lacks as escapes such as "\\u7167", instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # stderr does so by itself
        sys.stdout.reconfigure(errors="backslashreplace")


def require_main_guard() -> None:
    """Raise RuntimeError if the running script has no guard above the line that calls this.

    multiprocessing imports the script in new processes. Without a guard they would start processes
    as well, which fails there without a word, and the script would wait forever.
    """
    path = get_preparation_data("").get("init_main_from_path", "")  # not of a notebook
    for frame, line in traceback.walk_stack(inspect.currentframe()):
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == ("__main__", "<module>"):
            above = linecache.getlines(path)[:line]
            if above and "__name__" not in "".join(above):
                raise RuntimeError(
                    f"{path}, line {line}, starts processes, which import this script: indent its "
                    'code under `if __name__ == "__main__":`'
                )
