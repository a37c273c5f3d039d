"""Run the notebooks that are out of date and write all figures and tables to figures/index.html."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from mmclust.pipeline.execution import Outcome

ROOT = Path(__file__).parent
NOTEBOOKS = ROOT / "notebooks"
LOG_WIDTH = 200  # columns, where the output is not a terminal
LOG_SECONDS = 60  # between two lines of progress in a log
RESUME = ": finished results are stored, the next run continues from them"


def clock(seconds: float) -> str:
    """Seconds as a text: 65 as "1:05", and from ten hours on as "11 h 05"."""
    seconds = max(0, round(seconds))
    if seconds >= 36000:
        return f"{seconds // 3600} h {seconds // 60 % 60:02d}"
    return f"{seconds // 60}:{seconds % 60:02d}"


def remaining(seconds: float) -> str:
    return f"about {clock(seconds)} left" if seconds >= 1 else "longer than expected"


def parameter(text: str) -> tuple[str, Any]:
    """The name and the value of "n=200": YAML, but texts are taken as they were typed."""
    from mmclust.profiles.values import type_of

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    if value in ("", "null"):
        return name, None if value else ""
    kind = type_of(name)
    if kind in ("text", "phrase"):
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        return name, value[1:-1] if quoted else value
    try:  # in lists of texts, words such as yes and 01 stay as they were typed
        return name, yaml.load(value, yaml.BaseLoader if kind == "texts" else yaml.SafeLoader)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or "it can't be read"
        raise argparse.ArgumentTypeError(
            f"the value of {text!r} is not valid YAML ({reason}): write a list as '[a, b]'"
        ) from None


class Progress:
    """Prints the progress of a run; its method `on_event` is the callback of `reproduce`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.status = console.status("")
        self.printed = time.time()
        self.resume = ""  # what to add to an error

    def on_event(self, event: str, subject: Any, seconds_left: float) -> None:
        if event in ("wait", "cluster", "folder"):
            self.console.print(escape(subject), soft_wrap=True)
        elif event == "start":
            self.resume = RESUME
            if not self.console.is_terminal:
                self.console.print(f"  start {subject}  ({remaining(seconds_left)})")
        elif event == "tick":
            self.tick(subject, seconds_left)
        elif event == "end":
            self.end(subject)

    def tick(self, rows: dict[str, tuple[int, int, int]], seconds_left: float) -> None:
        running = [
            f"{name} {stored + done} of {asked} rows so far" if asked else name
            for name, (asked, stored, done) in rows.items()
        ]
        text = f"{', '.join(running)}  ({remaining(seconds_left)})"
        self.status.update(text)
        if not self.console.is_terminal and time.time() - self.printed > LOG_SECONDS:
            self.printed = time.time()
            self.console.print(f"     at {text}")

    def end(self, outcome: Outcome) -> None:
        color = "green" if outcome.status == "done" else "red"
        line = f"[{color}]{outcome.status:>7}[/] {outcome.notebook}  {clock(outcome.seconds)}"
        if outcome.rows:
            line += f"  {outcome.rows} rows, {outcome.stored} of them stored before"
        self.console.print(line)
        for finding in outcome.findings:
            self.console.print(f"        {escape(finding)}", soft_wrap=True)
        for warning in outcome.warnings:
            self.console.print(f"        [yellow]{escape(warning)}[/]", soft_wrap=True)


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile", default="demo", help="demo, photo, paper, or a YAML file of your own"
    )
    parser.add_argument(
        "--device", default="cpu", help="torch device of the encoders, such as cuda"
    )


def base_url(text: str) -> str:
    """The path of a page behind a proxy as "/", "/demo/" or "/a/b/"."""
    folders = [folder for folder in text.split("/") if folder]
    if not all(re.fullmatch(r"[\w~-][\w.~-]*", folder, re.ASCII) for folder in folders):
        rule = "give the path of the page behind the proxy, such as /demo/, in letters and digits"
        raise argparse.ArgumentTypeError(f"invalid path {text!r}: {rule}")
    return "/" + "".join(f"{folder}/" for folder in folders)


