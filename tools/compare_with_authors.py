"""The authors' own code beside ours: `python -m tools.compare_with_authors --repo PATH`.

PATH is a checkout of https://github.com/Alexander-Yao/Multi-MaP that you made. Its `main_eval.py`
(of Multi-Sub, the part that runs) and `main.py` (Multi-MaP) run unchanged, each in a process of its
own, on the CPU; so do our methods, with `variant="released"`. Both sides have the weights of `mini`
and the same rendered fruit, which the scripts read from their folder layout. Words and prompts are
constants in the scripts: ours takes those that `main_eval.py` prints. Nothing of the checkout is
copied, and nothing is written into it.

Replaced in a script's process, before it starts: `clip.load`, which would download ViT-B/32, builds
their classes from our weights; `pkg_resources`, which setuptools no longer has, is a stand-in; and
`random` has a seed, because the scripts shuffle their batches without one. Seconds are those of
whole processes; of these, start-up is until the model is loaded.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

import mmclust as mm
from mmclust.data.images import ImageDataset
from mmclust.encoders.mini import FOLDER
from mmclust.threads import waiting_environment

URL = "https://github.com/Alexander-Yao/Multi-MaP"
NEEDED = ("main_eval.py", "main.py", "parse.py", "clip/clip.py", "clip/model.py")
WEIGHTS = FOLDER / "open_clip_model.safetensors"
WORLD, CRITERIA = "demo-fruit", ("species", "color")  # for the data set `fruit` of the scripts
BATCH = 20  # images per step, the default of their parser
# Parameters with the same names on both sides. Epochs of Multi-Sub: main_eval.py prints scores only
# after every 100. Parameters of Multi-MaP: the command for fruit in the authors' README.
SUB_EPOCHS, MAP_EPOCHS = 100, 50
SUB_PARAMS = {"batch_size": BATCH, "lr": 0.05}
MAP_PARAMS = {"batch_size": BATCH, "lr": 0.005, "alpha": 0.3, "beta": 0.4, "weight_decay": 5e-5}
TOLERANCE = 0.01  # of the prompt's NMI, for early stopping
N_CHECKS = (3, 4, 6, 8)  # for early stopping, the default first: until the NMI is that of theirs
# what main_eval.py calls its representations, and what `MultiSub` does
REPRESENTATIONS = {
    "Prompt": "prompt", "Word": "word", "Word EOD": "word-eot",
    "Image": "image", "Combined": "word+image",
}  # fmt: skip
METRICS = ("NMI", "ARI", "RI")
LAUNCHER = """
import random, runpy, sys, types
import packaging.version
from safetensors.torch import load_file

repo, script, weights, *arguments = sys.argv[1:]
sys.path.insert(0, repo)
stand_in = types.ModuleType("pkg_resources")
stand_in.packaging = packaging
sys.modules["pkg_resources"] = stand_in
import clip

def load(name, device="cpu", jit=False):
    model = clip.model.build_model(load_file(weights)).float().to(device)
    return model, clip.clip._transform(model.visual.input_resolution)

clip.load = load
random.seed(0)
sys.argv = [script, *arguments]
runpy.run_path(f"{repo}/{script}", run_name="__main__")
"""


@dataclass(frozen=True)
class Question:
    """What main_eval.py asks of the pictures."""

    criterion: str
    template: str
    words: list[str]


@dataclass
class Training:
    """The training for one criterion."""

    losses: dict[int, float]  # epoch, from 0 -> loss; of a script, every tenth epoch
    scores: dict[str, dict[str, float]] = field(default_factory=dict)  # representation -> scores


@dataclass
class Process:
    """A process with one training per criterion."""

    process: str  # its name in the table
    seconds: float  # of the whole process
    startup: float  # seconds until the model was loaded
    epochs: list[int]  # of each training
    trainings: list[Training]
    printed: str = ""


def checkout(path: str) -> Path:
    """The folder of a checkout of the authors' code; an error of argparse for any other."""
    repo = Path(path).expanduser().resolve()
    if missing := [name for name in NEEDED if not (repo / name).is_file()]:
        message = f"{repo} has no {missing[0]}: make a checkout with `git clone {URL}`"
        raise argparse.ArgumentTypeError(message)
    return repo


