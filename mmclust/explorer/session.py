"""The explorer without its widgets: pictures, a keyword's words, a method's answer, and what is wrong with what was asked, in words."""

from __future__ import annotations

import re
import tempfile
import time
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from mmclust.profiles import params_for_dataset, settings

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from mmclust.data.images import ImageDataset
    from mmclust.encoders.base import Encoder
    from mmclust.words import ReferenceWords

METHODS = {
    "Multi-Sub": "MultiSub",
    "Multi-MaP": "MultiMaP",
    "Multi-DProxy": "MultiDProxy",
    "CLIP_GPT: the nearest word": "CLIP_GPT",
}
MB = 10**6
UPLOAD, UNPACKED = 64 * MB, 256 * MB  # of an upload, and of what is in it
FILES = 50_000  # below a folder, pictures or not, that are looked at
LONGEST = 60  # letters of a keyword or a word


class InputError(ValueError):
    """What is wrong with what somebody gave, in words; `field` says where: "pictures", "keyword", "words", "method", "encoder", "clusters" or "run"."""

    def __init__(self, field: str, message: object):
        super().__init__(str(message))
        self.field = field


@dataclass
class Clustering:
    """One keyword's clustering: the fitted `model`, `names` per cluster, `weights` (n, K) over the words, and how many `seconds` it took."""

    keyword: str
    words: list[str]
    model: Any
    names: list[str]
    weights: pd.DataFrame
    seconds: float

    @property
    def labels(self) -> np.ndarray:
        return self.model.labels_

    @property
    def named(self) -> list[str]:
        """Each picture's cluster by name."""
        return [self.names[c] for c in self.labels]

    @property
    def space(self) -> np.ndarray:
        """What was clustered (n, width), which the map shows."""
        return (
            self.model.representation_
            if hasattr(self.model, "representation_")
            else self.model.similarity_
        )


