"""The explorer without its widgets: pictures, the words of a keyword, and the clustering they give.

Encoders are loaded once, and the last `REMEMBERED` clusterings are answered from memory. Not here:
reading the user's pictures (`pictures`), HTML (`views`), fields and buttons (`widgets`).
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmclust.data import load_dataset
from mmclust.data.shifts import Shift, shifted
from mmclust.encoders import load_encoder
from mmclust.encoders.embedded import encoder_for
from mmclust.explorer.pictures import read_folder, read_upload, thumbnails
from mmclust.methods import method_class
from mmclust.methods.cluster_names import name_clusters
from mmclust.methods.suggestions import suggest_keywords
from mmclust.metrics import score
from mmclust.profiles import params_for_dataset, settings
from mmclust.words import check_different, prompt_template, reference_words
from mmclust.words import keywords as lexicon_keywords
from mmclust.words.language_model import AskError
from mmclust.words.word_lists import WordList

if TYPE_CHECKING:
    from mmclust.data.images import ImageDataset
    from mmclust.encoders.base import Encoder
    from mmclust.words import ReferenceWords

METHOD_LABELS = {
    "MultiSub": "Multi-Sub",
    "MultiMaP": "Multi-MaP",
    "MultiDProxy": "Multi-DProxy",
    "CLIP_GPT": "CLIP_GPT: the nearest word",
    "CRL": "CRL: k-means on the cosines with all words",
    "KMeans": "k-means: without a keyword",
}
# Lists of words with errors, as in notebook 17; they need the true names, so a labeled criterion.
WORD_LISTS = {
    "all words": None,
    "half of the true names missing": WordList(kept=0.5),
    "half of the true names, nothing else": WordList(kept=0.5, length=0),
    "the true names among 64 words": WordList(length=64),
}
REMEMBERED = 16  # clusterings
MAX_LENGTH = 60  # characters of a keyword or a word


class InputError(ValueError):
    """Invalid input in a field: pictures, keyword, words, method, encoder, clusters; or a run."""

    def __init__(self, field: str, message: object) -> None:
        super().__init__(str(message))
        self.field = field


@dataclass
class Clustering:
    """The pictures clustered by one keyword."""

    keyword: str  # "" for k-means without words for names
    model: Any  # the fitted estimator
    labels: np.ndarray  # (n,), indices into `names`
    names: list[str]  # of the clusters
    weights: pd.DataFrame  # (n, K), over the reference words
    representation: np.ndarray  # (n, d), what was clustered
    title: str = ""  # in headings and files: the keyword, and the method where that is needed
    notes: list[str] = field(default_factory=list)  # warnings

    def __post_init__(self) -> None:
        self.title = self.title or self.keyword

    @property
    def label_names(self) -> list[str]:
        """The name of each picture's cluster."""
        return [self.names[c] for c in self.labels]


