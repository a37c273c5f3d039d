"""Experiments and their rows: a grid of what to run, a store of what was run, a tidy frame of both."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import time
import warnings
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from mmclust import backend, plugins, runs, store
from mmclust.datasets import load_dataset
from mmclust.datasets.papers import PAPERS, SeparateCriteria, draw
from mmclust.encoders import load_encoder
from mmclust.profiles import of_dataset
from mmclust.words import ReferenceWords, prompt_template, reference_words

if TYPE_CHECKING:
    from mmclust.datasets.base import ImageDataset
    from mmclust.encoders.base import Encoder

METHODS = ("KMeans", "CLIP_GPT", "CLIP_label", "MultiMaP", "MultiSub", "MultiDProxy")
OF_IMAGES, OF_WORDS = "image", "assignment"  # what the methods without a choice cluster
COLUMNS = ["dataset", "criterion", "encoder", "method", "representation", "seed", "NMI", "RI", "ARI", "AMI", "NMI_std", "clusters", "words", "n", "key"]


@dataclass(frozen=True)
class Experiment:
    """One fit of one method and the representation that is scored: one row.

    Attributes:
        dataset, n, seed: which images; the seed also seeds the method.
        criterion: the keyword, and the labelling that it is scored against.
        method: one of `METHODS`, or "module:Class" of your own. representation: of those the method offers; None is its default.
        params: the method's parameters, apart from encoder, template, words, n_clusters, representation and random_state.
        encoder: its name. words: reference words; None takes the lexicon's, "openai:MODEL" those that the language model gave.
        kmeans_seeds: k-means seeds that are averaged (the papers: 10).
    """

    dataset: str
    criterion: str
    method: str
    representation: str | None = None
    seed: int = 0
    n: int | None = None
    encoder: str = "mini"
    params: dict = field(default_factory=dict, hash=False)
    words: tuple[str, ...] | str | None = None
    kmeans_seeds: int = 10


def grid(**axes: Any) -> list[Experiment]:
    """All combinations of the axes, each a value or a list of values: `grid(dataset=["demo-fruit"], criterion=["color"], method=METHODS, seed=range(5))`.

    `params` is one dictionary for all, or method -> dictionary; a key `datasets` in it, data set -> dictionary, says what differs there.
    `criterion` may be data set -> criteria, `representation` method -> one or a list.

    Raises:
        ValueError: for an unknown method or axis.
    """
    known = {f for f in Experiment.__dataclass_fields__}
    if unknown := axes.keys() - known:
        raise ValueError(f"an experiment has no {sorted(unknown)[0]!r}: {', '.join(Experiment.__dataclass_fields__)}")
    params, criteria = axes.pop("params", {}), axes.pop("criterion")
    words, shown = axes.pop("words", None), axes.pop("representation", None)
    words = None if not words or words == "lexicon" else words if isinstance(words, str) else tuple(words)
    names = list(axes)
    values = [_listed(v) for v in axes.values()]
    out = []
    for combination in itertools.product(*values):
        setting = dict(zip(names, combination))
        method_class(setting["method"])
        of = criteria[setting["dataset"]] if isinstance(criteria, dict) else criteria
        own = params.get(setting["method"], {}) if all(k in METHODS or plugins.is_own(k) for k in params) else params
        represented = shown.get(setting["method"]) if isinstance(shown, dict) else shown
        own = of_dataset(own, setting["dataset"])
        for criterion, representation in itertools.product(_listed(of), _listed(represented)):
            out.append(Experiment(criterion=criterion, representation=representation, params=own, words=words, **setting))
    return out


def _listed(value: Any) -> list:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else [value]


def method_class(name: str) -> type[Any]:
    """The estimator of a method's name.

    Raises:
        ValueError: for a name that is neither one of `METHODS` nor "module:Class" of your own.
    """
    import mmclust

    if plugins.is_own(name):
        return plugins.own(name)
    if name not in METHODS:
        raise ValueError(f'method {name!r} is none of {", ".join(METHODS)}, nor "module:Class" of your own')
    return getattr(mmclust, name)


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """A hash of the code that computes a row: a changed method never serves an old one."""
    package, digest = Path(__file__).parent, hashlib.sha256()
    rooms = [package / "worlds.py", package / "metrics.py", Path(__file__), *(package / d for d in ("datasets", "words", "encoders", "methods"))]
    for file in sorted(f for room in rooms for f in ([room] if room.is_file() else room.rglob("*"))):
        if file.suffix in (".py", ".yaml") and file.name not in ("train.py", "evaluate.py"):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def run(experiments: list[Experiment], device: str = "cpu", progress: bool = True) -> pd.DataFrame:
    """The rows of the experiments, in order: from the store where they exist, else computed and stored.

    Experiments that differ in the representation alone share one fit. A run that is killed loses the fit it was in. Where this process is
    connected to a scheduler (`mm.connect`, or run_all.py did so), its workers compute; otherwise this process does.

    Returns:
        A tidy frame with `COLUMNS`; `NMI` and the others are means over the k-means seeds.

    Raises:
        ConnectionError: the scheduler does not answer, or went away.
    """
    bench = Workbench(device)
    keys = [bench.key(e) for e in experiments]
    rows = {key: row for key in keys if (row := read_row(key)) is not None}
    fits = missing_fits(experiments, keys, rows)
    quiet = {} if progress and fits else {"disable": True}  # not False: that would overrule TQDM_DISABLE
    client = backend.current() if fits else None
    runs.note_progress(asked=len(set(keys)), stored=len(rows))
    with tqdm(total=sum(map(len, fits)), desc=f"experiments ({len(rows)} of {len(set(keys))} stored)", **quiet) as bar:

        def done(key: str, row: dict) -> None:
            rows[key] = row
            bar.update()
            runs.note_progress(done=1)

        if client is not None:
            backend.compute(client, bench, experiments, keys, fits, device, done)
        for group in fits if client is None else []:
            for i in group:
                if (row := read_row(keys[i])) is not None:  # another process was there in the meantime
                    done(keys[i], row)
            if left := [i for i in group if keys[i] not in rows]:
                model, seconds = bench.fit(experiments[left[0]])
                for i in left:
                    done(keys[i], bench.row(model, experiments[i], keys[i], seconds))
    return pd.DataFrame([rows[key] for key in keys], columns=COLUMNS)


def missing_fits(experiments: list[Experiment], keys: list[str], stored: Container[str]) -> list[list[int]]:
    """Positions of the experiments whose key is not among `stored`, those that share a fit together."""
    fits: dict[str, list[int]] = {}
    for i, (e, key) in enumerate(zip(experiments, keys)):
        if key not in stored:
            fits.setdefault(json.dumps(asdict(e) | {"representation": None}, sort_keys=True, default=str), []).append(i)
    return list(fits.values())


def read_row(key: str) -> dict | None:
    """A stored row, or None. A damaged file is told; one that an older version wrote, without a checksum, counts as none."""
    path = store.cache_dir() / "rows" / f"{key}.json"
    try:
        row = store.open_row(path.read_bytes(), key)
    except (OSError, ValueError) as error:
        store.tell_damage(path, error)
        return None
    if row:
        store.used(path)
        row.pop("code", None)
    return row


def write_row(key: str, row: dict) -> None:
    """Store a row, and which code computed it; where the store can't be written, that is told and the row stays with the caller."""
    store.save(store.cache_dir() / "rows" / f"{key}.json", store.seal_row(row | {"code": code_fingerprint()}))


