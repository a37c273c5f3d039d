"""Everything that a GPU changes, checked in a few minutes: `python -m tools.gpu_check --out DIR`.

Needs no network. The parts run in the order of their importance, each within its limit, in a child
process that is ended when a part takes too long; then a new one goes on with the next part. After
every line, `gpu_check.json` and `gpu_check.md` in DIR are written again, so that a run that is cut
off leaves what it has. Messages of the libraries are in `gpu_check.log`.

The exit code is 0 if all parts passed; otherwise each part that did not is named in a sentence.
`tools/gpu_bundle.sh` collects what a machine without a network lacks. On the CPU,
`--device cpu --tiny` runs the same code with tiny sizes, as a test does.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
EMBEDDING_TOLERANCE = 1e-3
NMI_TOLERANCE = 5e-4  # equal to the third digit
REFERENCE = "cpu"
FRUITS = 256  # different images where many are needed
METHODS = ("KMeans", "CLIP_GPT", "MultiMaP", "MultiSub", "MultiDProxy")
# A tower with random weights is slow on the CPU, with which the GPU is compared.
FEW_EPOCHS = {
    "MultiMaP": {"epochs": 20},
    "MultiSub": {"alternations": 2, "phase1_epochs": 10, "phase2_epochs": 5},
    "MultiDProxy": {"epochs": 20, "update_every": 10},
}
TINY_PROFILE = """
base: demo
judged: [color]
methods: {MultiSub: {alternations: 1, phase1_epochs: 3}}
notebooks:
  02_main_comparison:
    criteria: {demo-fruit: [color]}
    judged: [color]
    representations: {KMeans: [null], CLIP_GPT: [null], MultiSub: [prompt]}
"""
Row = dict[str, Any]


@dataclass
class Sizes:
    """How much the parts compute."""

    architecture: str = "ViT-B-32-quickgelu"  # of open_clip, with random weights
    n_mini: int = 105  # images whose clusterings are compared, with mini
    n_random: int = 60  # and with random weights
    epoch_images: tuple[int, ...] = (105, 8029)
    # For each of these numbers; the first epoch warms up. With 8,029 images the authors' way takes
    # one, warm from the batches before, which have the same size.
    epochs: dict[str, tuple[int, ...]] = field(
        default_factory=lambda: {"ours": (4, 3), "the authors'": (4, 1)}
    )
    pictures: int = 6000  # JPEG files; above 4,096 they are encoded in stored batches
    memory_images: int = 16_384  # with mini, some 40 kB each in training
    notebook: tuple[str, ...] = ("-p", "n=60", "-p", "seeds=1")
    tests: tuple[str, ...] = ("tests/test_cuda.py", "tests/test_prompt.py", "-k", "cuda")


TINY = Sizes(
    "ViT-S-32-alt", n_mini=12, n_random=8, epoch_images=(6,), pictures=20, memory_images=32,
    epochs={"ours": (2,), "the authors'": (1,)},
    notebook=("-p", "n=12", "-p", "seeds=1", "--workers", "1"),
    tests=("tests/test_cuda.py", "-k", "sampled or benchmark"),
)  # fmt: skip


# --------------------------------------------------------------------------- the parts, in a child


def same_results(device: str, sizes: Sizes) -> Iterator[Row]:
    """Embeddings within 1e-3, the same labels, NMI equal to the third digit: CPU and GPU."""
    import mmclust as mm
    from mmclust.encoders.open_clip import OpenCLIPEncoder
    from mmclust.experiments.epoch_cost import build_encoder

    def random_tower(where: str) -> Any:
        return build_encoder(OpenCLIPEncoder, sizes.architecture, device=where)

    choices: list[tuple[str, int, Callable[[str], Any]]] = [
        ("mini", sizes.n_mini, lambda where: mm.load_encoder("mini", where)),
        (sizes.architecture, sizes.n_random, random_tower),
    ]
    choices.insert(1, ("photo", sizes.n_mini, lambda where: mm.load_encoder("photo", where)))
    for name, n, load in choices:
        data = mm.load_dataset("demo-fruit", n=n, seed=0)
        words = mm.reference_words("color", of="fruit")
        encoders = [load(where) for where in (REFERENCE, device)]
        yield from compare_embeddings(name, encoders, data.images, words)
        params = mm.settings("02_main_comparison").methods
        if name == sizes.architecture:
            params = {method: params[method] | FEW_EPOCHS[method] for method in params}
        for method in METHODS:
            yield compare_fits(name, encoders, method, params.get(method, {}), data, words)


def in_cache(encoder: Any) -> None:
    """Store what is computed from now on by device: the keys do not contain it."""
    os.environ["MMCLUST_CACHE"] = str(Path(os.environ["GPU_CHECK"]) / f"cache-{encoder.device}")


def compare_embeddings(name: str, encoders: list, images: Any, words: Any) -> Iterator[Row]:
    vectors: dict[str, list] = {"images": [], "prompts": [], "patches": []}
    for encoder in encoders:
        in_cache(encoder)
        vectors["images"].append(encoder.encode_images(images))
        vectors["prompts"].append(encoder.encode_words(words, words.template))
        with contextlib.suppress(ValueError):  # a convolutional tower has none
            vectors["patches"].append(encoder.patch_tokens(images[:8]))
    if encoders[1].device.type == "cuda":
        vectors["images, cuDNN in TF32"] = [vectors["images"][0], with_tf32(encoders[1], images)]
    for what, (reference, ours) in (pair for pair in vectors.items() if pair[1]):
        difference = float(abs(ours - reference).max())
        row: Row = {"encoder": name, "what": what, "largest difference": difference}
        if difference > EMBEDDING_TOLERANCE and "TF32" not in what:
            row["problem"] = f"{what} of {name} differ by {difference:.1e}"
        yield row


def with_tf32(encoder: Any, images: Any) -> Any:
    """Image embeddings as they would be with cuDNN's default, which the package switches off."""
    import torch
    import torch.nn.functional as F

    pixels = torch.stack([encoder.preprocess(image) for image in images]).to(encoder.device)
    with torch.inference_mode():
        out = encoder.image_trunk(pixels) @ encoder.image_projection
    return F.normalize(out, dim=-1).cpu().numpy()


