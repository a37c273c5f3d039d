"""Execute the notebooks that are not up to date, and lay what they leave out in one folder."""

from __future__ import annotations

import ast
import hashlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml

from mmclust import backend
from mmclust.pages import STATE
from mmclust.profiles import load_profile

PACKAGE = Path(__file__).parent
NOTEBOOKS = PACKAGE.parent / "notebooks"


@dataclass
class Outcome:
    """How one notebook ended: "done", "failed" or "up to date"."""

    notebook: str
    status: str
    seconds: float = 0.0
    error: str = ""
    where: str = ""
    outputs: list[str] = field(default_factory=list)


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
    """The profile's notebooks in order, or those of them that `only` names (in full or by the beginning, such as "00").

    Raises:
        ValueError: when `only` names none of them.
    """
    known = list(load_profile(profile)["notebooks"])
    if not only:
        return known
    chosen = []
    for name in only:
        matches = [k for k in known if k == name or k.startswith(f"{name}_") or k == name.removesuffix(".ipynb")]
        if not matches:
            raise ValueError(f"no notebook {name!r} in profile {profile!r}: {', '.join(known)}")
        chosen += matches
    return [k for k in known if k in chosen]


def notebook_parameters(path: Path) -> set[str]:
    """Names that the cell tagged "parameters" assigns."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(c["source"]) for c in cells if "parameters" in c.get("metadata", {}).get("tags", []))
    return {t.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)}


def stamp(path: Path, parameters: dict) -> str:
    """A hash of all that a notebook's outputs depend on: its source, its parameters, the package, and a folder that it is pointed at."""
    digest = hashlib.sha256(path.read_bytes() + json.dumps(parameters, sort_keys=True, default=str).encode())
    for file in sorted(PACKAGE.rglob("*")):
        if file.suffix in (".py", ".yaml", ".csv"):
            digest.update(file.read_bytes())
        elif file.suffix == ".safetensors":
            digest.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}".encode())
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
    tell: Callable[[str, Outcome | str, float], None] = lambda *_: None,
    notebooks: Path = NOTEBOOKS,
) -> list[Outcome]:
    """Run the selected notebooks and write `out/index.html`. A failing notebook does not stop the others.

    Args:
        only: notebooks by name or number; all of the profile by default.
        parameters: values for the notebooks' parameters cells; a folder's path is made absolute.
        jobs: notebooks at the same time, each with its share of the cores; None: as many as there are cores, or one on a GPU. On two cores,
            two kernels of one thread get more done than one of two: the demo's matrices are small.
        notebooks: the folder of their sources.
        scheduler: address of a Dask scheduler on whose workers experiments are computed; None takes that in `MMCLUST_SCHEDULER`, and without
            one computes in the notebooks' kernels.
        tell: called with ("start" | "end", the notebook's name or its outcome, expected seconds that are left).

    Returns:
        One outcome per selected notebook, in order.

    Raises:
        ValueError: for an unknown notebook or profile, or a parameter that no selected notebook has. ConnectionError: no scheduler answers.
    """
    from mmclust.report import write_index

    out = Path(out).resolve()
    (out / STATE).mkdir(parents=True, exist_ok=True)
    names, settings = select(only, profile), load_profile(profile)["notebooks"]
    given = dict(parameters or {})
    if isinstance(given.get("data"), str) and Path(given["data"]).expanduser().exists():
        given["data"] = str(Path(given["data"]).expanduser().resolve())
    takes = {name: notebook_parameters(notebooks / f"{name}.ipynb") for name in names}
    if unknown := given.keys() - set().union(*takes.values()):
        raise ValueError(f"no selected notebook has a parameter {sorted(unknown)[0]!r}; {', '.join(f'{n}: {sorted(p)}' for n, p in takes.items())}")
    outcomes: dict[str, Outcome] = {}
    todo = {}
    for name in names:
        values = {"profile": profile, "device": device, "out": str(out)} | {k: v for k, v in given.items() if k in takes[name]}
        values = {k: v for k, v in values.items() if k in takes[name]}
        key, state = stamp(notebooks / f"{name}.ipynb", values), _read_state(out, name)
        if not force and state.get("stamp") == key and all((out / f).exists() for f in state["outputs"]):
            outcomes[name] = Outcome(name, "up to date", outputs=state["outputs"])
        else:
            todo[name] = (values, key, state.get("seconds") or settings[name].get("seconds", 60))
    if todo:
        if scheduler:
            backend.connect(scheduler).close()  # said once, here, and not by every notebook
        cores = backend.cores()
        alone = [name for name in todo if settings[name].get("alone")]  # what measures times must have the machine for itself
        jobs = max(1, min(jobs or (cores if device == "cpu" else 1), max(1, len(todo) - len(alone))))
        left = sum(todo[name][2] / (1 if name in alone else jobs) for name in todo)
        made = {"profile": profile, "device": device, "versions": versions(), "commit": commit()}
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool:
            # the longest first, so that no core is idle at the end; what runs alone comes last
            waiting, running = sorted(todo, key=lambda name: (name in alone, -todo[name][2] if jobs > 1 else 0)), {}
            while waiting or running:
                while waiting and len(running) < jobs and not (running and waiting[0] in alone) and not (set(running.values()) & set(alone)):
                    name = waiting.pop(0)
                    tell("start", name, left)
                    threads = cores if name in alone else max(1, cores // jobs)
                    running[pool.submit(_execute, notebooks / f"{name}.ipynb", todo[name][0], str(out), threads, scheduler)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    try:
                        outcome = future.result()
                    except Exception as error:  # a kernel or worker that was killed
                        outcome = Outcome(name, "failed", error=f"{type(error).__name__}: {error}", where="the process that ran it")
                    outcomes[name] = outcome
                    left -= todo[name][2] / (1 if name in alone else jobs)
                    state = asdict(outcome) | {"stamp": todo[name][1] if outcome.status == "done" else "", "parameters": todo[name][0], "time": time.time()}
                    state["parameters"].pop("out", None)
                    state |= made | {"seeds": seeds(todo[name][0], settings[name])}
                    (out / STATE / f"{name}.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
                    tell("end", outcome, left)
    write_index(out, profile)
    return [outcomes[name] for name in names]


def _end_with_parent() -> None:
    """In a worker: when the process that started it is gone (kill -9 asks nobody), end the kernels, then itself."""
    import psutil

    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _read_state(out: Path, name: str) -> dict:
    try:
        return json.loads((out / STATE / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _execute(source: Path, parameters: dict, out: str, threads: int, scheduler: str | None) -> Outcome:
    """Run one notebook in a kernel of this Python that computes with `threads` threads; keep the executed copy and its HTML."""
    import nbformat
    import papermill

    from mmclust.report import to_html

    if scheduler:
        os.environ[backend.ADDRESS] = scheduler
    os.environ |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}  # kernels inherit them
    os.environ |= {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}  # nobody watches: run_all itself shows how far it is
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of this environment, not one that the user has installed elsewhere
    folder = Path(out) / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    name = source.stem
    executed, start = folder / f"{name}.ipynb", time.time()
    error, where = "", ""
    try:
        papermill.execute_notebook(
            source, executed, parameters, kernel_name="python3", cwd=source.parent, progress_bar=False, extra_arguments=["--log-level=50"]
        )
    except papermill.PapermillExecutionError as failure:
        error, where = f"{failure.ename}: {failure.evalue}", f"cell {failure.exec_count}: {failure.source.strip().splitlines()[0]}"
    except Exception as failure:
        error, where = f"{type(failure).__name__}: {failure}", traceback.format_exc(limit=-1).strip().splitlines()[-3].strip()
    seconds = time.time() - start
    if executed.exists():
        to_html(nbformat.read(executed, as_version=4), executed.with_suffix(".html"))
    notes = [json.loads(p.read_text(encoding="utf-8")) for p in (Path(out) / STATE).glob(f"{name}--*.json")]
    outputs = [f for note in notes for f in note["files"]] + [f"notebooks/{name}.ipynb", f"notebooks/{name}.html"]
    return Outcome(name, "failed" if error else "done", seconds, re.sub(r"\s+", " ", error)[:500], where, outputs)


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers depend on."""
    from importlib.metadata import version

    return {"python": sys.version.split()[0]} | {p: version(p) for p in ("mmclust", "torch", "open_clip_torch", "scikit-learn", "numpy")}


def commit() -> str:
    """The git commit of this package, "+" behind it when files differ from it; empty where the package is not a checkout of its own."""

    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", str(PACKAGE), *args], capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):  # installed into a folder that lies in somebody else's repository
            return ""
        return git("rev-parse", "--short=10", "HEAD") + "+" * bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return ""


def seeds(given: dict, setting: dict) -> list[int] | None:
    """The seeds that a notebook ran with: `seeds` is a number of them (or a list), `seed` one; None if it has neither."""
    for values in (given, setting):
        if values.get("seeds") is not None:
            return list(range(values["seeds"])) if isinstance(values["seeds"], int) else values["seeds"]
        if values.get("seed") is not None:
            return [values["seed"]]
    return None
