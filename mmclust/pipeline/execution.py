"""Run notebooks in child processes, several at the same time, and report how they ended.

A `NotebookWorker` is a process that runs one notebook after the other: importing papermill takes
seconds, and is done once. It ends with the process that started it, however that ends (kill -9
included), and takes its kernel with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

from mmclust.experiments import dask_backend, run_log
from mmclust.pipeline.gallery import output_files, read_notes, to_html
from mmclust.results.output import STATE, NotebookOutput, missing_font
from mmclust.scripts import require_main_guard
from mmclust.threads import cores, thread_environment

ERROR_LENGTH = 500  # characters
# Seconds. A single notebook that takes longer is worth the start of a cluster on few cores, too:
# its kernel alone leaves a core idle.
LONG = 120
OUT_OF_MEMORY = "probably out of memory: try fewer pictures, or --jobs 1"
# An event's name, its subject and the expected seconds that are left: see `notebooks.reproduce`.
OnEvent = Callable[[str, Any, float], None]


@dataclass
class Outcome:
    """How a notebook ended."""

    notebook: str
    status: str  # "done", "failed" or "up to date"
    seconds: float = 0.0
    error: str = ""
    where: str = ""  # the cell that failed
    outputs: list[str] = field(default_factory=list)  # files, relative to the output folder
    rows: int = 0  # experiments that it asked for
    stored: int = 0  # those of them that were stored before
    warnings: list[str] = field(default_factory=list)  # sentences on its figures
    findings: list[str] = field(default_factory=list)  # its computed sentences


@dataclass
class Job:
    """A notebook that has to run."""

    source: Path
    parameters: dict
    out: Path
    seconds: float  # expected run time
    alone: bool  # no other notebook may run meanwhile, because it measures times
    stamp: str  # see `notebooks.stamp`; without the second hash if it downloads pictures
    measured: bool = False  # the expected seconds are those of its last run

    @property
    def progress(self) -> Path:
        """The file in which the notebook's kernel counts its experiments."""
        return self.out / STATE / f"{self.source.stem}.progress"


@dataclass
class Backend:
    """Where the experiments of the notebooks are computed."""

    address: str | None  # of a Dask scheduler; None: in the notebooks' own kernels
    parallel: int  # notebooks at the same time
    cluster: Any = None  # its `LocalWorkers`, if the scheduler is ours


@contextmanager
def open_backend(
    address: str | None, device: str, workers: int | None, jobs: dict[str, Job], on_event: OnEvent
) -> Iterator[Backend]:
    """A context with the backend for `notebooks.reproduce` with these arguments."""
    single = len(jobs) == 1 and all(not job.alone and job.seconds > LONG for job in jobs.values())
    if address:
        with dask_backend.connect(address) as client:
            count = len(client.scheduler_info()["workers"])
            link = client.dashboard_link
        on_event("cluster", f"{count} workers at {address} compute, dashboard at {link}", 0)
        yield Backend(address, cores())
        return
    few = device == "cpu" and cores() <= dask_backend.FEW_CORES
    if workers is None and few and not single:
        hint = f"--workers {cores()} starts a cluster"
        on_event("cluster", f"{cores()} cores: notebooks compute in their kernels; {hint}", 0)
        workers = 0
    if workers == 0:
        yield Backend(None, cores() if device == "cpu" else 1)
        return
    with dask_backend.local_cluster(device, workers, start=False) as cluster:
        link = cluster.dashboard_link
        on_event("cluster", f"{cluster.most} workers start when needed, dashboard at {link}", 0)
        yield Backend(cluster.scheduler_address, cluster.most, cluster)


class Schedule:
    """Which notebook starts next, and how long the rest takes."""

    def __init__(self, jobs: dict[str, Job], parallel: int) -> None:
        self.jobs = jobs
        self.parallel = max(1, min(parallel, sum(not job.alone for job in jobs.values())))
        self.started: dict[str, float] = {}  # name -> time, of those that run
        self.waiting = list(jobs)
        if parallel > 1:  # the longest first, so that no core is idle at the end
            self.waiting.sort(key=lambda name: -jobs[name].seconds)
        self.waiting.sort(key=lambda name: jobs[name].alone)

    def next(self) -> str | None:
        """The name of the notebook that starts now, or None."""
        if not self.waiting or len(self.started) == self.parallel:
            return None
        candidates = [self.waiting[0], *self.started]
        if self.started and any(self.jobs[name].alone for name in candidates):
            return None
        name = self.waiting.pop(0)
        self.started[name] = time.time()
        return name

    def remaining(self) -> float:
        """The expected seconds until all have ended."""
        total = 0.0
        for name in [*self.waiting, *self.started]:
            job = self.jobs[name]
            elapsed = time.time() - self.started[name] if name in self.started else 0.0
            total += max(0.0, job.seconds - elapsed) / (1 if job.alone else self.parallel)
        return total