def compare_fits(
    name: str, encoders: list, method: str, params: dict, data: Any, words: Any
) -> Row:
    import mmclust as mm
    from mmclust.plugins import filter_kwargs

    estimator = getattr(mm, method)
    offered = {"words": words, "n_clusters": data.n_clusters("color"), "random_state": 0}
    options = filter_kwargs(estimator, **offered, concepts=["color", "species"]) | params
    labels, nmi, seconds = [], [], []
    for encoder in encoders:
        in_cache(encoder)
        start = time.perf_counter()
        labels.append(estimator(encoder, **options).fit(data.images).labels_)
        seconds.append(time.perf_counter() - start)
        nmi.append(mm.score(data.labels["color"], labels[-1])["NMI"])
    differ = int((labels[0] != labels[1]).sum())
    row: Row = {"encoder": name, "what": method, "NMI, CPU": nmi[0], "NMI, device": nmi[1]}
    row |= {"images": len(data.images), "labels that differ": differ}
    row |= {"fit, CPU (s)": seconds[0], "fit, device (s)": seconds[1]}
    if differ:
        row["problem"] = f"{method} with {name}: {differ} of {len(labels[0])} labels differ"
    if abs(nmi[0] - nmi[1]) > NMI_TOLERANCE:
        row["problem"] = f"{method} with {name}: NMI {nmi[0]:.4f} and {nmi[1]:.4f}"
    return row


