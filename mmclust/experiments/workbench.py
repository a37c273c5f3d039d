"""Computes result rows: loads encoders and data sets once, fits, scores, and stores the rows."""

from __future__ import annotations

import inspect
import time
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mmclust import plugins, storage
from mmclust.code_fingerprint import code_fingerprint
from mmclust.data import load_dataset
from mmclust.data.paper_datasets import draw
from mmclust.data.paper_layouts import SeparateCriteria
from mmclust.data.rendered import RENDERED_WORLDS
from mmclust.data.shifts import shifted
from mmclust.encoders import load_encoder
from mmclust.experiments import run_log
from mmclust.experiments.experiment import Experiment
from mmclust.methods import method_class
from mmclust.metrics import name_accuracy
from mmclust.words import ReferenceWords, prompt_template, reference_words

if TYPE_CHECKING:
    from mmclust.data.images import ImageDataset
    from mmclust.encoders.base import Encoder


class Workbench:
    """Encoders and data sets, loaded once and used for many experiments, and the fits with them."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._encoders: dict[tuple, Encoder] = {}
        self._datasets: dict[tuple, ImageDataset] = {}

    def encoder(self, name: str) -> Encoder:
        text = plugins.source(name) if plugins.is_plugin_name(name) else ""
        if (name, text) not in self._encoders:  # or its file has changed
            self._encoders[name, text] = load_encoder(name, self.device)
        return self._encoders[name, text]

    def dataset(self, e: Experiment) -> ImageDataset:
        return shifted(self._unshifted(e), e.shift)

    def _unshifted(self, e: Experiment) -> ImageDataset:
        complete = None
        key: tuple = (e.dataset, e.n, e.seed)
        if not _sampling_options(e.dataset):
            complete = self._complete_dataset(e)
            key += tuple(complete.criteria)
        if key not in self._datasets and complete is not None:
            self._datasets[key] = draw(complete, e.n, e.seed)
        elif key not in self._datasets:
            size = {} if e.n is None else {"n": e.n}
            self._datasets[key] = load_dataset(e.dataset, seed=e.seed, **size)
        return self._datasets[key]

    def pool(self, e: Experiment) -> int | None:
        """The number of pictures that all seeds draw theirs from; None if each makes new ones."""
        options = _sampling_options(e.dataset)
        if "seed" in options:
            return None
        return len(self.dataset(e) if options else self._complete_dataset(e))

    def _complete_dataset(self, e: Experiment) -> ImageDataset:
        """A data set without `_sampling_options`, loaded once for all seeds. If the images of its
        criteria cannot be matched (`SeparateCriteria`), only the experiment's one is loaded."""
        all_criteria = (e.dataset,)
        one_criterion = (e.dataset, e.criterion)
        if not self._datasets.keys() & {all_criteria, one_criterion}:
            try:
                self._datasets[all_criteria] = load_dataset(e.dataset)
            except SeparateCriteria:
                self._datasets[one_criterion] = load_dataset(e.dataset, criterion=e.criterion)
        return self._datasets.get(all_criteria) or self._datasets[one_criterion]

    def words(self, e: Experiment) -> ReferenceWords | None:
        """The reference words of an experiment; None for a method that takes none. Raises
        ValueError if there are none for the criterion."""
        accepted = inspect.signature(method_class(e.method)).parameters
        if not accepted.keys() & {"words", "template"}:
            return None
        data = self.dataset(e)
        template = prompt_template(e.criterion, of=data.domain)
        if e.method == "CLIP_label":
            return ReferenceWords(data.classes[e.criterion], "the true class names", template)
        if e.words and not isinstance(e.words, str):
            return ReferenceWords(e.words, "the experiment's own list", template)
        source = str(e.words or "lexicon")
        words = reference_words(e.criterion, of=data.domain, seed=e.seed, source=source)
        if e.word_list is None:
            return words
        return e.word_list.apply(words, data.classes[e.criterion], e.seed)

    def code(self, e: Experiment) -> str:
        """The hash of the code that computes this experiment's row."""
        roots = [method_class(e.method), type(self.encoder(e.encoder))]
        for name in (e.encoder, e.dataset):
            if plugins.is_plugin_name(name):
                roots.append(plugins.resolve(name))
        return code_fingerprint(roots, alone=[Workbench])

    def key(self, e: Experiment) -> str:
        """The key of a row: a hash of data, encoder weights, words, parameters, seed and code."""
        data = self.dataset(e)
        words = self.words(e)
        return storage.key_of(
            "row",
            asdict(e),
            data.images.fingerprint,
            data.labels[e.criterion].tolist(),
            data.classes[e.criterion],
            data.independent_criteria,
            self.encoder(e.encoder).fingerprint,
            words and [list(words), words.template],
            self.code(e),
        )

    def estimator(self, e: Experiment) -> Any:
        """The estimator of an experiment, not fitted."""
        data = self.dataset(e)
        words = self.words(e)
        other_criteria = [c for c in data.independent_criteria if c != e.criterion]
        offered: dict[str, Any] = {
            "n_clusters": data.n_clusters(e.criterion),
            "concepts": [e.criterion, *other_criteria],
            "random_state": e.seed,
            "verbose": False,  # one bar over all experiments is enough
        }
        if words is not None:
            offered |= {"words": list(words), "template": words.template}
        if e.representation:
            offered["representation"] = e.representation
        estimator = method_class(e.method)
        accepted = inspect.signature(estimator).parameters
        taken = {name: value for name, value in offered.items() if name in accepted}
        return estimator(self.encoder(e.encoder), **taken | e.params)

    def fit(self, e: Experiment) -> tuple[Any, float]:
        """The fitted estimator of an experiment, and the seconds of its fit.

        If a GPU's memory is too small, the fit is repeated with half as many images at a time,
        which changes results by rounding only.
        """
        import torch

        model = self.estimator(e)
        images = self.dataset(e).images
        start = time.perf_counter()
        while True:
            try:
                model.fit(images)
                return model, time.perf_counter() - start
            except torch.cuda.OutOfMemoryError:
                chunk = min(getattr(model, "chunk_size", 1), len(images)) // 2
                if not chunk:
                    raise
                problem = f"{e.method} on {e.dataset} needs more GPU memory than there is"
                retry = f"trying again with {chunk} images at a time"
                warnings.warn(f"{problem}: {retry}", stacklevel=2)
                model.set_params(chunk_size=chunk)
            torch.cuda.empty_cache()  # the failed fit's tensors are gone only here

    def row(self, model: Any, e: Experiment, key: str, seconds: float) -> dict:
        """Score the experiment's representation, store the row and return it; `seconds` is the
        time of the fit, for the log."""
        data = self.dataset(e)
        start = time.perf_counter()
        # the name to record for methods without the parameter `representation`
        default = "image" if e.method == "KMeans" else "assignment"
        representation = e.representation or getattr(model, "representation", default)
        if hasattr(model, "use_representation"):
            model.use_representation(representation)
        labels = data.labels[e.criterion]
        scores = model.evaluate(labels, range(e.kmeans_seeds))
        named = None  # a method without words gives no names
        if getattr(model, "words", None) is not None:
            classes = data.classes[e.criterion]
            with warnings.catch_warnings():  # of names that differ by a number alone
                warnings.simplefilter("ignore", UserWarning)
                named = name_accuracy(labels, classes, model.labels_, model.name_clusters())
        row = {
            "dataset": e.dataset,
            "criterion": e.criterion,
            "encoder": e.encoder,
            "method": e.method,
            "representation": representation,
            "seed": e.seed,
            **scores,
            "named": named,
            "shift": str(e.shift or "none"),
            "kept": e.word_list.kept if e.word_list else 1.0,
            "clusters": len(set(model.labels_.tolist())),
            "words": len(getattr(model, "words", [])),
            "n": len(data),
            "pool": self.pool(e),
            "key": key,
        }
        storage.write_row(key, row)
        run_log.note_run(row, self.device, seconds, time.perf_counter() - start, self.code(e))
        return row


def _sampling_options(dataset: str) -> set[str]:
    """Which of `n` and `seed` a data set takes when it is loaded: a rendered world both, a plug-in
    perhaps; a folder none, as pictures are drawn from those that it has."""
    options = {"n": None, "seed": None}
    if plugins.is_plugin_name(dataset):
        return set(plugins.filter_kwargs(plugins.resolve(dataset), **options))
    return set(options) if dataset in RENDERED_WORLDS else set()