class ExplorerSession:
    """Pictures that are clustered by keywords.

    The section `16_explorer` of the profile has the settings, which `cfg` replaces; `device` is
    that of the encoders; relative paths begin in `home` (None: the working directory).
    """

    def __init__(
        self, profile: str = "demo", device: str = "cpu", home: str | Path | None = None, **cfg: Any
    ) -> None:
        self.cfg = settings("16_explorer", profile, **cfg)
        self.device = device
        self._named = cfg.get("encoder")  # by the user
        self.home = Path(home or ".").resolve()
        self.data: Any = None  # the current data set
        self.thumbnails: list[str] = []  # data URIs of its pictures
        self._encoders: dict[str, Encoder] = {}
        self._clusterings: OrderedDict[tuple, Clustering] = OrderedDict()
        self._templates: dict[tuple[str, str], str | None] = {}  # by domain and keyword
        self._suggested: dict[str, str] = {}  # keyword -> domain whose words fit the pictures
        self._upload: tempfile.TemporaryDirectory | None = None

    def load(
        self, source: str, value: Any = None, domain: str = "photo", shift: Shift | None = None
    ) -> ImageDataset:
        """Replace the pictures. If that fails, keep the former ones and raise InputError.

        `source`: name of a rendered world; "folder", with its path as `value`; or "upload", with
        (name, content) of pictures or of one zip. `domain`: what a folder or an upload shows.
        `shift`: a change of all pictures, such as of their light.
        """
        directory = None
        try:
            if source == "folder":
                data = read_folder(self._folder(value or ""), domain, self.cfg.most)
            elif source == "upload":
                data, directory = read_upload(value or [], domain, self.cfg.most)
            else:
                data = load_dataset(source, n=self.cfg.n, seed=self.cfg.seed)
            data = shifted(data, shift)
            if source not in ("folder", "upload"):
                data.images = data.images.cached()
            self.thumbnails = thumbnails(data.images)
        except (ValueError, OSError) as error:
            if directory:
                directory.cleanup()
            raise InputError("pictures", error) from error
        self.data = data
        self._suggested = {}
        if self._upload:
            self._upload.cleanup()
        self._upload = directory
        return data

    def _folder(self, text: str) -> Path:
        if not (text := text.strip()):
            raise ValueError("a folder is required: type its path, such as /home/me/photos")
        path = self.home / Path(text).expanduser()
        if path.is_file():
            raise ValueError(f"{path} is a file: type the path of its folder")
        return path

    def suggest(self, encoder: str) -> list[str]:
        """Keywords by which the pictures can be sorted, see `mm.suggest_keywords`, best first; none
        if none fits. Raises InputError as `encoder`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that none fits: the list is empty
            table = suggest_keywords(self.data.images, self.encoder(encoder))
        table = table[table["fits"]]
        self._suggested = dict(zip(table["keyword"], table["of"]))
        return list(self._suggested)

    def _domain(self, keyword: str) -> str:
        """The domain of the pictures; if it has no words for a keyword, the one suggested."""
        domain = self.data.domain
        known = keyword in lexicon_keywords(domain)
        return domain if known else self._suggested.get(keyword, domain)

    def words(self, keyword: str, word_list: WordList | None = None) -> ReferenceWords:
        """Reference words with `source` and `template`; for labeled keywords, `word_list` changes
        them. Raises InputError for "keyword", or "word_list" if there are too few words."""
        keyword = self.check_keyword(keyword)
        domain = self._domain(keyword)
        self._templates[domain, keyword] = None
        try:
            words = reference_words(keyword, of=domain, source=self.cfg.source)
        except (AskError, ImportError, ValueError) as error:
            message = f"{str(error).rstrip('.')}; or type the reference words yourself"
            raise InputError("keyword", message) from error
        self._templates[domain, keyword] = words.template
        if word_list is None or keyword not in self.data.criteria:
            return words
        try:
            return word_list.apply(words, self.data.classes[keyword], self.cfg.seed)
        except ValueError as error:
            raise InputError("word_list", error) from error

    def _template(self, keyword: str) -> str:
        """The template of the keyword's reference words, for edited words, too."""
        key = self._domain(keyword), keyword
        if key not in self._templates:
            with suppress(InputError):  # the lexicon has none: the user typed words
                self.words(keyword)
        return self._templates[key] or prompt_template(keyword, of=key[0])

    def check_keyword(self, text: str) -> str:
        """A keyword with single blanks. Raises InputError for "keyword" if it is invalid."""
        if not (keyword := " ".join(text.split())):
            raise InputError("keyword", "a keyword is required, such as color")
        if len(keyword) > MAX_LENGTH or "*" in keyword:
            rule = f"at most {MAX_LENGTH} characters, without '*'"
            raise InputError("keyword", f"invalid keyword {keyword[:MAX_LENGTH]!r}: {rule}")
        return keyword

    def check_words(self, text: str) -> list[str]:
        """Words between commas, semicolons or line ends. Raises InputError for "words"."""
        words = [" ".join(word.split()) for word in re.split(r"[,;\n]", text) if word.strip()]
        if len(words) < 2:
            rule = "type at least two, separated by commas"
            raise InputError("words", f"{len(words)} reference words: {rule}")
        try:
            check_different(words)
        except ValueError as error:
            raise InputError("words", str(error)) from error
        for word in words:
            if len(word) > MAX_LENGTH or "*" in word or not re.search(r"\w", word):
                rule = f"it needs letters or digits, at most {MAX_LENGTH} characters, and no '*'"
                message = f"invalid reference word {word[:MAX_LENGTH]!r}: {rule}"
                raise InputError("words", message)
        return words

    def check_clusters(self, text: str) -> int | str:
        """A number from 2 to that of the pictures, or "auto". Raises InputError for "clusters"."""
        n = len(self.data)
        text = text.strip().lower()
        if text in ("auto", ""):
            if n < 3:
                raise InputError("clusters", f"auto needs 3 pictures, not {n}: type a number")
            return "auto"
        if not text.isdecimal():
            message = f"invalid number of clusters {text!r}: type a whole number, or auto"
            raise InputError("clusters", message)
        n_clusters = int(text)
        if not 2 <= n_clusters <= n:
            message = f"invalid number of clusters {n_clusters}: from 2 to the {n} pictures"
            raise InputError("clusters", message)
        return n_clusters

    def choose_encoder(self) -> tuple[str, str]:
        """The name of the encoder for the current pictures, and why: see `encoder_for`."""
        return encoder_for(self.data, self._named, self.cfg.encoder)

    def encoder(self, name: str) -> Encoder:
        """An encoder by name, loaded once. Raises InputError for "encoder"."""
        if not (name := name.strip()):
            raise InputError("encoder", "an encoder is required, such as mini or photo")
        if name not in self._encoders:
            try:
                self._encoders[name] = load_encoder(name, self.device)
            except Exception as error:  # any cause (a hub, a file, a package) belongs to this field
                message = f"encoder {name!r} can't be loaded: {error}"
                raise InputError("encoder", message) from error
        return self._encoders[name]

    def cluster(
        self, keyword: str, words: str, method: str = "MultiSub", encoder: str | None = None,
        n_clusters: str = "auto", other_keywords: Sequence[str] = (),
    ) -> Clustering:  # fmt: skip
        """Cluster the pictures; `keyword`, `words`, `n_clusters` are as the user typed them.

        `method`: a key of `METHOD_LABELS`; CLIP_GPT does not use `n_clusters`, and KMeans uses
        keyword and words, which may be empty, for the names of its clusters alone. `encoder=None`:
        that of the pictures (`encoder_for`). Multi-MaP contrasts the keyword with `other_keywords`.
        Raises InputError for the invalid field, or for "run" if the method itself fails.
        """
        without = method == "KMeans" and not (keyword.strip() and words.strip())
        keyword = "" if without else self.check_keyword(keyword)
        word_list = [] if without else self.check_words(words)
        template = None if without else self._template(keyword)
        params = params_for_dataset(self.cfg.methods.get(method, {}), self.data.name)
        params |= self.cfg.quick.get(method, {})
        if method != "CLIP_GPT":
            params["n_clusters"] = self.check_clusters(n_clusters)
            params["random_state"] = self.cfg.seed
        if method == "MultiMaP":
            params["concepts"] = [keyword, *other_keywords]
        loaded = self.encoder(self.choose_encoder()[0] if encoder is None else encoder)
        pictures = self.data.images.fingerprint
        key = (pictures, method, loaded.name, keyword, tuple(word_list), template, str(params))
        clustering = self._clusterings.pop(key, None)
        if clustering is None and method == "KMeans":
            model = method_class(method)(loaded, **params)
            clustering = self._fit_kmeans(keyword, model, word_list, template)
        elif clustering is None:
            model = method_class(method)(loaded, word_list, template=template, **params)
            clustering = self._fit(keyword, model)
        self._clusterings[key] = clustering  # the most recently used is last
        while len(self._clusterings) > REMEMBERED:
            self._clusterings.popitem(last=False)
        return clustering

    def cluster_side_by_side(self, *sides: tuple) -> Iterator[Clustering]:
        """The clusterings of the arguments of `cluster`, in this order, each computed in a thread
        of its own at the same time; `notes` are the warnings of its thread. Raises InputError in
        the place of the one that fails."""
        warned: dict[int, list[str]] = defaultdict(list)  # by thread

        def keep(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
            if category is UserWarning:  # ours
                warned[get_ident()].append(str(message))

        def computed(side: tuple) -> Clustering:
            clustering = self.cluster(*side)
            clustering.notes += dict.fromkeys(warned.pop(get_ident(), []))
            return clustering

        with warnings.catch_warnings(), ThreadPoolExecutor(len(sides)) as threads:
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = keep
            yield from threads.map(computed, sides)

    def _fit_kmeans(
        self, keyword: str, model: Any, words: list[str], template: str | None
    ) -> Clustering:
        """k-means does not use words; if there are some, they name its clusters."""
        try:
            model.fit(self.data.images)
        except (ValueError, OSError, RuntimeError) as error:
            raise InputError("run", error) from error
        names = [f"cluster {c + 1}" for c in range(model.n_clusters_)]
        weights = pd.DataFrame(index=range(len(self.data)))
        if words:
            nearest = method_class("CLIP_GPT")(model.encoder, words, template=template)
            weights = nearest.fit(self.data.images).explain()
            texts = model.encoder.encode_words(words, template)
            names = name_clusters(model.labels_, model.image_embeddings_, texts, words)
        features = model.image_embeddings_
        return Clustering(keyword, model, model.labels_, names, weights, features)

    def _fit(self, keyword: str, model: Any) -> Clustering:
        try:
            model.fit(self.data.images)
            if keyword not in self.data.criteria:  # a warning if the words do not fit
                suggest_keywords(self.data.images, model.encoder, {keyword: list(model.words)})
            names = model.name_clusters()
            weights = model.explain()
        except (ValueError, OSError, RuntimeError) as error:
            raise InputError("run", error) from error
        zero_shot = not hasattr(model, "representation_")
        representation = model.similarity_ if zero_shot else model.representation_
        return Clustering(keyword, model, model.labels_, names, weights, representation)

    def picture_names(self) -> list[str]:
        """A name for each picture: its file, or its number."""
        rows = self.data.rows or [{}] * len(self.data)
        return [row.get("file") or f"picture {i}" for i, row in enumerate(rows)]

    def compare(self, one: Clustering, other: Clustering) -> tuple[float, float, pd.DataFrame]:
        """1 - AMI; 1 - RI (the share of pairs that only one clustering separates); counts."""
        scores = score(one.labels, other.labels)
        named = [pd.Categorical(c.label_names, c.names) for c in (one, other)]
        return 1 - scores["AMI"], 1 - scores["RI"], pd.crosstab(*named, dropna=False)

    def export(self, *clusterings: Clustering) -> str:
        """CSV: picture, file, and for each clustering the cluster and its name."""
        files = [row.get("file", "") for row in self.data.rows or [{}] * len(self.data)]
        table = pd.DataFrame({"picture": range(len(files)), "file": files})
        for clustering in clusterings:
            table[f"{clustering.title}: cluster"] = clustering.labels
            table[f"{clustering.title}: name"] = clustering.label_names
        return table.to_csv(index=False)