def suite(device: str, sizes: Sizes) -> Iterator[Row]:
    """The tests of the suite that need a GPU, autocast among them."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-rfEs"]
    run = subprocess.run(
        [*command, "-m", "", "--no-header", *sizes.tests], cwd=ROOT, text=True, capture_output=True
    )
    print(run.stdout, run.stderr)
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (\w+)", last_line(run.stdout))}
    row: Row = {name: counts.get(name, 0) for name in ("passed", "failed", "skipped")}
    failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", run.stdout, re.MULTILINE)
    if run.returncode or not row["passed"] or (device != REFERENCE and row["skipped"]):
        row["problem"] = "; ".join(failed) or f"tests: {last_line(run.stdout + run.stderr)}"
    yield row


def brief(text: str) -> str:
    """The end of a text, without the lines of tables."""
    return " ".join(re.sub(r"[\s\u2500-\u257f]+", " ", text).split())[-300:]


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def too_little_memory(device: str, sizes: Sizes) -> Iterator[Row]:
    """A fit that needs too much ends with half as many images at a time, and the same labels."""
    import numpy as np

    import mmclust as mm
    from mmclust.experiments.workbench import Workbench
    from mmclust.methods import pair_losses

    n = sizes.memory_images
    # What does not depend on the number of images at a time is small here: Phase II is left out,
    # and negatives, whose prompts run at once, are few.
    params: dict[str, dict] = FEW_EPOCHS | {
        "MultiSub": {"alternations": 1, "phase1_epochs": 20, "phase2_epochs": 0},
        "MultiDProxy": FEW_EPOCHS["MultiDProxy"] | {"negatives": min(256, n // 2)},
    }
    bench = Workbench(device)
    for method, values in params.items():
        (e,) = mm.grid(
            dataset="tools.gpu_check:many_fruits", criterion="color", method=method, n=n,
            params=values | {"chunk_size": n},
        )  # fmt: skip
        images = bench.dataset(e).images
        encoder = bench.encoder(e.encoder)
        features = np.resize(
            encoder.features(images[:FRUITS]), (n, encoder.image_projection.shape[0])
        )
        encoder.set_features(images, features)
        memory, labels = {}, {}
        for chunk in (n, n // 2):
            model = bench.estimator(e).set_params(chunk_size=chunk)
            memory[chunk] = fit_and_peak(device, model, images)
            labels[chunk] = model.labels_
        limit = limited(device, encoder, memory, n)
        with limit, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model, seconds = bench.fit(e)
        differ = int((model.labels_ != labels[n]).sum())
        row: Row = {"method": method, "images": n, "labels that differ": differ}
        row |= {f"GB, {chunk} at a time": peak[0] / 1e9 for chunk, peak in memory.items()}
        row |= {
            "limit (GB)": limit.bytes / 1e9,
            "images at a time": model.chunk_size,
            "fit (s)": seconds,
        }
        messages = [str(w.message) for w in caught if "GPU memory" in str(w.message)]
        if model.chunk_size != n // 2 or len(messages) != 1:
            row["problem"] = f"{method}: {model.chunk_size} at a time after {len(messages)} retries"
        elif differ:
            row["problem"] = f"{method}: {differ} of {n} labels differ"
        yield row
    few = images[: pair_losses.MAX_IMAGES_ALL_PAIRS]
    encoder.set_features(few, features[: len(few)])
    options = {"alternations": 1, "phase1_epochs": 1, "phase2_epochs": 1}
    words = mm.reference_words("color", of="fruit")
    model = mm.MultiSub(encoder, words, n_clusters=3, random_state=0, **options)
    peak = fit_and_peak(device, model, few)[0]
    yield {"method": "MultiSub, Phase II with all pairs", "images": len(few), "GB": peak / 1e9}


def many_fruits(n: int) -> Any:
    """n images, which repeat after `FRUITS` of them: rendering them takes most of the time."""
    import numpy as np

    import mmclust as mm
    from mmclust.data.images import ImageDataset, Images

    fruits = mm.load_dataset("demo-fruit", n=min(n, FRUITS), seed=0)
    images = Images(n, lambda i: fruits.images[i % len(fruits)], f"{n} fruits of {len(fruits)}")
    labels = {"color": np.resize(fruits.labels["color"], n)}
    classes = {"color": fruits.classes["color"]}
    return ImageDataset("many fruits", "fruit", images, labels, classes)


def fit_and_peak(device: str, model: Any, images: Any) -> tuple[int, int]:
    """The most bytes in tensors, and taken from the device for them, in a fit; 0 on a CPU."""
    import torch

    if device == REFERENCE:
        model.fit(images)
        return 0, 0
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model.fit(images)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


class limited:
    """A context with less memory than a fit of all n images at a time needs, and enough for half;
    on a CPU, text towers that refuse more than half of the images."""

    def __init__(self, device: str, encoder: Any, memory: dict, n: int) -> None:
        self.device, self.encoder, self.n = device, encoder, n
        # between all images in tensors alone, and half of them with what is not used in between
        self.bytes = (memory[n][0] + memory[n // 2][1]) // 2
        self.hook: Any = None

    def __enter__(self) -> None:
        import torch

        if self.device != REFERENCE:
            gc.collect()
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(self.bytes / total)
            return

        def refuse(module: Any, args: tuple) -> None:
            if len(args[0]) > self.n // 2:
                raise torch.cuda.OutOfMemoryError(f"{len(args[0])} images at a time")

        block = self.encoder.model.transformer.resblocks[0]
        self.hook = block.ln_1.register_forward_pre_hook(refuse)

    def __exit__(self, *error: object) -> None:
        import torch

        if self.hook:
            self.hook.remove()
        else:
            torch.cuda.set_per_process_memory_fraction(1.0)


def epochs(device: str, sizes: Sizes) -> Iterator[Row]:
    """Seconds and memory of an epoch, forward and backward, beside the authors' way: 77 tokens."""
    import numpy as np

    from mmclust.data.images import Images
    from mmclust.encoders.open_clip import OpenCLIPEncoder
    from mmclust.experiments.epoch_cost import (
        AUTHORS_WAY,
        LOSS_TOLERANCE,
        SETTINGS,
        build_encoder,
        build_model,
    )

    ours = build_encoder(OpenCLIPEncoder, sizes.architecture, device=device)
    losses: dict[tuple, list[float]] = {}

    def measure(way: str, method: str, images: Images, n_epochs: int) -> Row:
        estimator, params = SETTINGS[method]
        name = "phase1_epochs" if "phase1_epochs" in params else "epochs"
        params = params | AUTHORS_WAY[method].changes | {name: n_epochs}
        if way == "ours":
            model = build_model(estimator, params, ours, images)
        else:
            model = AUTHORS_WAY[method].build(params, ours, images)
        peak = fit_and_peak(device, model, images)[0]
        seconds = float(np.median(model.seconds_[1:] or model.seconds_))
        loss = model.history_[-1]["loss"]
        series = losses.setdefault((method, len(images)), [row["loss"] for row in model.history_])
        reference = series[n_epochs - 1]
        row: Row = {"method": method, "n": len(images), "way": way, "epoch (s)": seconds}
        row |= {"epochs": n_epochs, "GB": peak / 1e9, "loss": loss}
        if abs(loss - reference) > LOSS_TOLERANCE * abs(reference):
            row["problem"] = f"{method}, {way}, n = {len(images)}: loss {loss}, not {reference}"
        return row

    rng = np.random.default_rng(0)
    data = [
        Images.of(rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)) for n in sizes.epoch_images
    ]
    for way in ("ours", "the authors'"):
        for images, n_epochs in zip(data, sizes.epochs[way]):
            for method in SETTINGS:
                yield measure(way, method, images, n_epochs)


