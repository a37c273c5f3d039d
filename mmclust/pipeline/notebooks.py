"""Run the notebooks that are out of date and collect their figures and tables in one folder.

A notebook is up to date if nothing has changed that its outputs depend on (`stamp`) and its files
exist. `mmclust.pipeline.execution` runs notebooks, `mmclust.pipeline.gallery` writes the page.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock

from mmclust import plugins, storage
from mmclust.code_fingerprint import meaning
from mmclust.data import to_be_downloaded, to_be_placed
from mmclust.data.folder import load_folder_for
from mmclust.data.folder_tree import walk
from mmclust.data.paper_datasets import PAPER_DATASETS
from mmclust.experiments import dask_backend
from mmclust.pipeline.execution import Job, OnEvent, Outcome, open_backend, run_jobs
from mmclust.pipeline.gallery import output_files, read_state, write_index
from mmclust.pipeline.preflight import check_out, datasets_of, folders_of, needs
from mmclust.profiles import load_profile
from mmclust.profiles.values import check_names, check_settings
from mmclust.results.output import STATE
from mmclust.threads import check_device
from mmclust.words import reviewed_answers

PACKAGE = Path(__file__).parents[1]
NOTEBOOKS = PACKAGE.parent / "notebooks"
DEFAULT_SECONDS = 60  # a notebook's expected time where neither a run nor its profile says


def select(only: list[str] | None, profile: str) -> list[str]:
    """Names of notebooks of a profile, in its order. `only` has full names, beginnings such as
    "00", or "teaching" for the lessons and the explorer; None takes the profile's `only`, else all
    but those with `by_default: false`. Raises ValueError for an unknown name."""
    loaded = load_profile(profile)
    entries = loaded["notebooks"]
    only = only or loaded.get("only")
    if not only:
        return [name for name, entry in entries.items() if entry.get("by_default", True)]
    teaching = [name for name, entry in entries.items() if entry.get("teaching")]
    selected: list[str] = []
    for wanted in only:
        stem = wanted.removesuffix(".ipynb")
        matches = [name for name in entries if name == stem or name.startswith(f"{stem}_")]
        matches += teaching if wanted == "teaching" else []
        if not matches:
            names = ", ".join(entries)
            raise ValueError(f"unknown notebook {wanted!r}: profile {profile!r} has {names}")
        selected += matches
    return [name for name in entries if name in selected]


def notebook_parameters(path: Path) -> set[str]:
    """The names that the cell tagged "parameters" assigns, without the slow import of papermill."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in tagged))
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


def folder_version(folder: Path) -> str:
    """A hash of the names, sizes and times of all files below a folder. No file is read."""
    files, _ = walk(folder, [])
    return storage.key_of([[str(file), *_version_of(folder / file)] for file in files])


def stamp(path: Path, parameters: dict, version_of: Callable[[Path], str] = folder_version) -> str:
    """Two hashes, of all that a notebook's outputs depend on: of settings and of the code without
    comments; and of the folders of pictures.

    `version_of`: `folder_version`, or one that remembers what it returned.
    """
    digest = hashlib.sha256(path.read_bytes())

    def add(value: Any) -> None:
        digest.update(json.dumps(value, sort_keys=True, default=str).encode())

    add(parameters)
    for file in sorted(PACKAGE.rglob("*")):
        if file.suffix == ".py":
            digest.update(meaning(file).encode())
        elif file.suffix in (".yaml", ".csv"):
            digest.update(file.read_bytes())
        elif file.suffix == ".safetensors":
            add([file.name, *_version_of(file)])
    profile = load_profile(parameters["profile"]) if parameters.get("profile") else {}
    add(profile)
    entry = profile.get("notebooks", {}).get(path.stem, {})
    for name in plugins.names_in([parameters, profile | {"notebooks": entry}]):
        digest.update(plugins.source(name).encode())
    if profile.get("source", "lexicon") != "lexicon":
        for file in sorted(reviewed_answers.folder().glob("*.yaml")):
            digest.update(file.name.encode() + file.read_bytes())  # a person may edit answers
    download = profile.get("download", True)
    for name in datasets_of(entry | parameters):  # a person may place them
        add([name, to_be_placed(name, download)])
    folders = folders_of(entry | parameters)
    return f"{digest.hexdigest()}-{storage.key_of(*map(version_of, folders))}"


def _version_of(file: Path) -> tuple[int, int]:
    """Size and time of modification (ns): stands for the content of a file too large to read."""
    return file.stat().st_size, file.stat().st_mtime_ns