def run_jobs(
    jobs: dict[str, Job], backend: Backend, save: Callable[[Outcome], None], on_event: OnEvent
) -> None:
    """Run notebooks, `backend.parallel` at the same time; `save` is called with each outcome."""
    require_main_guard()
    schedule = Schedule(jobs, backend.parallel)
    workers = [NotebookWorker() for _ in range(schedule.parallel)]
    try:
        while schedule.waiting or schedule.started:
            while name := schedule.next():
                if jobs[name].alone and backend.cluster:
                    dask_backend.stop_workers(backend.cluster)
                worker = next(worker for worker in workers if not worker.name)
                worker.start(name, jobs[name], schedule.parallel, backend.address)
                on_event("start", name, schedule.remaining())
            ready = wait([worker.pipe for worker in workers if worker.name], timeout=1)
            if backend.cluster:
                dask_backend.start_workers(backend.cluster)
            rows = {name: run_log.read_progress(jobs[name].progress) for name in schedule.started}
            on_event("tick", rows, schedule.remaining())
            for worker in [worker for worker in workers if worker.name and worker.pipe in ready]:
                outcome = worker.result()
                file = jobs[outcome.notebook].progress
                outcome.rows, outcome.stored, _ = run_log.read_progress(file)
                file.unlink(missing_ok=True)
                del schedule.started[outcome.notebook]
                save(outcome)
                on_event("end", outcome, schedule.remaining())
    finally:
        for worker in workers:
            worker.end()


class NotebookWorker:
    """A process that runs one notebook after the other."""

    name = ""  # the notebook that it runs
    process: Any = None
    pipe: Connection  # for jobs and outcomes

    def start(self, name: str, job: Job, parallel: int, address: str | None) -> None:
        """Run a notebook with its share of the cores, or with all of them if it runs alone."""
        if not self.process:
            context = multiprocessing.get_context("spawn")
            self.pipe, remote = context.Pipe()
            self.process = context.Process(target=_serve, args=(remote,), daemon=True)
            self.process.start()
            remote.close()  # only the worker holds it: so the pipe closes when it ends
        environment = thread_environment(1 if job.alone else parallel) | {
            dask_backend.ADDRESS: "" if job.alone else address or "",
            run_log.PROGRESS: str(job.progress),
            "TQDM_DISABLE": "1",  # nobody watches the kernels: run_all.py shows the progress
            "PYTHONWARNINGS": "ignore:IProgress not found",
            # The kernel of this environment, not one of another that was installed for the user.
            "JUPYTER_PREFER_ENV_PATH": "1",
            "JUPYTER_PATH": "",
        }
        self.name = name
        self.pipe.send((job, environment))

    def result(self) -> Outcome:
        """The outcome that is in the pipe; a failure if the process died."""
        name = self.name
        self.name = ""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            error = f"the process that ran the notebook ended with code {code}"
            error += f": {OUT_OF_MEMORY}" if code == -9 else ""
            self.process = None
            return Outcome(name, "failed", error=error, where="its process")

    def end(self) -> None:
        """End the process and its kernel."""
        if self.process:
            _kill_children(self.process.pid)
            self.process.kill()
            self.process.join()


def _kill_children(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()


def _end_with_parent() -> None:
    parent: Any = multiprocessing.parent_process()
    parent.join()
    _kill_children(os.getpid())
    os._exit(1)


def _serve(pipe: Connection) -> None:
    """Run the notebooks that come through the pipe, in a worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError):
        while True:
            job, environment = pipe.recv()
            os.environ.update(environment)  # kernels inherit it; this process computes nothing
            try:
                outcome = execute(job)
            except Exception as error:  # such as a full disk
                text = f"{type(error).__name__}: {error}"
                outcome = Outcome(job.source.stem, "failed", error=text, where="its output files")
            pipe.send(outcome)


def execute(job: Job) -> Outcome:
    """Run a notebook in a kernel; keep the executed copy and its HTML in `notebooks/`."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    name = job.source.stem
    executed = job.out / "notebooks" / f"{name}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    job.progress.unlink(missing_ok=True)
    NotebookOutput(name, job.out)  # so no former caption is taken for one of this run, if it fails
    # Plug-ins are where this process finds them: behind the kernel's modules, as PYTHONPATH is not.
    paths = f"import sys; sys.path += [p for p in {sys.path} if p not in sys.path]"
    options: Any = {"kernel_name": "python3", "cwd": job.source.parent, "progress_bar": False}
    options["extra_arguments"] = ["--log-level=50", f"--IPKernelApp.exec_lines={paths}"]
    start = time.time()
    error = ""
    where = ""
    run = partial(papermill.execute_notebook, job.source, executed, job.parameters, **options)
    try:
        try:
            run()
        except RuntimeError as failure:
            # Two kernels that start at the same moment may take the same port: once more.
            if "before replying" not in str(failure):
                raise
            run()
    except papermill.PapermillExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
        where = f"cell {failure.exec_count}: {failure.source.strip().splitlines()[0]}"
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
        error += f": {OUT_OF_MEMORY}" if isinstance(failure, DeadKernelError) else ""
        where = "its kernel"
    seconds = time.time() - start
    if executed.exists():
        to_html(executed)
    notes = read_notes(job.out, name)
    escaped = {letter for note in notes for letter in note.get("escaped", "")}
    findings = [] if error else [note["finding"] for note in notes if note.get("finding")]
    sentences = [missing_font("".join(sorted(escaped)))] if escaped else []
    message = " ".join(error.split())[:ERROR_LENGTH]
    files = output_files(job.out, name)
    status = "failed" if error else "done"
    return Outcome(
        name, status, seconds, message, where, files, warnings=sentences, findings=findings
    )