def encoding(device: str, sizes: Sizes) -> Iterator[Row]:
    """Images per second from JPEG files, beside the bare image tower and decoding alone."""
    import mmclust as mm
    from benchmarks.encoding import write_pictures
    from mmclust.encoders.open_clip import OpenCLIPEncoder
    from mmclust.experiments.epoch_cost import build_encoder

    folder = Path(os.environ["GPU_CHECK"]) / "pictures"
    folder.mkdir(exist_ok=True)
    write_pictures(folder, sizes.pictures)
    encoders = [mm.load_encoder("mini", device)]
    encoders.append(build_encoder(OpenCLIPEncoder, sizes.architecture, device=device))

    for encoder in encoders:
        yield encoding_rates(encoder, mm.load_folder(folder).images, device)


def encoding_rates(encoder: Any, images: Any, device: str) -> Row:
    """Images per second, and seconds for the hash of the files' contents."""
    import torch

    from benchmarks.encoding import BATCH

    few = images[: 8 * BATCH]
    pixels = torch.stack([encoder.preprocess(image) for image in images[:BATCH]]).to(device)

    def tower() -> None:
        with torch.inference_mode():
            for _ in range(8):
                encoder.image_trunk(pixels)

    def decode() -> None:
        for _ in encoder._batches(lambda pixels: pixels[:, 0, 0, :1], few, BATCH):
            pass

    def seconds(run: Callable[[], Any]) -> float:
        start = time.perf_counter()
        run()
        if device != REFERENCE:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    seconds(tower)  # warm up
    rates = {"bare tower": 8 * len(pixels) / seconds(tower)}
    rates["decoding"] = len(few) / seconds(decode)
    contents = seconds(lambda: images.fingerprint)
    rates["encoding"] = len(images) / seconds(lambda: encoder.features(images))
    slower = min(rates["bare tower"], rates["decoding"])
    row: Row = {"encoder": encoder.name, "n": len(images), **rates}
    return row | {"of the slower part": rates["encoding"] / slower, "contents (s)": contents}