def commit(repo: Path) -> str:
    """The commit of a checkout, ending in `-dirty` if one of its files was changed."""
    command = ["git", "--git-dir=.git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=repo, capture_output=True, text=True).stdout.strip()


def write_pictures(data: ImageDataset, folder: Path) -> None:
    """Files dataset/fruit/<criterion>/<class>/<number>.png, as the scripts read them."""
    classes = data.frame()
    for i, picture in enumerate(data.images):
        for criterion in CRITERIA:
            place = folder / "dataset" / "fruit" / criterion / classes[criterion][i]
            place.mkdir(parents=True, exist_ok=True)
            picture.save(place / f"{i:05d}.png")


def in_folder_order(data: ImageDataset, criterion: str) -> ImageDataset:
    """The pictures in the order in which the scripts read those files, and take their batches."""
    classes = data.frame()[criterion]
    return data.subset(sorted(range(len(data)), key=lambda i: (classes[i], i)))


def run_script(repo: Path, script: str, folder: Path, params: dict) -> Process:
    """Run an unchanged script in `folder`, with its lines on stderr."""
    options = [f"--{name}={value}" for name, value in ({"dataset": "fruit"} | params).items()]
    command = [sys.executable, "-u", "-c", LAUNCHER, str(repo), script, str(WEIGHTS), *options]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    printed = ""
    start = loaded = time.time()
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            if not printed:  # they print their first line when the model is loaded
                loaded = time.time()
            printed += line
            print(f"{script}: {line}", end="", file=sys.stderr, flush=True)
    seconds = time.time() - start
    if process.returncode:
        raise RuntimeError(f"{script} of {repo} failed: its error is printed above")
    trainings = read_trainings(printed)
    epochs = [params["epoch"]] * len(trainings)
    return Process(script, seconds, loaded - start, epochs, trainings, printed)


def read_questions(printed: str) -> list[Question]:
    """The criteria, prompts and words that main_eval.py prints."""
    headers = re.findall(r"^Data path: dataset/\w+/(\w+)/ (.+)$", printed, re.M)
    lists = re.findall(r"^candidate \d+ (\[.*\])$", printed, re.M)
    return [
        Question(criterion, f"{prompt} *", ast.literal_eval(words))
        for (criterion, prompt), words in zip(headers, lists, strict=True)
    ]


def read_trainings(printed: str) -> list[Training]:
    """The losses, and the last scores, that a script prints for each criterion."""
    trainings = []
    for block in re.split(r"^(?=Epoch 0\t)", printed, flags=re.M)[1:]:
        losses = re.findall(r"^Epoch (\d+)\tLoss: (\S+)$", block, re.M)
        scores = re.findall(r"^([\w ]+): NMI:(\S+)\tARI:(\S+)\tRI:(\S+)$", block, re.M)
        training = Training({int(epoch): float(loss) for epoch, loss in losses})
        for name, *values in scores:
            training.scores[REPRESENTATIONS[name]] = dict(zip(METRICS, map(float, values)))
        trainings.append(training)
    return trainings


def fit(
    method: str, questions: list[Question], n: int, seed: int, params: dict[str, Any]
) -> tuple[float, list[Training]]:
    """Train our released variant with an empty cache; also the time when the model was loaded."""
    trainings = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MMCLUST_CACHE"] = cache
        encoder = mm.load_encoder("mini")
        loaded = time.time()
        for question in questions:
            data = in_folder_order(mm.load_dataset(WORLD, n=n, seed=seed), question.criterion)
            model = getattr(mm, method)(
                encoder, question.words, template=question.template, variant="released",
                n_clusters=data.n_clusters(question.criterion), random_state=0, **params,
            )  # fmt: skip
            if method == "MultiMaP":
                model.set_params(concepts=[question.criterion])
            model.fit(data.images)
            # the scripts' loss is 1 - cos, ours is -cos
            training = Training({i: 1 + row["loss"] for i, row in enumerate(model.history_)})
            for name in REPRESENTATIONS.values() if method == "MultiSub" else ():
                model.use_representation(name)
                training.scores[name] = model.evaluate(data.labels[question.criterion])
            trainings.append(training)
    return loaded, trainings


def timed_fit(name: str, *arguments: Any) -> Process:
    """`fit` in a new process, timed as the scripts are."""
    start = time.time()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        loaded, trainings = pool.submit(fit, *arguments).result()
    epochs = [len(training.losses) for training in trainings]
    return Process(name, time.time() - start, loaded - start, epochs, trainings)


def compare(
    repo: Path, n: int, seed: int, map_params: dict[str, float]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Run their scripts and our methods, one after the other: tables of scores, losses, seconds."""
    with tempfile.TemporaryDirectory() as name:
        write_pictures(mm.load_dataset(WORLD, n=n, seed=seed), folder := Path(name))
        their_sub = run_script(repo, "main_eval.py", folder, {"epoch": SUB_EPOCHS} | SUB_PARAMS)
        their_map = run_script(repo, "main.py", folder, {"epoch": MAP_EPOCHS} | map_params)
    questions = read_questions(their_sub.printed)
    task = (questions, n, seed)
    params: dict[str, Any] = {"phase1_epochs": SUB_EPOCHS} | SUB_PARAMS
    our_sub = timed_fit("MultiSub", "MultiSub", *task, params)
    our_map = timed_fit("MultiMaP", "MultiMaP", *task, {"epochs": MAP_EPOCHS} | map_params)
    stopped: list[Process] = []
    for n_checks in N_CHECKS:
        name = f"MultiSub, early stopping, n_checks={n_checks}"
        early = params | {"early_stopping": True, "n_checks": n_checks}
        stopped.append(timed_fit(name, "MultiSub", *task, early))
        scores = score_table(questions, their_sub, our_sub, stopped[-1])
        if early_difference(scores) <= TOLERANCE:
            break
    losses = {
        (method, question.criterion): pd.DataFrame({"loss theirs": a.losses, "loss ours": b.losses})
        for method, *sides in (("MultiSub", their_sub, our_sub), ("MultiMaP", their_map, our_map))
        for question, a, b in zip(questions, *(side.trainings for side in sides), strict=True)
    }
    processes = (their_sub, our_sub, *stopped, their_map, our_map)
    times = pd.DataFrame([vars(process) for process in processes])
    loss_table = pd.concat(losses, names=["method", "criterion", "epoch"]).dropna().reset_index()
    return scores, loss_table, times[["process", "seconds", "startup", "epochs"]]


def score_table(questions: list[Question], *processes: Process) -> pd.DataFrame:
    """A row per criterion and representation, from theirs, ours and ours with early stopping."""
    theirs, ours, early = (
        pd.concat(
            {q.criterion: pd.DataFrame(t.scores).T for q, t in zip(questions, process.trainings)},
            names=["criterion", "representation"],
        )
        for process in processes
    )
    sides = {"theirs": theirs, "ours": ours}
    columns = {f"{m} {side}": sides[side][m] for m in METRICS for side in sides}
    columns["NMI ours, early stopping"] = early["NMI"]
    return pd.DataFrame(columns).reset_index()


def early_difference(scores: pd.DataFrame) -> float:
    """The largest difference of the prompt's NMI between early stopping and main_eval.py."""
    differences = (scores["NMI ours, early stopping"] - scores["NMI theirs"]).abs()
    return differences[scores["representation"] == "prompt"].max()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repo", type=checkout, required=True, help=f"a checkout of {URL}")
    parser.add_argument("-n", type=int, default=80, help=f"pictures: a multiple of {BATCH}")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures")
    parser.add_argument("--map-weight-decay", type=float, default=5e-5, help="of Multi-MaP")
    args = parser.parse_args()
    if args.n < 1 or args.n % BATCH:  # the scripts print means over batches
        parser.error(f"-n must be a multiple of the batch, {BATCH}, not {args.n}")
    os.environ.update(waiting_environment())  # for the processes of both sides
    map_params = MAP_PARAMS | {"weight_decay": args.map_weight_decay}
    scores, losses, times = compare(args.repo, args.n, args.seed, map_params)
    version = commit(args.repo) or "unknown"
    print(f"{URL}, commit {version}; {args.n} pictures of {WORLD}, seed {args.seed}\n")
    for table, digits in ((scores, ".4f"), (losses, ".4g"), (times, ".1f")):
        print(table.to_markdown(index=False, floatfmt=digits), end="\n\n")
    print(
        f"early stopping, its last row: prompt NMI within {early_difference(scores):.4f} of theirs"
    )


if __name__ == "__main__":
    main()
