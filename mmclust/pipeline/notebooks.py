"""Execute the notebooks that are not up to date, and lay what they leave out in one folder."""

from __future__ import annotations

import ast
import hashlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import filelock
import psutil
import yaml

from mmclust import plugins, storage
from mmclust.experiments import dask_backend, run_log
from mmclust.pipeline.preflight import own_folder
from mmclust.profiles import load_profile
from mmclust.results.output import STATE
from mmclust.threads import cores
from mmclust.words import reviewed_answers

PACKAGE = Path(__file__).parents[1]
NOTEBOOKS = PACKAGE.parent / "notebooks"


@dataclass
class Outcome:
    """How one notebook ended: "done", "failed" or "up to date"; it asked for `rows`, `stored` of which were there before."""

    notebook: str
    status: str
    seconds: float = 0.0
    error: str = ""
    where: str = ""
    outputs: list[str] = field(default_factory=list)
    rows: int = 0
    stored: int = 0


OnEvent = Callable[
    [str, Any, float], None
]  # what happened (see `reproduce`), what it is about, and the expected seconds that are left


@dataclass
class Job:
    """A notebook that is to be run: its source, parameters and output folder, how long it will take about (`measured`: it took that long here), and
    whether nothing may run beside it."""

    source: Path
    parameters: dict
    out: Path
    seconds: float
    alone: bool
    stamp: str
    measured: bool = False

    @property
    def progress(self) -> Path:
        return self.out / STATE / f"{self.source.stem}.progress"


def parse_parameters(pairs: list[str]) -> dict:
    """`["n=200", "keywords=[color]"]` to a dictionary; values are read as YAML."""
    parameters = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"-p takes name=value, not {pair!r}")
        parameters[name] = yaml.safe_load(value) if value else ""
    return parameters


def select(only: list[str] | None, profile: str) -> list[str]:
    """The profile's notebooks in order, those marked `teaching` left out; or those of all that `only` names: in full, by the beginning, such as
    "00", or all that teach by "teaching".

    Raises:
        ValueError: when `only` names none of them.
    """
    entries = load_profile(profile)["notebooks"]
    known, teaching = (
        list(entries),
        [name for name, entry in entries.items() if entry.get("teaching")],
    )
    if not only:
        return [name for name in known if name not in teaching]
    chosen = []
    for name in only:
        matches = (
            teaching
            if name == "teaching"
            else [
                k
                for k in known
                if k == name or k.startswith(f"{name}_") or k == name.removesuffix(".ipynb")
            ]
        )
        if not matches:
            raise ValueError(f"no notebook {name!r} in profile {profile!r}: {', '.join(known)}")
        chosen += matches
    return [k for k in known if k in chosen]