def explore(arguments: list[str]) -> int:
    """`run_all.py explore`: show the explorer as a web page."""
    parser = argparse.ArgumentParser(
        prog="run_all.py explore",
        description="Show the explorer (notebook 16) as a web page until it is stopped (Ctrl-C).",
    )
    parser.add_argument("--port", type=int, default=8866)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; the default is reachable from this machine only, any other "
        "requires the token that is printed",
    )
    parser.add_argument(
        "--base-url",
        type=base_url,
        default="/",
        help="path of the page behind a reverse proxy, such as /demo/; requires the token, too",
    )
    add_shared_arguments(parser)
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    args = parser.parse_args(arguments)
    from mmclust.explorer.server import serve
    from mmclust.profiles import settings
    from mmclust.threads import check_device

    try:
        check_device(args.device)
        settings("16_explorer", args.profile)
        notebook = NOTEBOOKS / "16_explorer.ipynb"
        browser = not args.no_browser
        where = (args.host, args.port, args.profile, args.device, browser, args.base_url)
        serve(notebook, *where)
    except (ImportError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while it starts
        return 130
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run_all.py",
        description=__doc__,
        epilog="run_all.py explore shows the explorer as a web page: run_all.py explore --help.",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NOTEBOOK",
        help="run only these, such as 00 or 00_quickstart; teaching: the lessons and the explorer",
    )
    parser.add_argument(
        "-p",
        dest="parameters",
        action="append",
        default=[],
        type=parameter,
        metavar="NAME=VALUE",
        help="set a parameter of the notebooks, such as data=DIR, criterion=color or "
        "words='[red, blue]'; the value is read as YAML",
    )
    add_shared_arguments(parser)
    parser.add_argument(
        "--jobs", type=int, help="notebooks at the same time (default: one per worker, or core)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="processes that compute experiments (default: one per GPU, or per core if there are "
        "more than two); 0: each notebook computes its own",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="compute on the workers of a running Dask scheduler, such as tcp://127.0.0.1:8786",
    )
    parser.add_argument(
        "--out", default=str(ROOT / "figures"), help="output folder (default: figures/)"
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of the papers' data sets; missing ones are downloaded to it (default: "
        "MMCLUST_DATA, or a folder in the cache)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would run, be downloaded and be asked, and how long it may take",
    )
    parser.add_argument(
        "--force", action="store_true", help="also run notebooks that are up to date"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status.

    0: all notebooks are done or up to date. 1: a notebook failed. 2: invalid arguments, no
    connection to the scheduler, or a disk that cannot be written. 130: stopped by Ctrl-C.
    """
    from mmclust import plugins, scripts

    scripts.print_any_text()
    if not NOTEBOOKS.is_dir():
        print(f"run_all.py needs {NOTEBOOKS}, which is missing: clone the repository")
        return 2
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["explore"]:
        return explore(arguments[1:])
    args = parse(arguments)
    if args.data_dir:
        os.environ["MMCLUST_DATA"] = str(Path(args.data_dir).expanduser().resolve())
    console = Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)
    try:
        plugins.add_search_path(os.getcwd())  # for "module:name" of a plug-in
    except FileNotFoundError:
        console.print("[red]the working directory no longer exists: change to another one[/]")
        return 2
    progress = Progress(console)
    try:
        return dry_run(console, args) if args.dry_run else run(progress, args)
    except (ValueError, OSError) as error:
        console.print(f"[red]{escape(str(error))}[/]{progress.resume}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print(f"stopped{progress.resume}")
        return 130


def run(progress: Progress, args: argparse.Namespace) -> int:
    from mmclust.pipeline.notebooks import reproduce

    start = time.time()
    console = progress.console
    with progress.status:
        outcomes = reproduce(
            only=args.only,
            parameters=dict(args.parameters),
            profile=args.profile,
            device=args.device,
            jobs=args.jobs,
            out=args.out,
            force=args.force,
            scheduler=args.scheduler,
            workers=args.workers,
            on_event=progress.on_event,
            notebooks=NOTEBOOKS,
        )
    count = {"done": 0, "up to date": 0, "failed": 0}
    table = Table("notebook", "where", "error", title="failed")
    for outcome in outcomes:
        count[outcome.status] += 1
        if outcome.status == "failed":
            table.add_row(outcome.notebook, escape(outcome.where), escape(outcome.error))
    if table.rows:
        console.print(table)
    summary = ", ".join(f"{number} {status}" for status, number in count.items())
    seconds = clock(time.time() - start)
    console.print(f"{summary} in {seconds}: {args.out}/index.html", soft_wrap=True)
    return 1 if count["failed"] else 0


def dry_run(console: Console, args: argparse.Namespace) -> int:
    from mmclust.pipeline.notebooks import plan
    from mmclust.pipeline.preflight import needs

    parameters = dict(args.parameters)
    choice = (args.only, parameters, args.profile, args.device, args.out, args.force)
    todo, fresh = plan(*choice, notebooks=NOTEBOOKS)
    title = f"would run, profile {args.profile}, on {args.device}"
    table = Table("notebook", "expected time", "source of the time", title=title)
    for name, job in todo.items():
        source = "its last run here" if job.measured else "the profile, on its author's machine"
        table.add_row(name, clock(job.seconds), source)
    console.print(table)
    console.print(f"{len(fresh)} up to date: {', '.join(fresh) or 'none'}", soft_wrap=True)
    for heading, sentences in needs(list(todo), args.profile, parameters).items():
        console.print(f"[bold]{heading}[/]")
        for sentence in sentences:
            console.print(f"  {escape(sentence)}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