class Workbench:
    """Encoders and data sets, loaded once and kept between experiments."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._encoders: dict[str, Encoder] = {}
        self._datasets: dict[tuple, Any] = {}

    def encoder(self, name: str) -> Encoder:
        if name not in self._encoders:
            self._encoders[name] = load_encoder(name, self.device)
        return self._encoders[name]

    def dataset(self, e: Experiment) -> ImageDataset:
        if e.dataset in PAPERS:
            return draw(self._paper(e), e.n, e.seed)
        key = (e.dataset, e.n, e.seed)
        if key not in self._datasets:
            from mmclust.worlds import WORLDS

            options = {"seed": e.seed} | ({"n": e.n} if e.n else {}) if e.dataset in WORLDS or plugins.is_own(e.dataset) else {}
            self._datasets[key] = load_dataset(e.dataset, **options)
        return self._datasets[key]

    def _paper(self, e: Experiment) -> Any:
        """A data set of the papers, once for all seeds; where its trees hold different pictures, the part with the experiment's criterion."""
        whole, part = (e.dataset,), (e.dataset, e.criterion)
        if not self._datasets.keys() & {whole, part}:
            try:
                self._datasets[whole] = load_dataset(e.dataset)
            except SeparateCriteria:
                self._datasets[part] = load_dataset(e.dataset, criterion=e.criterion)
        return self._datasets.get(whole) or self._datasets[part]

    def words(self, e: Experiment) -> ReferenceWords:
        domain, classes = self.dataset(e).domain, self.dataset(e).classes[e.criterion]
        if e.method == "CLIP_label":
            return ReferenceWords(classes, "the true class names", prompt_template(e.criterion, of=domain))
        if e.words and not isinstance(e.words, str):
            return ReferenceWords(e.words, "given", prompt_template(e.criterion, of=domain))
        return reference_words(e.criterion, of=domain, seed=e.seed, source=str(e.words or "lexicon"))

    def key(self, e: Experiment) -> str:
        data = self.dataset(e)
        about = [asdict(e), data.images.fingerprint, data.labels[e.criterion].tolist(), self.encoder(e.encoder).fingerprint, code_fingerprint()]
        about += [plugins.source(name) for name in (e.method, e.encoder, e.dataset) if plugins.is_own(name)]
        if isinstance(e.words, str):  # an answer may be edited
            words = self.words(e)
            about += [list(words), words.template]
        return store.key_of("row", *about)

    def estimator(self, e: Experiment) -> Any:
        """The experiment's method, ready to fit."""
        kind, data, words = method_class(e.method), self.dataset(e), self.words(e)
        accepts = inspect.signature(kind).parameters
        offered = {
            "words": list(words),
            "template": words.template,
            "n_clusters": data.n_clusters(e.criterion),
            "concepts": [e.criterion, *(c for c in data.criteria if c not in (e.criterion, "shape"))],
            "random_state": e.seed,
        }
        if e.representation and "representation" in accepts:
            offered["representation"] = e.representation
        return kind(self.encoder(e.encoder), **{k: v for k, v in offered.items() if k in accepts} | e.params)

    def fit(self, e: Experiment) -> tuple[Any, float]:
        """The fitted estimator of an experiment, and its seconds. Where a GPU's memory is too small, with half as many images at a time, and
        again: that changes results by rounding only."""
        import torch

        model, images, start = self.estimator(e), self.dataset(e).images, time.perf_counter()
        while True:
            try:
                return model.fit(images), time.perf_counter() - start
            except torch.cuda.OutOfMemoryError:
                chunk = min(getattr(model, "chunk_size", 1), len(images)) // 2
                if not chunk:
                    raise
                warnings.warn(f"{e.method} on {e.dataset} needs more memory than there is: on with {chunk} images at a time", stacklevel=2)
                model.set_params(chunk_size=chunk)

    def row(self, model: Any, e: Experiment, key: str, seconds: float) -> dict:
        """Score the experiment's representation of a fitted estimator; the row, stored and noted in `runs.csv`."""
        data, start = self.dataset(e), time.perf_counter()
        if e.representation and hasattr(model, "choose"):
            model.choose(e.representation)
        elif hasattr(model, "choose"):
            model.choose(model.representation)
        scores = model.evaluate(data.labels[e.criterion], range(e.kmeans_seeds))
        shown = e.representation or getattr(model, "representation", OF_IMAGES if e.method == "KMeans" else OF_WORDS)
        found = len(set(model.labels_.tolist()))
        about = {"dataset": e.dataset, "criterion": e.criterion, "encoder": e.encoder, "method": e.method, "representation": shown, "seed": e.seed}
        row = about | scores | {"clusters": found, "words": len(getattr(model, "words", [])), "n": len(data), "key": key}
        write_row(key, row)
        runs.note_run(row, self.device, seconds, time.perf_counter() - start, code_fingerprint())
        return row