def notebook_parameters(path: Path) -> set[str]:
    """Names that the cell tagged "parameters" assigns."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "\n".join(
        "".join(c["source"]) for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])
    )
    return {
        t.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        for t in node.targets
        if isinstance(t, ast.Name)
    }


def stamp(path: Path, parameters: dict) -> str:
    """A hash of all that a notebook's outputs depend on: its source, its parameters, the package, and a folder that it is pointed at."""
    digest = hashlib.sha256(
        path.read_bytes() + json.dumps(parameters, sort_keys=True, default=str).encode()
    )
    for file in sorted(PACKAGE.rglob("*")):
        if file.suffix in (".py", ".yaml", ".csv"):
            digest.update(file.read_bytes())
        elif file.suffix == ".safetensors":
            digest.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}".encode())
    if Path(profile := parameters.get("profile", "")).is_file():  # one's own
        digest.update(Path(profile).read_bytes())
    for name in plugins.names_in(
        [parameters, load_profile(profile)["notebooks"].get(path.stem, {}) if profile else {}]
    ):
        digest.update(plugins.source(name).encode())
    if (
        profile and load_profile(profile).get("source", "lexicon") != "lexicon"
    ):  # a person may edit answers
        for file in sorted(reviewed_answers.folder().glob("*.yaml")):
            digest.update(file.name.encode() + file.read_bytes())
    folder = parameters.get("data")
    if isinstance(folder, str) and Path(folder).is_dir():
        for file in sorted(Path(folder).rglob("*")):
            digest.update(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def reproduce(
    only: list[str] | None = None,
    parameters: dict | None = None,
    profile: str = "demo",
    device: str = "cpu",
    jobs: int | None = None,
    out: str | Path = "figures",
    force: bool = False,
    scheduler: str | None = None,
    workers: int | None = None,
    on_event: OnEvent = lambda *_: None,
    notebooks: Path = NOTEBOOKS,
) -> list[Outcome]:
    """Run the selected notebooks and write `out/index.html`. A failing notebook does not stop the others.

    Notebooks ask for experiments; the workers of one Dask cluster compute them, or the notebooks' own kernels, each once. A run that finds another
    at work in `out` waits for it.

    Args:
        only: notebooks by name or number, or "teaching"; by default all of the profile that regenerate a table or figure (see `select`).
        parameters: values for the notebooks' parameters cells; a folder's path is made absolute.
        jobs: notebooks at the same time; None: as many as there are workers, or cores.
        scheduler: address of a Dask scheduler whose workers compute; None takes that in `MMCLUST_SCHEDULER`, and without one starts a scheduler
            here, and its workers when an experiment is asked for that is not stored (`dask_backend.local_cluster`).
        workers: how many of them; None: one per GPU, or per core where there are more than two; 0: no cluster, each notebook computes in its own
            kernel, which on two cores is the faster way: scheduler and workers take time from the fits.
        notebooks: the folder of their sources.
        on_event: called with an event, what it is about, and the expected seconds that are left: "wait" or "cluster" with a sentence, "start" with a
            notebook's name, "end" with its outcome, and every second "tick" with notebook -> rows (asked for, stored before, computed since).

    Returns:
        One outcome per selected notebook, in order.

    Raises:
        ValueError: for an unknown notebook or profile, a parameter that no selected notebook has, or a folder of one's own that can't be taken.
        ConnectionError: no scheduler answers.
        OSError: `out` can't be written.
    """
    from mmclust.pipeline.gallery import write_index

    out = Path(out).resolve()
    outcomes: dict[str, Outcome] = {}
    with _one_at_a_time(out, on_event):
        todo, fresh = plan(only, parameters, profile, device, out, force, notebooks)
        outcomes |= fresh
        made = (
            {"profile": profile, "device": device, "versions": versions(), "commit": commit()}
            if todo
            else {}
        )

        def done(outcome: Outcome) -> None:
            job = todo[outcome.notebook]
            given = {k: v for k, v in job.parameters.items() if k != "out"}
            state = (
                asdict(outcome)
                | made
                | {
                    "stamp": job.stamp if outcome.status == "done" else "",
                    "parameters": given,
                    "time": time.time(),
                }
            )
            state["seeds"] = seeds(
                job.parameters, load_profile(profile)["notebooks"][outcome.notebook]
            )
            before = set(_read_state(out, outcome.notebook).get("outputs", []))
            storage.write_atomically(
                out / STATE / f"{outcome.notebook}.json", json.dumps(state, indent=1).encode()
            )
            for file in (
                before - set(outcome.outputs) if outcome.status == "done" else []
            ):  # of other parameters: not to be taken for this run's
                (out / file).unlink(missing_ok=True)
            outcomes[outcome.notebook] = outcome

        if todo:
            with _workplace(
                scheduler or os.environ.get(dask_backend.ADDRESS), device, workers, on_event
            ) as (address, places, look, rest):
                _run(todo, jobs or places, address, look, rest, done, on_event)
        write_index(out, profile)
    return [outcomes[name] for name in select(only, profile)]


def plan(
    only: list[str] | None = None,
    parameters: dict | None = None,
    profile: str = "demo",
    device: str = "cpu",
    out: str | Path = "figures",
    force: bool = False,
    notebooks: Path = NOTEBOOKS,
) -> tuple[dict[str, Job], dict[str, Outcome]]:
    """What `reproduce` with these arguments would run, by name, and the notebooks that are up to date. Nothing is written.

    Raises:
        ValueError: as `reproduce`.
    """
    out = Path(out).resolve()
    names, settings = select(only, profile), load_profile(profile)["notebooks"]
    given = dict(parameters or {})
    if isinstance(given.get("data"), str) and Path(given["data"]).expanduser().exists():
        given["data"] = str(Path(given["data"]).expanduser().resolve())
    takes = {name: notebook_parameters(notebooks / f"{name}.ipynb") for name in names}
    if unknown := given.keys() - set().union(*takes.values()):
        raise ValueError(
            f"no selected notebook has a parameter {sorted(unknown)[0]!r}; {', '.join(f'{n}: {sorted(p)}' for n, p in takes.items())}"
        )
    if Path(profile).suffix in (".yaml", ".yml"):
        profile = str(Path(profile).resolve())  # kernels run in the notebooks' folder
    for name in names:
        if (
            isinstance(given.get("data"), str) and "data" in settings[name]
        ):  # what is wrong with it is told before anything starts
            own_folder({**settings[name], "source": load_profile(profile).get("source"), **given})
    todo, fresh = {}, {}
    for name in names:
        values = {"profile": profile, "device": device, "out": str(out)} | given
        values = {k: v for k, v in values.items() if k in takes[name]}
        key, state = stamp(notebooks / f"{name}.ipynb", values), _read_state(out, name)
        if (
            not force
            and state.get("stamp") == key
            and all((out / f).exists() for f in state["outputs"])
        ):
            fresh[name] = Outcome(name, "up to date", outputs=state["outputs"])
        else:
            seconds = state.get("seconds") or settings[name].get("seconds", 60)
            todo[name] = Job(
                notebooks / f"{name}.ipynb",
                values,
                out,
                seconds,
                settings[name].get("alone", False),
                key,
                "seconds" in state,
            )
    return todo, fresh


@contextmanager
def _one_at_a_time(out: Path, on_event: OnEvent) -> Iterator[None]:
    """Wait until no other run writes to `out`. The lock goes with its process, however that ends."""
    (out / STATE).mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / STATE / "lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        on_event("wait", f"another run writes to {out}: waiting for its end", 0)
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _workplace(
    address: str | None, device: str, workers: int | None, on_event: OnEvent
) -> Iterator[tuple[str | None, int, Callable[[], None], Callable[[], None]]]:
    """Where experiments are computed: a scheduler's address (None: in the kernels), notebooks at a time, and what to call every second and
    before a notebook that runs alone."""
    if address:
        with dask_backend.connect(address) as client:
            on_event(
                "cluster",
                f"computing on {len(client.scheduler_info()['workers'])} workers at {address}, dashboard at {client.dashboard_link}",
                0,
            )
        yield address, cores(), lambda: None, lambda: None
    elif workers == 0 or (
        workers is None and device == "cpu" and cores() <= dask_backend.FEW_CORES
    ):
        if workers is None:
            on_event(
                "cluster",
                f"{cores()} cores: the notebooks compute for themselves; --workers {cores()} starts a cluster",
                0,
            )
        yield None, cores() if device == "cpu" else 1, lambda: None, lambda: None
    else:
        cluster: Any  # with `most`, see there
        with dask_backend.local_cluster(device, workers, start=False) as cluster:
            on_event(
                "cluster",
                f"{cluster.most} workers as soon as they are needed, dashboard at {cluster.dashboard_link}",
                0,
            )
            yield (
                cluster.scheduler_address,
                cluster.most,
                partial(dask_backend.start_workers, cluster),
                partial(dask_backend.stop_workers, cluster),
            )


def _run(
    todo: dict[str, Job],
    jobs: int,
    address: str | None,
    look: Callable,
    rest: Callable,
    done: Callable,
    on_event: OnEvent,
) -> None:
    """Run notebooks, so many at a time; `done` gets each outcome as it comes, `look` is called every second, `rest` before one that runs alone."""
    # the longest first, so that no core is idle at the end; what runs alone, because it measures times, comes last
    waiting = sorted(
        todo, key=lambda name: (todo[name].alone, -todo[name].seconds if jobs > 1 else 0)
    )
    jobs = max(1, min(jobs, sum(not job.alone for job in todo.values())))
    slots = [NotebookWorker() for _ in range(jobs)]
    started: dict[str, float] = {}

    def left() -> float:
        ahead = {name: todo[name].seconds for name in waiting} | {
            name: max(0, todo[name].seconds - time.time() + t) for name, t in started.items()
        }
        return sum(seconds / (1 if todo[name].alone else jobs) for name, seconds in ahead.items())

    try:
        while waiting or started:
            for slot in slots:
                if (
                    waiting
                    and not slot.name
                    and not (
                        started
                        and (todo[waiting[0]].alone or any(todo[name].alone for name in started))
                    )
                ):
                    name = waiting.pop(0)
                    if todo[name].alone:
                        rest()
                    started[name] = time.time()
                    slot.start(name, todo[name], jobs, address)
                    on_event("start", name, left())
            ready = wait([slot.pipe for slot in slots if slot.name], timeout=1)
            look()
            on_event(
                "tick",
                {name: run_log.read_progress(todo[name].progress) for name in started},
                left(),
            )
            for slot in [slot for slot in slots if slot.pipe in ready]:
                outcome = slot.result()
                outcome.rows, outcome.stored, _ = run_log.read_progress(
                    todo[outcome.notebook].progress
                )
                todo[outcome.notebook].progress.unlink(missing_ok=True)
                del started[outcome.notebook]
                done(outcome)
                on_event("end", outcome, left())
    finally:
        for slot in slots:
            slot.end()


class NotebookWorker:
    """A process that runs one notebook after the other: the `name` of the one that it is at, and the `pipe` that its outcome comes through."""

    def __init__(self) -> None:
        self.name = ""
        self.process: Any = None

    def start(self, name: str, job: Job, jobs: int, address: str | None) -> None:
        if not self.process:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self.process.start()
            theirs.close()  # so that its end is seen here
        threads = cores() if job.alone else max(1, cores() // jobs)
        if (most := os.environ.get("OMP_NUM_THREADS", "")).isdigit():  # a user's own limit
            threads = max(1, min(threads, int(most)))
        self.name = name
        self.pipe.send((job, threads, None if job.alone else address))

    def result(self) -> Outcome:
        """The outcome that is in the pipe; a failure if the process died."""
        name, self.name = self.name, ""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code, self.process = self.process.exitcode, None
            return Outcome(
                name,
                "failed",
                error=f"the process that ran it ended with code {code}",
                where="outside of its cells",
            )

    def end(self) -> None:
        """End the process and the kernel that it runs."""
        if self.process:
            _kill_children(self.process.pid)
            self.process.kill()
            self.process.join()


def _kill_children(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()


def _serve(pipe: Connection) -> None:
    """In a process of its own: run the notebooks that come through the pipe. When the process that started this one is gone (kill -9 asks
    nobody), end the kernel, then itself; Ctrl-C is that process's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        _kill_children(os.getpid())
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    with suppress(EOFError):
        while True:
            job, threads, scheduler = pipe.recv()
            try:
                outcome = _execute(job, threads, scheduler)
            except Exception as error:  # a full disk, say
                outcome = Outcome(
                    job.source.stem,
                    "failed",
                    error=f"{type(error).__name__}: {error}",
                    where="writing its outputs",
                )
            pipe.send(outcome)


def _read_state(out: Path, name: str) -> dict:
    try:
        return json.loads((out / STATE / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _execute(job: Job, threads: int, scheduler: str | None) -> Outcome:
    """Run one notebook in a kernel of this Python that computes with `threads` threads; keep the executed copy and its HTML."""
    import nbformat
    import papermill

    from mmclust.pipeline.gallery import to_html

    source, parameters, out = job.source, job.parameters, job.out
    job.progress.unlink(missing_ok=True)
    os.environ |= {
        dask_backend.ADDRESS: scheduler or "",
        run_log.PROGRESS: str(job.progress),
    }  # kernels inherit them
    os.environ |= {
        name: str(threads)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    os.environ |= {
        "TQDM_DISABLE": "1",
        "PYTHONWARNINGS": "ignore:IProgress not found",
    }  # nobody watches: run_all itself shows how far it is
    os.environ["JUPYTER_PREFER_ENV_PATH"] = (
        "1"  # the kernel of this environment, not one that the user has installed elsewhere
    )
    folder = out / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    name = source.stem
    executed, start = folder / f"{name}.ipynb", time.time()
    error, where = "", ""
    try:
        papermill.execute_notebook(
            source,
            executed,
            parameters,
            kernel_name="python3",
            cwd=source.parent,
            progress_bar=False,
            extra_arguments=["--log-level=50"],
        )
    except papermill.PapermillExecutionError as failure:
        error, where = (
            f"{failure.ename}: {failure.evalue}",
            f"cell {failure.exec_count}: {failure.source.strip().splitlines()[0]}",
        )
    except Exception as failure:
        error, where = (
            f"{type(failure).__name__}: {failure}",
            traceback.format_exc(limit=-1).strip().splitlines()[-3].strip(),
        )
    seconds = time.time() - start
    if executed.exists():
        to_html(nbformat.read(executed, as_version=4), executed.with_suffix(".html"))
    notes = [
        json.loads(p.read_text(encoding="utf-8")) for p in (out / STATE).glob(f"{name}--*.json")
    ]
    outputs = [f for note in notes for f in note["files"]] + [
        f"notebooks/{name}.ipynb",
        f"notebooks/{name}.html",
    ]
    return Outcome(
        name,
        "failed" if error else "done",
        seconds,
        re.sub(r"\s+", " ", error)[:500],
        where,
        outputs,
    )


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers depend on."""
    from importlib.metadata import version

    return {"python": sys.version.split()[0]} | {
        p: version(p) for p in ("mmclust", "torch", "open_clip_torch", "scikit-learn", "numpy")
    }


def commit() -> str:
    """The git commit of this package, "+" behind it when files differ from it; empty where the package is not a checkout of its own."""

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(PACKAGE), *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if not git(
            "ls-files", "__init__.py"
        ):  # installed into a folder that lies in somebody else's repository
            return ""
        return git("rev-parse", "--short=10", "HEAD") + "+" * bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return ""


def seeds(given: dict, setting: dict) -> list[int] | None:
    """The seeds that a notebook ran with: `seeds` is a number of them (or a list), `seed` one; None if it has neither."""
    for values in (given, setting):
        if values.get("seeds") is not None:
            return (
                list(range(values["seeds"]))
                if isinstance(values["seeds"], int)
                else values["seeds"]
            )
        if values.get("seed") is not None:
            return [values["seed"]]
    return None
