"""Rebuild the figures: `python run_all.py` runs the notebooks that are not up to date and writes `figures/index.html`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def clock(seconds: float) -> str:
    seconds = max(0, round(seconds))
    return (
        f"{seconds // 3600} h {seconds // 60 % 60:02d}"
        if seconds >= 36000
        else f"{seconds // 60}:{seconds % 60:02d}"
    )


def remaining(seconds: float) -> str:
    return f"about {clock(seconds)} left" if seconds >= 1 else "longer than expected"


def explore(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="run_all.py explore",
        description="Show the explorer, notebook 16, as a web page until it is stopped (Ctrl-C).",
    )
    parser.add_argument("--port", type=int, default=8866)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to bind to (default: this machine alone); another needs the token that is printed",
    )
    parser.add_argument("--profile", default="demo", help="demo, or a YAML file of your own")
    parser.add_argument(
        "--device", default="cpu", help="torch device of the encoders, such as cuda"
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address, and open nothing"
    )
    args = parser.parse_args(given)
    from mmclust.explorer.server import serve

    try:
        serve(
            Path(__file__).parent / "notebooks" / "16_explorer.ipynb",
            args.host,
            args.port,
            args.profile,
            args.device,
            not args.no_browser,
        )
    except (ImportError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def main() -> int:
    if sys.argv[1:2] == ["explore"]:
        return explore(sys.argv[2:])
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="`run_all.py explore` shows the explorer as a web page; see `run_all.py explore --help`.",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NOTEBOOK",
        help="run these alone, such as 00_quickstart or 00; teaching: those that teach",
    )
    parser.add_argument(
        "-p",
        dest="parameters",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a parameter of the notebooks",
    )
    parser.add_argument("--profile", default="demo", help="demo, paper, or a YAML file of your own")
    parser.add_argument(
        "--device", default="cpu", help="torch device of the encoders, such as cuda"
    )
    parser.add_argument(
        "--jobs", type=int, help="notebooks at the same time (default: one per worker)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="processes that compute experiments (default: one per GPU, or core where there are more than two; 0: the notebooks do it themselves)",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="compute on the workers of a running Dask scheduler, such as tcp://127.0.0.1:8786",
    )
    parser.add_argument(
        "--out",
        default=str(Path(__file__).parent / "figures"),
        help="output folder (default: figures/)",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where the papers' data lie or are downloaded to (default: MMCLUST_DATA, else in the cache)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would run, be downloaded and asked, and how long that may take; do nothing",
    )
    parser.add_argument("--force", action="store_true", help="run what is up to date, too")
    args = parser.parse_args()
    if args.data_dir:
        os.environ["MMCLUST_DATA"] = str(Path(args.data_dir).expanduser().resolve())
    from mmclust import plugins
    from mmclust.experiments import run_log
    from mmclust.pipeline.notebooks import parse_parameters, reproduce

    plugins.add_search_path(str(Path.cwd()))  # for "module:thing" of your own
    console, start, said = (
        Console(highlight=False, width=None if sys.stdout.isatty() else 200),
        time.time(),
        time.time(),
    )  # a log is not 80 columns wide
    status = console.status("")

    def on_event(event, what, left):
        nonlocal said
        if event == "end":
            color, rows = (
                "green" if what.status == "done" else "red",
                f"  {what.rows} rows, {what.stored} of them stored before" if what.rows else "",
            )
            console.print(
                f"[{color}]{what.status:>7}[/] {what.notebook}  {clock(what.seconds)}{rows}"
            )
        elif event in ("wait", "cluster"):
            console.print(what, soft_wrap=True)
        elif event == "start" and not console.is_terminal:
            console.print(f"  start {what}  ({remaining(left)})")
        elif event == "tick":
            at = ", ".join(
                f"{name} {stored + done} of {asked} rows" if asked else name
                for name, (asked, stored, done) in what.items()
            )
            status.update(f"{at}  ({remaining(left)})")
            if not console.is_terminal and time.time() - said > 60:
                said = time.time()
                console.print(f"     at {at}  ({remaining(left)})")

    try:
        if args.dry_run:
            return dry_run(console, args)
        with status:
            outcomes = reproduce(
                args.only,
                parse_parameters(args.parameters),
                args.profile,
                args.device,
                args.jobs,
                args.out,
                args.force,
                args.scheduler,
                args.workers,
                on_event,
            )
    except (ValueError, ConnectionError) as error:
        console.print(f"[red]{escape(str(error))}[/]", soft_wrap=True)
        return 2
    except OSError as error:
        console.print(
            f"[red]{escape(str(error))}[/]: what was finished is kept, the next run goes on from there",
            soft_wrap=True,
        )
        return 2
    except KeyboardInterrupt:
        console.print("stopped; what was finished is kept, the next run goes on from there")
        return 130
    failed = [o for o in outcomes if o.status == "failed"]
    if failed:
        table = Table("notebook", "where", "error", title="failed")
        for outcome in failed:
            table.add_row(outcome.notebook, escape(outcome.where), escape(outcome.error))
        console.print(table)
    slowest = run_log.slowest(start)
    if len(slowest) and time.time() - start > 60:
        table = Table(
            "seconds",
            "method",
            "data set",
            "criterion",
            "seed",
            "pictures",
            "rows",
            title="the slowest fits",
        )
        for fit in slowest.itertuples():
            table.add_row(
                f"{fit.fit_seconds:.1f}",
                fit.method,
                fit.dataset,
                fit.criterion,
                *map(str, (fit.seed, fit.n, fit.rows)),
            )
        console.print(table)
    fresh = sum(o.status == "up to date" for o in outcomes)
    console.print(
        f"{len(outcomes) - fresh - len(failed)} done, {fresh} up to date, {len(failed)} failed in {clock(time.time() - start)}: {args.out}/index.html",
        soft_wrap=True,
    )
    return 1 if failed else 0


def dry_run(console: Console, args: argparse.Namespace) -> int:
    from mmclust.pipeline.notebooks import parse_parameters, plan
    from mmclust.pipeline.preflight import needs

    given = parse_parameters(args.parameters)
    todo, fresh = plan(args.only, given, args.profile, args.device, args.out, args.force)
    table = Table(
        "notebook",
        "about",
        "where that is from",
        title=f"would run, profile {args.profile}, on {args.device}",
    )
    for name, job in todo.items():
        table.add_row(
            name,
            clock(job.seconds),
            "its last run here"
            if job.measured
            else "the profile, for the machine it was written on",
        )
    console.print(table)
    console.print(f"{len(fresh)} up to date: {', '.join(fresh) or 'none'}", soft_wrap=True)
    for what, sentences in needs(list(todo), args.profile, given).items():
        console.print(f"[bold]{what}[/]")
        for sentence in sentences:
            console.print(f"  {escape(sentence)}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
