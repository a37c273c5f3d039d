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
whole processes, from the start of Python to the last score.
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
from collections.abc import Sequence
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
TOLERANCE = 0.01  # of NMI, for early stopping
# what main_eval.py calls its representations, and what `MultiSub` does
REPRESENTATIONS = {
    "Prompt": "prompt", "Word": "word", "Word EOD": "word-eot", "Image": "image",
    "Combined": "word+image",
}  # fmt: skip
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

    trainings: list[Training]
    seconds: float
    printed: str = ""


# --- their side ---------------------------------------------------------------------------


def checkout(path: str) -> Path:
    """The folder of a checkout of the authors' code; an error of argparse for any other."""
    repo = Path(path).expanduser().resolve()
    missing = [name for name in NEEDED if not (repo / name).is_file()]
    if missing:
        message = f"{repo} has no {missing[0]}: make a checkout with `git clone {URL}`"
        raise argparse.ArgumentTypeError(message)
    return repo


def commit(repo: Path) -> str:
    """The commit of a checkout, ending in `-dirty` if one of its files was changed."""
    command = ["git", "--git-dir=.git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


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
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    lines = []
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as process:
        for line in process.stdout or ():
            lines.append(line)
            print(f"{script}: {line}", end="", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - start
    if process.returncode:
        last = lines[-1].strip() if lines else "it printed nothing"
        raise RuntimeError(f"{script} of {repo} failed; its last line: {last}")
    printed = "".join(lines)
    return Process(read_trainings(printed), seconds, printed)


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
        for name, nmi, ari, ri in scores:
            values = {"NMI": float(nmi), "ARI": float(ari), "RI": float(ri)}
            training.scores[REPRESENTATIONS[name]] = values
        trainings.append(training)
    return trainings


# --- our side -----------------------------------------------------------------------------


def fit(
    method: str, questions: Sequence[Question], n: int, seed: int, params: dict[str, Any]
) -> list[Training]:
    """Our released variant of a method, with an empty cache; in a process of its own."""
    trainings = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MMCLUST_CACHE"] = cache
        encoder = mm.load_encoder("mini")
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
                scores = model.use_representation(name).evaluate(data.labels[question.criterion])
                training.scores[name] = scores
            trainings.append(training)
    return trainings


def timed_fit(*arguments: Any) -> Process:
    """`fit` in a new process, timed as the scripts are."""
    start = time.perf_counter()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        trainings = pool.submit(fit, *arguments).result()
    return Process(trainings, time.perf_counter() - start)


# --- both ---------------------------------------------------------------------------------


def compare(repo: Path, n: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Run their scripts and our methods, one after the other: tables of scores, losses, seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(mm.load_dataset(WORLD, n=n, seed=seed), folder)
        their_sub = run_script(repo, "main_eval.py", folder, {"epoch": SUB_EPOCHS} | SUB_PARAMS)
        their_map = run_script(repo, "main.py", folder, {"epoch": MAP_EPOCHS} | MAP_PARAMS)
    questions = read_questions(their_sub.printed)
    params: dict[str, Any] = {"phase1_epochs": SUB_EPOCHS} | SUB_PARAMS
    our_sub = timed_fit("MultiSub", questions, n, seed, params)
    early = timed_fit("MultiSub", questions, n, seed, params | {"early_stopping": True})
    our_map = timed_fit("MultiMaP", questions, n, seed, {"epochs": MAP_EPOCHS} | MAP_PARAMS)
    pairs = {"MultiSub": (their_sub, our_sub), "MultiMaP": (their_map, our_map)}
    losses = {
        (method, question.criterion): pd.DataFrame({"loss theirs": a.losses, "loss ours": b.losses})
        for method, (theirs, ours) in pairs.items()
        for question, a, b in zip(questions, theirs.trainings, ours.trainings, strict=True)
    }
    processes = {
        "main_eval.py": their_sub,
        "MultiSub": our_sub,
        "MultiSub, early stopping": early,
        "main.py, without scores": their_map,
        "MultiMaP, without scores": our_map,
    }
    times = [
        {"process": name, "seconds": p.seconds, "last epoch": [max(t.losses) for t in p.trainings]}
        for name, p in processes.items()
    ]
    loss_table = pd.concat(losses, names=["method", "criterion", "epoch"]).dropna().reset_index()
    return score_table(questions, their_sub, our_sub, early), loss_table, pd.DataFrame(times)


def score_table(questions: list[Question], *processes: Process) -> pd.DataFrame:
    """A row per criterion and representation: the scores of theirs and ours, and the NMI of ours
    with early stopping."""
    theirs, ours, early = (
        pd.concat(
            {q.criterion: pd.DataFrame(t.scores).T for q, t in zip(questions, process.trainings)},
            names=["criterion", "representation"],
        )
        for process in processes
    )
    sides = {"theirs": theirs, "ours": ours}
    columns = {f"{m} {side}": sides[side][m] for m in ("NMI", "ARI", "RI") for side in sides}
    columns["NMI ours, early stopping"] = early["NMI"]
    return pd.DataFrame(columns).reset_index()


def early_stopping_sentence(scores: pd.DataFrame, times: pd.DataFrame) -> str:
    """In how many seconds early stopping gives the NMI of main_eval.py, or that it does not."""
    seconds = times.set_index("process")["seconds"]
    difference = (scores["NMI ours, early stopping"] - scores["NMI theirs"]).abs()
    same = difference <= TOLERANCE
    names = scores["criterion"] + " " + scores["representation"]
    others = ", ".join(names[~same]) or "none"
    return (
        f"With early stopping ours needs {seconds['MultiSub, early stopping']:.1f} s, main_eval.py "
        f"{seconds['main_eval.py']:.1f} s. Its NMI is within {TOLERANCE} of theirs in {same.sum()} "
        f"of {len(same)} rows; not in: {others} (largest difference {difference.max():.4f})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repo", type=checkout, required=True, help=f"a checkout of {URL}")
    parser.add_argument("-n", type=int, default=80, help=f"pictures: a multiple of {BATCH}")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures")
    args = parser.parse_args()
    if args.n < 1 or args.n % BATCH:
        reason = "the scripts print means over batches"
        parser.error(f"-n must be a multiple of the batch, {BATCH}, not {args.n}: {reason}")
    os.environ.update(waiting_environment())  # for the processes of both sides
    scores, losses, times = compare(args.repo, args.n, args.seed)
    print(f"{URL}, commit {commit(args.repo)}; {args.n} pictures of {WORLD}, seed {args.seed}\n")
    for table, digits in ((scores, ".4f"), (losses, ".4g"), (times, ".1f")):
        print(table.to_markdown(index=False, floatfmt=digits), end="\n\n")
    print(early_stopping_sentence(scores, times))


if __name__ == "__main__":
    main()