def notebook(device: str, sizes: Sizes) -> Iterator[Row]:
    """Notebook 02 through a Dask worker: every row was computed on the device."""
    import pandas as pd

    folder = Path(os.environ["GPU_CHECK"])
    cache = folder / "cache-notebook"
    profile = folder / "tiny.yaml"
    profile.write_text(TINY_PROFILE, encoding="utf-8")
    command = [sys.executable, "run_all.py", "--device", device, "--only", "02", *sizes.notebook]
    command += ["--out", str(folder / "figures")]
    command += ["--profile", str(profile)] if sizes == TINY else []
    start = time.perf_counter()
    environment = os.environ | {"MMCLUST_CACHE": str(cache)}
    run = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)
    seconds = time.perf_counter() - start
    print(run.stdout, run.stderr)
    row: Row = {"command": " ".join(map(str, command[1:6])), "seconds": seconds}
    if run.returncode:
        row["problem"] = f"run_all.py: {brief(run.stdout)} {brief(run.stderr)}"
        yield row
        return
    log = pd.read_csv(cache / "runs.csv")
    row |= {"rows": len(log), "processes": log["process"].nunique()}
    row |= {"fits (s)": log["fit_seconds"].sum(), "scores (s)": log["score_seconds"].sum()}
    if set(log["device"].str.partition(":")[0]) != {device.partition(":")[0]}:
        row["problem"] = f"rows were computed on {sorted(set(log['device']))}"
    yield row


@dataclass
class Part:
    """A part of the check, and how it ended."""

    name: str
    what: str
    run: Callable[[str, Sizes], Iterator[Row]]
    share: float  # the limit, as a part of the time for all; more than 1 together
    result: str = "not run"
    seconds: float = 0.0
    limit: float = 0.0
    problems: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def all_parts() -> list[Part]:
    """The parts in the order of their importance."""
    return [
        Part("same results", "CPU and GPU give the same embeddings and labels", same_results, 0.4),
        Part("suite", "the tests of the suite that need a GPU", suite, 0.3),
        Part("memory", "too little memory: half as many images at a time", too_little_memory, 0.2),
        Part("notebook", "notebook 02 through the Dask worker", notebook, 0.4),
        Part("encoding", "images per second from JPEG files", encoding, 0.25),
        Part("epochs", "an epoch of each method, beside the authors' way", epochs, 0.8),
    ]


# ------------------------------------------------------------------- the child, and the one parent