def reproduce(
    only: list[str] | None = None, parameters: dict | None = None, profile: str = "demo",
    device: str = "cpu", jobs: int | None = None, out: str | Path = "figures",
    force: bool = False, scheduler: str | None = None, workers: int | None = None,
    on_event: OnEvent = lambda *_: None, notebooks: Path = NOTEBOOKS,
) -> list[Outcome]:  # fmt: skip
    """Run the selected notebooks and write `out/index.html`. A failure does not stop the others.

    Args:
        only: see `select`. parameters: values for the notebooks' parameters cells.
        jobs, force, scheduler, workers: see `python run_all.py --help`; `scheduler` is by default
            that in `MMCLUST_SCHEDULER`.
        on_event: called with an event, its subject and the expected seconds that are left: "wait",
            "cluster" or "folder" with a sentence, "start" with a notebook's name, "end" with its
            outcome, and every second "tick" with notebook -> rows (asked for, stored before,
            computed).

    Returns one outcome per selected notebook, in order. Raises ValueError for an unknown notebook,
    profile or parameter, or a folder of images that cannot be used, or if `out` can't be written;
    ConnectionError if no scheduler answers; OSError, such as for a full disk.
    """
    for name, number, least in (("jobs", jobs, 1), ("workers", workers, 0)):
        if number is not None and number < least:
            remedy = "without it, the number is chosen for this machine"
            raise ValueError(f"{name} must be at least {least}, not {number}: {remedy}")
    out = Path(out).resolve()
    address = scheduler or os.environ.get(dask_backend.ADDRESS)
    choice = _checked(only, parameters, profile, device, out, notebooks)  # errors before any file
    with _lock(out, on_event):
        todo, outcomes = _compared(choice, profile, out, force, notebooks)
        if todo:
            if isinstance(folder := (parameters or {}).get("data"), str):
                criterion = (parameters or {}).get("criterion")
                pictures, _ = load_folder_for(folder, criterion, verbose=False)
                on_event("folder", f"{folder}: {pictures.provenance}", 0)
            made: dict = {"profile": profile, "device": device}
            made |= {"versions": versions(), "commit": commit()}

            def save(outcome: Outcome) -> None:
                _save_state(out, outcome, todo[outcome.notebook], made)
                outcomes[outcome.notebook] = outcome

            with open_backend(address, device, workers, todo, on_event) as backend:
                backend.parallel = jobs or backend.parallel
                run_jobs(todo, backend, save, on_event)
        write_index(out, profile)
    return [outcomes[name] for name in choice]


def plan(
    only: list[str] | None = None, parameters: dict | None = None, profile: str = "demo",
    device: str = "cpu", out: str | Path = "figures", force: bool = False,
    notebooks: Path = NOTEBOOKS,
) -> tuple[dict[str, Job], dict[str, Outcome]]:  # fmt: skip
    """The notebooks that `reproduce` would run with these arguments, and those up to date, by name.
    Nothing is written. Raises ValueError: see `reproduce`."""
    out = Path(out).resolve()
    choice = _checked(only, parameters, profile, device, out, notebooks)
    return _compared(choice, profile, out, force, notebooks)


def _checked(
    only: list[str] | None, parameters: dict | None, profile: str, device: str, out: Path,
    notebooks: Path,
) -> dict[str, dict]:  # fmt: skip
    """The values for the parameters cell of each selected notebook; raises the errors of `plan`."""
    names = select(only, profile)
    settings = load_profile(profile)
    check_device(device)
    takes = {name: notebook_parameters(notebooks / f"{name}.ipynb") for name in names}
    parameters = dict(parameters or {})
    all_takes = takes
    if not parameters.keys() <= set().union(*takes.values()):
        files = {name: notebooks / f"{name}.ipynb" for name in settings["notebooks"]}
        all_takes = {name: notebook_parameters(file) for name, file in files.items()}
    accepted = _accepted(parameters, takes, all_takes)
    needs(names, profile, parameters)
    entries = settings["notebooks"]
    check_out(out, notebooks, {name: entries[name] | accepted[name] for name in names})
    if Path(profile).suffix in (".yaml", ".yml"):
        profile = str(Path(profile).resolve())  # kernels run in the folder of the notebooks
    shared = {"profile": profile, "device": device, "out": str(out)}
    return {
        name: {key: value for key, value in shared.items() if key in takes[name]} | values
        for name, values in accepted.items()
    }


def _compared(
    choice: dict[str, dict], profile: str, out: Path, force: bool, notebooks: Path
) -> tuple[dict[str, Job], dict[str, Outcome]]:
    """`plan` for the notebooks and values of `_checked`, compared with the last runs into `out`."""
    settings = load_profile(profile)
    entries = settings["notebooks"]
    version_of = cache(folder_version)  # many notebooks read the same folders
    todo: dict[str, Job] = {}
    fresh: dict[str, Outcome] = {}
    for name, values in choice.items():
        source = notebooks / f"{name}.ipynb"
        key = stamp(source, values, version_of)
        state = read_state(out, name)
        outputs = output_files(out, name)
        complete = state.get("outputs") == outputs and all((out / f).exists() for f in outputs)
        if state.get("stamp") == key and complete and not force:
            fresh[name] = Outcome(name, "up to date", outputs=outputs)
            continue
        seconds = state.get("seconds") or entries[name].get("seconds", DEFAULT_SECONDS)
        alone = entries[name].get("alone", False)
        download = settings.get("download", True)
        if any(to_be_downloaded(data, download) for data in datasets_of(entries[name] | values)):
            key = key.partition("-")[0]
        todo[name] = Job(source, values, out, seconds, alone, key, measured="seconds" in state)
    return todo, fresh