class ExplorerSession:
    """The explorer without its widgets: pictures that are looked at by keywords. What was asked for before is answered from memory.

    Args:
        profile: a profile's name; `16_explorer` in it says which worlds, how many pictures, and how far a quick look goes.
        device: of the encoders.
        home: where the relative path of a folder begins; None: the working directory.
        given: settings in place of the profile's.
    """

    def __init__(
        self,
        profile: str = "demo",
        device: str = "cpu",
        home: str | Path | None = None,
        **given: Any,
    ):
        self.cfg, self.device, self.home = (
            settings("16_explorer", profile, **given),
            device,
            Path(home or ".").resolve(),
        )
        self.data: Any = None  # an ImageDataset, as soon as there is one
        self.thumbs: list[str] = []
        self.notes: list[str] = []
        self._encoders: dict[str, Encoder] = {}
        self._looks: dict[tuple, Clustering] = {}
        self._room: tempfile.TemporaryDirectory | None = None

    def load(self, kind: str, value: Any = None, domain: str = "photo") -> ImageDataset:
        """Take other pictures: a world by its name, "folder" with its path, or "upload" with (name, bytes) of files or of one zip.

        Returns the data set, kept as `data` with `thumbs`; `notes` holds what was left out. After a fault the pictures are those of before.

        Raises:
            InputError: of "pictures", with what is wrong with them.
        """
        from mmclust.data import load_dataset
        from mmclust.explorer.html import thumbnails

        notes: list[str] = []
        try:
            if kind == "folder":
                data = self._folder(self._path(value), domain, notes)
            elif kind == "upload":
                data = self._upload(value or [], domain, notes)
            else:
                data = load_dataset(kind, n=self.cfg.n, seed=self.cfg.seed)
                data.images = data.images.cached()
            thumbs = thumbnails(data.images)
        except (ValueError, OSError) as error:
            raise (
                error
                if isinstance(error, InputError)
                else InputError("pictures", self._short(error))
            ) from error
        self.data, self.thumbs, self.notes = data, thumbs, notes
        return data

    def _path(self, text: str | None) -> Path:
        text = (text or "").strip()
        if not text:
            raise InputError(
                "pictures",
                "no folder is given: type the path of one that holds pictures, such as /home/me/photos",
            )
        path = self.home / Path(text).expanduser()
        if not path.is_dir():
            raise InputError(
                "pictures",
                f"{path} is a file: give the folder that it lies in"
                if path.exists()
                else f"no folder {path}",
            )
        return path

    def _folder(self, path: Path, domain: str, notes: list[str]) -> ImageDataset:
        from mmclust.data.folder import SUFFIXES, load_folder

        found = 0
        for seen, file in enumerate(
            path.rglob("*")
        ):  # "/" may have been typed: the count ends early
            found += file.suffix.lower() in SUFFIXES
            if found > self.cfg.most or seen > FILES:
                what = (
                    f"{self.cfg.most:,} pictures, which is as many as the explorer takes"
                    if found > self.cfg.most
                    else f"{FILES:,} files"
                )
                raise InputError(
                    "pictures",
                    f"{path} holds more than {what}: give a folder below it, or a copy of a part",
                )
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            warnings.simplefilter(
                "error", Image.DecompressionBombWarning
            )  # left out, too: a small file may unpack to gigabytes of pixels
            data = load_folder(path, domain=domain.strip() or "photo", on_corrupt="skip")
        notes += [
            self._short(w.message)
            for w in told
            if issubclass(w.category, UserWarning) and "left out" in str(w.message)
        ]
        return data

    def _upload(
        self, files: list[tuple[str, bytes]], domain: str, notes: list[str]
    ) -> ImageDataset:
        """Checked, written to a folder of its own, which goes with the session or with the next upload, and loaded from there."""
        from mmclust.data.download import unpack
        from mmclust.data.folder import SUFFIXES

        if not files:
            raise InputError(
                "pictures", "nothing is uploaded yet: choose pictures, or one zip of them"
            )
        if (size := sum(len(content) for _, content in files)) > UPLOAD:
            raise InputError(
                "pictures",
                f"{size / MB:.0f} MB are more than the {UPLOAD // MB} MB that an upload may have: give the path of a folder instead",
            )
        names = [Path(name.replace("\\", "/")).name for name, _ in files]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(
                "pictures",
                f"{twice[0]} is uploaded twice: put the pictures into a zip with folders",
            )
        zipped = [name for name in names if name.lower().endswith(".zip")]
        if zipped and len(files) > 1:
            raise InputError(
                "pictures",
                f"{zipped[0]} comes with other files: upload one zip, or pictures, not both",
            )
        room = tempfile.TemporaryDirectory(prefix="mmclust-upload-")
        folder = Path(room.name) / "upload"
        try:
            if zipped:
                archive = Path(room.name) / zipped[0]
                archive.write_bytes(files[0][1])
                if not zipfile.is_zipfile(archive):
                    raise InputError("pictures", f"{zipped[0]} is no zip, or a damaged one")
                unpack(archive, folder, most=UNPACKED)
            else:
                folder.mkdir()
                for name, (_, content) in zip(names, files):
                    if Path(name).suffix.lower() in SUFFIXES:
                        (folder / name).write_bytes(content)
                if other := [name for name in names if Path(name).suffix.lower() not in SUFFIXES]:
                    notes.append(
                        f"left out {len(other)} of {len(names)} files that are no pictures by their names: {', '.join(other[:5])}"
                    )
            data = self._folder(folder, domain, notes)
        except (ValueError, OSError) as error:
            cause = (
                error.__cause__
                if isinstance(error.__cause__, (zipfile.BadZipFile, RuntimeError, EOFError))
                else None
            )
            said = (
                f"{zipped[0]} can't be unpacked: {cause}"
                if zipped and cause
                else str(error).replace(f"{folder}", "the upload").replace(f"{room.name}/", "")
            )
            room.cleanup()
            raise InputError("pictures", said) from error
        notes[:] = [note.replace(f"{folder}", "the upload") for note in notes]
        self._room, old = room, self._room
        if old:
            old.cleanup()
        return data

    def _short(self, error: object) -> str:
        return str(error).replace(f"{self.home}/", "") if self.home != Path("/") else str(error)

    def keywords(self) -> list[str]:
        """Those to pick from: what the lexicon has words for, those of the pictures' domain first."""
        from mmclust.words import keywords

        return keywords(self.data.domain)

    def words(self, keyword: str) -> ReferenceWords:
        """The reference words of a keyword, with their `source`.

        Raises:
            InputError: of "keyword", with the ways out.
        """
        from mmclust.words import meant, reference_words
        from mmclust.words.language_model import AskError

        keyword = self._keyword(keyword)
        try:
            return reference_words(keyword, of=self.data.domain, source=self.cfg.source)
        except (AskError, ImportError) as error:
            raise InputError("keyword", f"{error}; or type the words yourself, below") from error
        except ValueError as error:
            known, domain = ", ".join(self.keywords()[:8]), self.data.domain
            raise InputError(
                "keyword",
                f"the lexicon has no words for {keyword!r} of {domain}{meant(keyword, domain)}: type them yourself, below, or pick {known}, ...",
            ) from error

    def _keyword(self, text: str) -> str:
        keyword = " ".join((text or "").split())
        if not keyword:
            raise InputError(
                "keyword", "no keyword is given: type what to sort the pictures by, such as color"
            )
        if len(keyword) > LONGEST or "*" in keyword:
            raise InputError("keyword", f"a keyword has at most {LONGEST} letters and no '*'")
        return keyword

    def check_words(self, text: str) -> list[str]:
        """Words out of a text, between commas, semicolons or lines.

        Raises:
            InputError: of "words": fewer than two, one twice, too long, or with nothing to read in it.
        """
        words = [" ".join(word.split()) for word in re.split(r"[,;\n]", text or "")]
        words = [word for word in words if word]
        if len(words) < 2:
            raise InputError(
                "words",
                f"at least two reference words are needed, with commas between them, not {len(words)}",
            )
        if twice := [word for word in words if words.count(word) > 1]:
            raise InputError("words", f"a reference word stands twice: {twice[0]}")
        if wrong := [
            word
            for word in words
            if len(word) > LONGEST or "*" in word or not re.search(r"\w", word)
        ]:
            raise InputError(
                "words", f"{wrong[0][:LONGEST]!r} is no word: up to {LONGEST} letters, and no '*'"
            )
        return words

    def check_clusters(self, text: str) -> int | str:
        """ "auto", or a whole number from 2 to that of the pictures.

        Raises:
            InputError: of "clusters".
        """
        text, n = (text or "").strip().lower(), len(self.data)
        if text in ("auto", ""):
            if n < 3:
                raise InputError(
                    "clusters", f"auto needs at least 3 pictures, there are {n}: give a number"
                )
            return "auto"
        try:
            m = int(text)
        except ValueError:
            raise InputError("clusters", f"{text!r} is neither a whole number nor auto") from None
        if m < 2:
            raise InputError(
                "clusters", f"{m} cluster{'s' * (m != 1)} would not sort anything: at least 2"
            )
        if m > n:
            raise InputError("clusters", f"{m} clusters for {n} pictures: at most {n}")
        return m

    def encoder(self, name: str) -> Encoder:
        """An encoder by name, loaded once.

        Raises:
            InputError: of "encoder".
        """
        name = (name or "").strip()
        if name not in self._encoders:
            from mmclust.encoders import load_encoder

            try:
                self._encoders[name] = load_encoder(name, self.device)
            except Exception as error:  # the hub, a folder's files, a missing package: whatever it is, it is about this field
                raise InputError(
                    "encoder", f"{name or 'no encoder'} can't be loaded: {error}"
                ) from error
        return self._encoders[name]

    def cluster(
        self,
        keyword: str,
        words: str,
        method: str = "MultiSub",
        encoder: str | None = None,
        n_clusters: str = "auto",
        others: Sequence[str] = (),
    ) -> Clustering:
        """Sort the pictures by a keyword.

        Args:
            words: reference words as they are typed.
            method: one of `METHODS`' values.
            n_clusters: a number as it is typed, or "auto"; CLIP_GPT takes none.
            others: keywords beside it, which Multi-MaP contrasts it with.

        Raises:
            InputError: of the field that it is about; what the method says about all of them is of "run".
        """
        from mmclust.methods import method_class
        from mmclust.words import prompt_template

        keyword, listed = self._keyword(keyword), self.check_words(words)
        if method not in METHODS.values():
            raise InputError("method", f"{method!r} is none of {', '.join(METHODS.values())}")
        m = None if method == "CLIP_GPT" else self.check_clusters(n_clusters)
        model, template = (
            self.encoder(self.cfg.encoder if encoder is None else encoder),
            prompt_template(keyword, of=self.data.domain),
        )
        own: dict[str, Any] = {} if m is None else {"n_clusters": m, "random_state": self.cfg.seed}
        if method == "MultiMaP":
            own["concepts"] = [keyword, *others]
        key = (
            self.data.images.fingerprint,
            self.data.domain,
            method,
            model.name,
            keyword,
            tuple(listed),
            str(own),
        )
        if key not in self._looks:
            start = time.perf_counter()
            params = params_for_dataset(
                self.cfg.methods.get(method, {}), self.data.name
            ) | self.cfg.quick.get(method, {})
            try:
                fitted = method_class(method)(
                    encoder=model, words=listed, template=template, **params, **own
                ).fit(self.data.images)
                self._looks[key] = Clustering(
                    keyword,
                    listed,
                    fitted,
                    fitted.name_clusters(),
                    fitted.explain(),
                    time.perf_counter() - start,
                )
            except (ValueError, OSError, RuntimeError) as error:
                raise InputError("run", self._short(error)) from error
        return self._looks[key]

    def said(self) -> list[str]:
        """What each picture is called: its file, or its number."""
        return [
            row.get("file") or f"picture {i}"
            for i, row in enumerate(self.data.rows or [{}] * len(self.data))
        ]

    @staticmethod
    def compare(one: Clustering, other: Clustering) -> tuple[float, float, pd.DataFrame]:
        """Where two clusterings disagree: 1 - AMI, the share of pairs that are together in one and apart in the other (1 - RI), and the counts, a
        frame of clusters by clusters."""
        import pandas as pd
        from sklearn.metrics import rand_score

        from mmclust.methods.multi_keyword import Clusterings

        difference = Clusterings({"one": one.model, "other": other.model}).difference.loc[
            "one", "other"
        ]
        counts = pd.crosstab(
            pd.Categorical(one.named, one.names),
            pd.Categorical(other.named, other.names),
            dropna=False,
        )
        return float(difference), 1 - rand_score(one.labels, other.labels), counts

    def export(self, *looks: Clustering) -> str:
        """CSV: picture, file, and for each keyword the cluster and its name."""
        import pandas as pd

        table = pd.DataFrame(
            {
                "picture": range(len(self.data)),
                "file": [row.get("file", "") for row in self.data.rows or [{}] * len(self.data)],
            }
        )
        for look in looks:
            table[f"{look.keyword}: cluster"], table[f"{look.keyword}: name"] = (
                look.labels,
                look.named,
            )
        return table.to_csv(index=False)