def child(names: list[str], device: str, tiny: bool) -> int:
    """Run parts; a line of JSON for each event goes to standard output, all else to the log."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(kind: str, **event: Any) -> None:
        print(json.dumps({"kind": kind, **event}, default=float), file=channel, flush=True)

    for part in [part for part in all_parts() if part.name in names]:
        print(f"--- {part.name}", flush=True)
        try:
            if part.name == names[0]:
                send("environment", values=environment(device))
            for row in part.run(device, TINY if tiny else Sizes()):
                print(row, flush=True)
                send("row", part=part.name, row=row)
        except Exception as error:  # after an error of CUDA, a process can't go on
            traceback.print_exc()
            send("error", part=part.name, text=f"{type(error).__name__}: {error}"[:600])
            return 1
        send("end", part=part.name)
        gc.collect()
    return 0


def environment(device: str) -> Row:
    import numpy
    import open_clip
    import torch

    row: Row = {"device": device, "card": platform.processor() or platform.machine()}
    if device != REFERENCE:
        properties = torch.cuda.get_device_properties(device)
        row |= {"card": properties.name, "card memory (GB)": properties.total_memory / 1e9}
    row |= {
        "torch": torch.__version__,
        "CUDA": torch.version.cuda or "",
        "numpy": numpy.__version__,
    }
    row |= {"open_clip": open_clip.__version__, "Python": platform.python_version()}
    row |= {"cores": len(os.sched_getaffinity(0)), "torch threads": torch.get_num_threads()}
    row["TF32 in products of matrices"] = torch.backends.cuda.matmul.allow_tf32
    row["TF32 in cuDNN (off in the package's image towers)"] = torch.backends.cudnn.allow_tf32
    return row


class Report:
    """The files in the output folder."""

    def __init__(self, out: Path, parts: list[Part]) -> None:
        self.out = out
        self.parts = parts
        self.environment: Row = {}
        self.start = time.time()
        out.mkdir(parents=True, exist_ok=True)

    def write(self) -> None:
        parts = []
        for part in self.parts:
            values = {k: v for k, v in vars(part).items() if k not in ("run", "share")}
            parts.append(values)
        report = self.environment | {"seconds": time.time() - self.start, "parts": parts}
        for name, text in (
            ("gpu_check.json", json.dumps(report, indent=1, default=float)),
            ("gpu_check.md", self.markdown()),
        ):
            temporary = self.out / f".{name}"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.out / name)

    def markdown(self) -> str:
        import pandas as pd

        facts = ", ".join(f"{k} {v}" for k, v in self.environment.items() if k != "card")
        lines = [f"# {self.environment.get('card', '?')}", "", f"{facts}.", ""]
        overview = [
            {"part": p.name, "what": p.what, "result": p.result, "seconds": p.seconds}
            | {"limit": p.limit, "problems": "; ".join(p.problems)[:120]}
            for p in self.parts
        ]
        lines += [pd.DataFrame(overview).to_markdown(index=False, floatfmt=".1f")]
        for part in self.parts:
            if part.rows:
                table = pd.DataFrame(part.rows).astype(object)
                table = table.where(table.notna(), "")
                text = table.to_markdown(index=False, floatfmt=".4g", disable_numparse=False)
                lines += ["", f"## {part.name}", "", text]
        return "\n".join([*lines, ""])


def run_child(todo: list[Part], report: Report, args: argparse.Namespace, deadline: float) -> None:
    """Run parts in one process until one of them fails; parts that ended are taken off `todo`."""
    command = [sys.executable, "-m", "tools.gpu_check", "--device", args.device, "--child"]
    command += [part.name for part in todo] + ["--tiny"] * args.tiny
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with (report.out / "gpu_check.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True,
            env=os.environ | {"PYTHONPATH": path, "TQDM_DISABLE": "1"},
        )  # fmt: skip
    events: queue.Queue[Row | None] = queue.Queue()
    threading.Thread(target=read, args=(process.stdout, events), daemon=True).start()
    try:
        while todo and follow(todo[0], events, process, report, args.minutes * 60, deadline):
            todo.pop(0)
        if todo and todo[0].result != "not run":
            todo.pop(0)
    finally:
        end(process)


def follow(
    part: Part, events: queue.Queue, process: Any, report: Report, total: float, deadline: float
) -> bool:
    """Take a part's events until it ends; False if its process can't go on with the next one."""
    start = time.time()
    part.limit = max(0.0, min(part.share * total, deadline - start))
    if not part.limit:
        return False
    while True:
        event: Row | None = {}
        try:
            event = events.get(timeout=max(0.0, start + part.limit - time.time()))
        except queue.Empty:
            part.problems.append(f"it was ended after {part.limit:.0f} s")
        part.seconds = time.time() - start
        if event is None:
            part.problems.append(f"its process ended with code {process.wait()}")
        elif event.get("kind") == "environment":
            report.environment = event["values"]
        elif event.get("kind") == "row":
            row = event["row"]
            part.problems += filter(None, [row.pop("problem", "")])
            part.rows.append(row)
        elif event.get("kind") == "error":
            part.problems.append(event["text"])
        going_on = event is not None and event.get("kind") in ("environment", "row")
        if not going_on:
            part.result = "failed" if part.problems else "passed"
        report.write()
        if not going_on:
            print(f"{part.name}: {part.result}, {part.seconds:.1f} s", flush=True)
            return event is not None and event.get("kind") == "end"


def read(stream: IO[str], events: queue.Queue) -> None:
    """Put the events of a child into a queue, and None at its end."""
    for line in stream:
        events.put(json.loads(line))
    events.put(None)


def end(process: subprocess.Popen) -> None:
    """End a child and all that it started."""
    family = []
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    for descendant in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            descendant.kill()
    process.wait()


def main() -> int:
    names = [part.name for part in all_parts()]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, help="folder for the report")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=5.5, help="for everything together")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="PART")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, as in the test")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child, args.device, args.tiny)
    if not args.out:
        parser.error("--out is required: a folder for the report")
    parts = [part for part in all_parts() if part.name in args.only]
    report = Report(args.out.resolve(), parts)
    deadline = time.time() + args.minutes * 60
    todo = list(parts)
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as folder:
        os.environ["GPU_CHECK"] = folder
        os.environ["MMCLUST_CACHE"] = str(Path(folder) / "cache")
        while todo and time.time() < deadline:
            run_child(todo, report, args, deadline)
    report.write()
    print(report.markdown())
    for part in parts:
        if part.result != "passed":
            reason = "; ".join(part.problems) or "there was no time left"
            print(f"The part {part.name!r} is {part.result}: {reason}.", file=sys.stderr)
    return int(any(part.result != "passed" for part in parts))


if __name__ == "__main__":
    sys.exit(main())