def _accepted(
    parameters: dict, takes: dict[str, set[str]], all_takes: dict[str, set[str]]
) -> dict[str, dict]:
    """The parameters that each selected notebook takes, checked; errors as for `reproduce`.
    `takes`, `all_takes`: the names of the parameters of the selected, and of all notebooks."""
    for name in parameters.keys() & {"profile", "device", "out"}:
        raise ValueError(f"-p {name}=... reaches the notebooks only: use --{name}")
    known = sorted(set().union(*all_takes.values()))
    check_names(parameters, known, "no notebook has a parameter")
    for name in sorted(parameters.keys() - set().union(*takes.values())):
        others = ", ".join(other for other, names in all_takes.items() if name in names)
        raise ValueError(f"-p {name}=... is for {others}: select it with --only")
    accepted = {}
    for notebook, names in takes.items():
        chosen = {name: value for name, value in parameters.items() if name in names}
        accepted[notebook] = check_settings(chosen, notebook)
        if folder := accepted[notebook].get("data"):  # kernels run in the folder of the notebooks
            accepted[notebook]["data"] = str(Path(folder).expanduser().resolve())
        if world := accepted[notebook].get("world"):
            accepted[notebook]["world"] = _absolute(world)
        if criteria := accepted[notebook].get("criteria"):
            accepted[notebook]["criteria"] = {_absolute(k): v for k, v in criteria.items()}
    return accepted


def _absolute(dataset: str) -> str:
    """The complete path of a data set that is a folder; another name as it is."""
    path = Path(dataset).expanduser()
    return str(path.resolve()) if path.is_dir() and dataset not in PAPER_DATASETS else dataset


def _lock(out: Path, on_event: OnEvent) -> AbstractContextManager:
    """Wait until no other run writes to `out`. The lock is released when its process ends."""
    try:
        (out / STATE).mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(out / STATE / "lock")
        return lock.acquire(blocking=False)
    except filelock.Timeout:
        on_event("wait", f"another run writes to {out}: waiting for its end", 0)
        return lock.acquire(poll_interval=0.2)
    except OSError as error:
        raise ValueError(f"{out} can't be written ({error}): choose another --out") from error


def _save_state(out: Path, outcome: Outcome, job: Job, made: dict) -> None:
    """Write how a notebook ended, and remove files of earlier runs that it no longer writes."""
    name = outcome.notebook
    state = asdict(outcome) | made
    key = job.stamp
    if "-" not in key:  # code that was changed during the run is not what it ran
        key += stamp(job.source, job.parameters)[len(key) :]
    state |= {
        "stamp": key if outcome.status == "done" else "",
        "parameters": {key: value for key, value in job.parameters.items() if key != "out"},
        "seeds": seeds(job.parameters, load_profile(made["profile"])["notebooks"][name]),
        "time": time.time(),
    }
    before = read_state(out, name)
    former = sorted(set(before.get("outputs", [])).difference(outcome.outputs))
    if outcome.status == "done" or before.get("parameters") != state["parameters"]:
        for file in former:
            (out / file).unlink(missing_ok=True)
    else:
        state["outputs"] += former  # of the same parameters: until it succeeds
    storage.write_atomically(out / STATE / f"{name}.json", json.dumps(state, indent=1).encode())


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on."""
    packages = ("torch", "open_clip_torch", "scikit-learn", "numpy")
    # this package may be imported from a working tree, without being installed
    here = {"python": sys.version.split()[0], "mmclust": sys.modules["mmclust"].__version__}
    return here | {name: version(name) for name in packages}


def commit() -> str:
    """The git commit of this package, with a "+" if files differ from it; empty if git has none."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(PACKAGE), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):  # installed inside another project's repository
            return ""
        return git("describe", "--always", "--exclude=*", "--abbrev=10", "--dirty=+")
    except (OSError, subprocess.CalledProcessError):
        return ""


def seeds(parameters: dict, settings: dict) -> list[int] | None:
    """The seeds of a notebook: `seeds` (a number of them) or `seed`; else None."""
    for values in (parameters, settings):
        if values.get("seeds") is not None:
            return list(range(values["seeds"]))
        if values.get("seed") is not None:
            return [values["seed"]]
    return None
