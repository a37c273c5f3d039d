"""The explorer: pictures, a keyword, its words, and the clusters to look at; in a notebook, or as a web page (`python run_all.py explore`)."""

from __future__ import annotations

import base64
import os
import re
import tempfile
import threading
import time
import warnings
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path

from mmclust.profiles import of_dataset, settings

METHODS = {"Multi-Sub": "MultiSub", "Multi-MaP": "MultiMaP", "Multi-DProxy": "MultiDProxy", "CLIP_GPT: the nearest word": "CLIP_GPT"}
WORLDS = {"demo-fruit": "rendered fruit", "demo-card": "rendered playing cards", "demo-face": "rendered faces"}
MB = 10**6
UPLOAD, UNPACKED = 64 * MB, 256 * MB  # of an upload, and of what is in it
LONGEST = 60  # letters of a keyword or a word
SECOND = {"keyword": "second", "words": "second_words"}  # where a fault of the second keyword is told


class Fault(ValueError):
    """What is wrong with what somebody gave, in words; `field` says where: "pictures", "keyword", "words", "method", "encoder", "clusters" or "run"."""

    def __init__(self, field: str, message):
        super().__init__(str(message))
        self.field = field


@dataclass
class Look:
    """One keyword's clustering: the fitted `model`, `names` per cluster, `weights` (n, K) over the words, and how many `seconds` it took."""

    keyword: str
    words: list[str]
    model: object
    names: list[str]
    weights: object
    seconds: float

    @property
    def labels(self):
        return self.model.labels_

    @property
    def named(self) -> list[str]:
        """Each picture's cluster by name."""
        return [self.names[c] for c in self.labels]

    @property
    def space(self):
        """What was clustered (n, width), which the map shows."""
        return self.model.representation_ if hasattr(self.model, "representation_") else self.model.similarity_


class Session:
    """The explorer without its widgets: pictures that are looked at by keywords. What was asked for before is answered from memory.

    Args:
        profile: a profile's name; `16_explorer` in it says which worlds, how many pictures, and how far a quick look goes.
        device: of the encoders.
        home: where the relative path of a folder begins; None: the working directory.
        given: settings in place of the profile's.
    """

    def __init__(self, profile: str = "demo", device: str = "cpu", home: str | Path | None = None, **given):
        self.cfg, self.device, self.home = settings("16_explorer", profile, **given), device, Path(home or ".").resolve()
        self.data, self.thumbs, self.notes, self._encoders, self._looks, self._room = None, [], [], {}, {}, None

    def load(self, kind: str, value=None, domain: str = "photo"):
        """Take other pictures: a world by its name, "folder" with its path, or "upload" with (name, bytes) of files or of one zip.

        Returns the data set, kept as `data` with `thumbs`; `notes` holds what was left out. After a fault the pictures are those of before.

        Raises:
            Fault: of "pictures", with what is wrong with them.
        """
        from mmclust.datasets import load_dataset
        from mmclust.galleries import thumbnails

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
            raise error if isinstance(error, Fault) else Fault("pictures", self._short(error)) from error
        self.data, self.thumbs, self.notes = data, thumbs, notes
        return data

    def _path(self, text: str | None) -> Path:
        if not (text or "").strip():
            raise Fault("pictures", "no folder is given: type the path of one that holds pictures, such as /home/me/photos")
        path = self.home / Path(text.strip()).expanduser()
        if not path.is_dir():
            raise Fault("pictures", f"{path} is a file: give the folder that it lies in" if path.exists() else f"no folder {path}")
        return path

    def _folder(self, path: Path, domain: str, notes: list[str]):
        from mmclust.datasets.folder import load_folder, pictures

        if (found := len(pictures(path))) > self.cfg.most:
            raise Fault("pictures", f"{path} holds {found:,} pictures, the explorer takes up to {self.cfg.most:,}: give a folder below it, or a copy of a part")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            data = load_folder(path, domain=domain.strip() or "photo", on_corrupt="skip")
        notes += [self._short(w.message) for w in told if issubclass(w.category, UserWarning) and "left out" in str(w.message)]
        return data

    def _upload(self, files: list[tuple[str, bytes]], domain: str, notes: list[str]):
        """Checked, written to a folder of its own, which goes with the session or with the next upload, and loaded from there."""
        from mmclust.datasets.download import unpack
        from mmclust.datasets.folder import SUFFIXES

        if not files:
            raise Fault("pictures", "nothing is uploaded yet: choose pictures, or one zip of them")
        if (size := sum(len(content) for _, content in files)) > UPLOAD:
            raise Fault("pictures", f"{size / MB:.0f} MB are more than the {UPLOAD // MB} MB that an upload may have: give the path of a folder instead")
        names = [Path(name.replace("\\", "/")).name for name, _ in files]
        if twice := [name for name in names if names.count(name) > 1]:
            raise Fault("pictures", f"{twice[0]} is uploaded twice: put the pictures into a zip with folders")
        zipped = [name for name in names if name.lower().endswith(".zip")]
        if zipped and len(files) > 1:
            raise Fault("pictures", f"{zipped[0]} comes with other files: upload one zip, or pictures, not both")
        room = tempfile.TemporaryDirectory(prefix="mmclust-upload-")
        folder = Path(room.name) / "upload"
        try:
            if zipped:
                archive = Path(room.name) / zipped[0]
                archive.write_bytes(files[0][1])
                if not zipfile.is_zipfile(archive):
                    raise Fault("pictures", f"{zipped[0]} is no zip, or a damaged one")
                unpack(archive, folder, most=UNPACKED)
            else:
                folder.mkdir()
                for name, (_, content) in zip(names, files):
                    if Path(name).suffix.lower() in SUFFIXES:
                        (folder / name).write_bytes(content)
                if other := [name for name in names if Path(name).suffix.lower() not in SUFFIXES]:
                    notes.append(f"left out {len(other)} of {len(names)} files that are no pictures by their names: {', '.join(other[:5])}")
            data = self._folder(folder, domain, notes)
        except (ValueError, OSError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, (zipfile.BadZipFile, RuntimeError, EOFError)) else None
            said = f"{zipped[0]} can't be unpacked: {cause}" if zipped and cause else str(error).replace(f"{folder}", "the upload").replace(f"{room.name}/", "")
            room.cleanup()
            raise Fault("pictures", said) from error
        notes[:] = [note.replace(f"{folder}", "the upload") for note in notes]
        self._room, old = room, self._room
        if old:
            old.cleanup()
        return data

    def _short(self, error) -> str:
        return str(error).replace(f"{self.home}/", "") if self.home != Path("/") else str(error)

    def keywords(self) -> list[str]:
        """Those to pick from: what the lexicon has words for, those of the pictures' domain first."""
        from mmclust.words import keywords

        return keywords(self.data.domain)

    def words(self, keyword: str):
        """The reference words of a keyword, with their `source`.

        Raises:
            Fault: of "keyword", with the ways out.
        """
        from mmclust.words import reference_words
        from mmclust.words.ask import AskError

        keyword = self._keyword(keyword)
        try:
            return reference_words(keyword, of=self.data.domain, source=self.cfg.source)
        except (AskError, ImportError) as error:
            raise Fault("keyword", f"{error}; or type the words yourself, below") from error
        except ValueError as error:
            known, domain = ", ".join(self.keywords()[:8]), self.data.domain
            raise Fault("keyword", f"the lexicon has no words for {keyword!r} of {domain}: type them yourself, below, or pick {known}, ...") from error

    def _keyword(self, text: str) -> str:
        keyword = " ".join((text or "").split())
        if not keyword:
            raise Fault("keyword", "no keyword is given: type what to sort the pictures by, such as color")
        if len(keyword) > LONGEST or "*" in keyword:
            raise Fault("keyword", f"a keyword has at most {LONGEST} letters and no '*'")
        return keyword

    def check_words(self, text: str) -> list[str]:
        """Words out of a text, between commas, semicolons or lines.

        Raises:
            Fault: of "words": fewer than two, one twice, too long, or with nothing to read in it.
        """
        words = [" ".join(word.split()) for word in re.split(r"[,;\n]", text or "")]
        words = [word for word in words if word]
        if len(words) < 2:
            raise Fault("words", f"at least two reference words are needed, with commas between them, not {len(words)}")
        if twice := [word for word in words if words.count(word) > 1]:
            raise Fault("words", f"a reference word stands twice: {twice[0]}")
        if wrong := [word for word in words if len(word) > LONGEST or "*" in word or not re.search(r"\w", word)]:
            raise Fault("words", f"{wrong[0][:LONGEST]!r} is no word: up to {LONGEST} letters, and no '*'")
        return words

    def check_clusters(self, text: str) -> int | str:
        """ "auto", or a whole number from 2 to that of the pictures.

        Raises:
            Fault: of "clusters".
        """
        text, n = (text or "").strip().lower(), len(self.data)
        if text in ("auto", ""):
            if n < 3:
                raise Fault("clusters", f"auto needs at least 3 pictures, there are {n}: give a number")
            return "auto"
        try:
            m = int(text)
        except ValueError:
            raise Fault("clusters", f"{text!r} is neither a whole number nor auto") from None
        if m < 2:
            raise Fault("clusters", f"{m} cluster{'s' * (m != 1)} would not sort anything: at least 2")
        if m > n:
            raise Fault("clusters", f"{m} clusters for {n} pictures: at most {n}")
        return m

    def encoder(self, name: str):
        """An encoder by name, loaded once.

        Raises:
            Fault: of "encoder".
        """
        name = (name or "").strip()
        if name not in self._encoders:
            from mmclust.encoders import load_encoder

            try:
                self._encoders[name] = load_encoder(name, self.device)
            except Exception as error:  # the hub, a folder's files, a missing package: whatever it is, it is about this field
                raise Fault("encoder", f"{name or 'no encoder'} can't be loaded: {error}") from error
        return self._encoders[name]

    def look(self, keyword: str, words: str, method: str = "MultiSub", encoder: str | None = None, n_clusters: str = "auto", others=()) -> Look:
        """Sort the pictures by a keyword.

        Args:
            words: reference words as they are typed.
            method: one of `METHODS`' values.
            n_clusters: a number as it is typed, or "auto"; CLIP_GPT takes none.
            others: keywords beside it, which Multi-MaP contrasts it with.

        Raises:
            Fault: of the field that it is about; what the method says about all of them is of "run".
        """
        import mmclust as mm
        from mmclust.words import prompt_template

        keyword, words = self._keyword(keyword), self.check_words(words)
        if method not in METHODS.values():
            raise Fault("method", f"{method!r} is none of {', '.join(METHODS.values())}")
        m = None if method == "CLIP_GPT" else self.check_clusters(n_clusters)
        model, template = self.encoder(self.cfg.encoder if encoder is None else encoder), prompt_template(keyword, of=self.data.domain)
        own = {} if m is None else {"n_clusters": m, "random_state": self.cfg.seed}
        if method == "MultiMaP":
            own["concepts"] = [keyword, *others]
        key = (self.data.images.fingerprint, self.data.domain, method, model.name, keyword, tuple(words), str(own))
        if key not in self._looks:
            start = time.perf_counter()
            params = of_dataset(self.cfg.methods.get(method, {}), self.data.name) | self.cfg.quick.get(method, {})
            try:
                fitted = getattr(mm, method)(encoder=model, template=template, words=words, **params, **own).fit(self.data.images)
                self._looks[key] = Look(keyword, words, fitted, fitted.name_clusters(), fitted.explain(), time.perf_counter() - start)
            except (ValueError, OSError, RuntimeError) as error:
                raise Fault("run", self._short(error)) from error
        return self._looks[key]

    def said(self) -> list[str]:
        """What each picture is called: its file, or its number."""
        return [row.get("file") or f"picture {i}" for i, row in enumerate(self.data.rows or [{}] * len(self.data))]

    @staticmethod
    def compare(one: Look, other: Look):
        """Where two clusterings disagree: 1 - AMI, the share of pairs that are together in one and apart in the other (1 - RI), and the counts, a
        frame of clusters by clusters."""
        import pandas as pd
        from sklearn.metrics import rand_score

        from mmclust.methods.several import Clusterings

        difference = Clusterings({"one": one.model, "other": other.model}).difference.loc["one", "other"]
        counts = pd.crosstab(pd.Categorical(one.named, one.names), pd.Categorical(other.named, other.names), dropna=False)
        return float(difference), 1 - rand_score(one.labels, other.labels), counts

    def export(self, *looks: Look) -> str:
        """CSV: picture, file, and for each keyword the cluster and its name."""
        import pandas as pd

        table = pd.DataFrame({"picture": range(len(self.data)), "file": [row.get("file", "") for row in self.data.rows or [{}] * len(self.data)]})
        for look in looks:
            table[f"{look.keyword}: cluster"], table[f"{look.keyword}: name"] = look.labels, look.named
        return table.to_csv(index=False)


class Explorer:
    """Widgets around a `Session`. Shows itself as the value of a cell, says what it is doing, and answers what stands in its fields.

    Args: as for `Session`.

    Raises:
        ImportError: without ipywidgets.
    """

    def __init__(self, profile: str = "demo", device: str = "cpu", home: str | Path | None = None, **given):
        try:
            import ipywidgets as w
        except ImportError as error:
            raise ImportError('the explorer needs ipywidgets: pip install "mmclust[explorer]"') from error
        self.session = Session(profile, device, home, **given)
        cfg, self.ready, self._idle, self._warming = self.session.cfg, threading.Event(), threading.Event(), None
        kinds = [(WORLDS.get(name, name), name) for name in cfg.worlds] + [("a folder on this machine", "folder"), ("an upload", "upload")]
        self.kind = w.Dropdown(options=kinds, description="Pictures")
        self.path = w.Text(description="Path of the folder", placeholder="/home/me/photos", continuous_update=False)
        self.upload = w.FileUpload(accept=".zip,image/*", multiple=True, description="Choose pictures or a zip")
        self.domain = w.Text(value="photo", description="What they show", continuous_update=False)
        self.keyword = w.Combobox(value=cfg.keyword, description="Keyword", placeholder="type or pick one", continuous_update=False)
        self.words = w.Textarea(description="Its reference words", continuous_update=False)
        self.second = w.Combobox(description="Second keyword, to compare", placeholder="none", continuous_update=False)
        self.second_words = w.Textarea(description="Its reference words", continuous_update=False)
        self.method = w.Dropdown(options=list(METHODS.items()), description="Method")
        self.encoder = w.Combobox(value=cfg.encoder, options=["mini", "mini-half", "mini-quarter"], description="Encoder", continuous_update=False)
        self.clusters = w.Text(value="auto", description="Clusters: a number, or auto", continuous_update=False)
        self.go = w.Button(description="Sort the pictures").add_class("mm-go")
        self.status, self.strip, self.csv, self.crossed = w.HTML(), w.HTML(), w.HTML(), w.HTML()
        self.galleries, self.maps = [w.HTML(), w.HTML()], [w.HTML(), w.HTML()]
        self.looks = w.VBox([w.VBox(pair).add_class("mm-look") for pair in zip(self.galleries, self.maps)]).add_class("mm-looks")
        self.beside = {name: w.HTML() for name in ("pictures", "keyword", "words", "second", "second_words", "method", "encoder", "clusters", "run")}
        fields = {
            "pictures": [self.kind, self.path, self.upload, self.domain], "keyword": [self.keyword], "words": [self.words], "second": [self.second],
            "second_words": [self.second_words], "method": [self.method], "encoder": [self.encoder], "clusters": [self.clusters],
        }  # fmt: skip
        form = [w.VBox([*controls, self.beside[name]]).add_class("mm-field").add_class(f"mm-field-{name}") for name, controls in fields.items()]
        from mmclust.galleries import CSS

        parts = [w.HTML(f"<style>{CSS}</style>"), w.VBox(form).add_class("mm-form"), self.strip, self.go, self.beside["run"], self.status, self.csv]
        self.box = w.VBox([*parts, self.crossed, self.looks]).add_class("mmx")
        self.say("starting: loading torch and the methods, a few seconds once ...")
        self._show_pictures_fields()
        for widget, react in (
            (self.kind, self._new_pictures), (self.path, self._new_pictures), (self.upload, self._new_pictures), (self.domain, self._new_pictures),
            (self.keyword, self._new_keyword), (self.second, self._new_second), (self.method, self._new_method),
        ):  # fmt: skip
            widget.observe(react, "value")
        for widget, name in ((self.words, "words"), (self.second_words, "second_words"), (self.encoder, "encoder"), (self.clusters, "clusters")):
            widget.observe(lambda _, name=name: self.note(name), "value")
        self.go.on_click(lambda _: self.sort())

    def _repr_mimebundle_(self, **_):
        self.start()
        return self.box._repr_mimebundle_()

    def start(self) -> None:
        """Load what takes seconds in a thread of its own, so that the page is there meanwhile, and show a first answer."""
        if self._warming is None:
            self._warming = threading.Thread(target=self._warm, daemon=True)
            self._warming.start()

    def _wait(self) -> None:
        """Until that is done, except in the thread that does it."""
        self.start()
        if threading.current_thread() is not self._warming:
            self.ready.wait()

    def _warm(self) -> None:
        try:
            import mmclust as mm

            mm.MultiSub, mm.MultiMaP, mm.MultiDProxy, mm.CLIP_GPT  # noqa: B018
            self.say(f"loading the encoder {self.encoder.value} ...")
            self.session.encoder(self.encoder.value)
            self._take_pictures()
            self._sort()
        except Exception as error:
            self._tell(error)
        finally:
            self.ready.set()
            self._idle.set()
        with suppress(Exception):  # only time would be saved
            from mmclust.galleries import thumbnails

            for name in self.session.cfg.worlds:
                images = mm.load_dataset(name, n=self.session.cfg.n, seed=self.session.cfg.seed).images.cached()
                thumbnails(images, self._idle.wait)  # whoever asks comes first
                self.session.encoder(self.session.cfg.encoder).encode_images(images)

    def say(self, text: str) -> None:
        """Put a sentence into the status line."""
        self.status.value = f'<div class="mm-status" role="status" aria-live="polite">{escape(text)}</div>'

    def note(self, name: str, text: str = "", bad: bool = False) -> None:
        """Put a sentence beside a field; none takes away what stands there."""
        self.beside[name].value = text and f'<div class="{"mm-bad" if bad else "mm-note"}"{" role=alert" * bad}>{escape(text)}</div>'

    def _tell(self, error: Exception) -> None:
        field, said = (error.field, str(error)) if isinstance(error, Fault) else ("run", f"something went wrong: {type(error).__name__}: {error}")
        self.note(field, said, bad=True)
        self.say("nothing was sorted: see the note beside the field" if field != "run" else "nothing was sorted")

    def _show_pictures_fields(self) -> None:
        for widget, kinds in ((self.path, ["folder"]), (self.upload, ["upload"]), (self.domain, ["folder", "upload"])):
            widget.layout.display = None if self.kind.value in kinds else "none"
        for widget in (self.second_words, self.beside["second_words"]):
            widget.layout.display = None if self.second.value.strip() else "none"

    def _new_pictures(self, _=None) -> None:
        self._show_pictures_fields()
        self.note("pictures")
        asked = {"folder": self.path.value.strip(), "upload": self.upload.value}.get(self.kind.value, True)
        if not asked:
            uploads = f"pictures or one zip, up to {UPLOAD // MB} MB"
            self.note("pictures", uploads if self.kind.value == "upload" else "the path of a folder that holds pictures")
            return
        self._do(self._take_pictures)

    def _take_pictures(self) -> None:
        kind = self.kind.value
        self.say("reading the pictures ..." if kind in ("folder", "upload") else f"drawing {self.session.cfg.n} pictures ...")
        value = [(f["name"], bytes(f["content"])) for f in self.upload.value] if kind == "upload" else self.path.value
        data = self.session.load(kind, value, self.domain.value)
        from mmclust.galleries import strip

        self.say(f"the encoder looks at {len(data)} pictures ...")
        with suppress(Fault):  # told when it is needed
            self.session.encoder(self.encoder.value).encode_images(data.images)
        self.strip.value = strip(self.session.thumbs)
        self._clear()
        self.note("pictures", "; ".join([f"{len(data)} pictures", *self.session.notes]))
        self.keyword.options = self.second.options = self.session.keywords()
        before = self.keyword.value
        if before not in data.criteria:
            self.keyword.value = next((k for k in self.session.keywords() if k in data.criteria), before)
        if self.keyword.value == before:  # else the change has fetched its words
            self._fill(self.keyword, self.words, "keyword")
        if self.second.value.strip():
            self._fill(self.second, self.second_words, "second")
        self.say("ready: press the button to sort them")

    def _clear(self) -> None:
        for html in (self.csv, self.crossed, *self.galleries, *self.maps):
            html.value = ""

    def _fill(self, keyword, words, name: str) -> None:
        """Fetch a keyword's words into their field."""
        self.note(name)
        self.note({"keyword": "words", "second": "second_words"}[name])
        try:
            found = self.session.words(keyword.value)
            words.value = ", ".join(found)
            self.note({"keyword": "words", "second": "second_words"}[name], f"from {found.source}; change them as you like")
        except Fault as error:
            words.value = ""
            self.note(name, str(error), bad=True)

    def _new_keyword(self, _) -> None:
        self._wait()
        self._fill(self.keyword, self.words, "keyword")

    def _new_second(self, _) -> None:
        self._wait()
        self.note("second")
        self._show_pictures_fields()
        if self.second.value.strip():
            self._fill(self.second, self.second_words, "second")

    def _new_method(self, _) -> None:
        self.note("method")
        self.note("clusters")
        self.clusters.disabled = self.method.value == "CLIP_GPT"
        if self.clusters.disabled:
            self.note("method", "one cluster for each word that some picture is nearest to; nothing is learned")

    def sort(self) -> None:
        """Answer what stands in the fields; faults are told beside them."""
        self._do(self._sort)

    def _do(self, work) -> None:
        self.go.disabled = True
        try:
            self._wait()
            self._idle.clear()
            work()
        except Exception as error:
            self._tell(error)
        finally:
            self.go.disabled = False
            self._idle.set()

    def _sort(self) -> None:
        from mmclust import galleries

        session, start = self.session, time.perf_counter()
        for name in ("run", "encoder", "clusters"):
            self.note(name)
        if session.data is None:
            raise Fault("pictures", "no pictures yet: choose some first")
        asked = [(self.keyword.value, self.words.value)] + [(self.second.value, self.second_words.value)] * bool(self.second.value.strip())
        keywords = [" ".join(keyword.split()) for keyword, _ in asked]
        if len(set(keywords)) < len(keywords):
            raise Fault("second", "the same keyword as the first: give another, or none")
        self._clear()
        (self.looks.add_class if len(asked) == 1 else self.looks.remove_class)("mm-one")
        looks: list[Look] = []
        for k, (keyword, words) in enumerate(asked):
            self.say(f"sorting {len(session.data)} pictures by {keywords[k]} ...")
            beside = [other for other in keywords if other != keywords[k]]
            try:
                looks.append(session.look(keyword, words, self.method.value, self.encoder.value, self.clusters.value, beside))
            except Fault as error:
                raise Fault(SECOND.get(error.field, error.field) if k else error.field, error) from error
            self.note("second" if k else "keyword")
            self.galleries[k].value = self._gallery(looks[k])
        seconds = time.perf_counter() - start
        self.say(f"sorted in {seconds:.1f} s; drawing the map ...")
        self._offer(looks)
        if len(looks) == 2:
            self._cross(*looks)
        for look, html in zip(looks, self.maps):
            points = galleries.positions(look.space, session.cfg.seed)
            drawn = galleries.scatter(points, look.labels, look.names, session.said(), f"t-SNE of {len(session.data)} pictures by {look.keyword}")
            html.value = f"<h4>As a map <small>t-SNE of what was clustered by {escape(look.keyword)}</small></h4>{drawn}"
        self.say(f"{len(session.data)} pictures sorted by {' and by '.join(keywords)} in {seconds:.1f} s. Click a picture for its word weights.")

    def _gallery(self, look: Look) -> str:
        from mmclust import galleries

        session = self.session
        criteria = {c: session.data.frame()[c] for c in session.data.criteria if c != look.keyword}
        found = galleries.gallery(look.keyword, look.labels, look.names, session.thumbs, session.said(), look.weights, criteria)
        about = f"{look.model.n_clusters_} clusters{self._agreement(look)}"
        return f"<h3>by {escape(look.keyword)} <small>{about}</small></h3>{found}"

    def _offer(self, looks: list[Look]) -> None:
        content = base64.b64encode(self.session.export(*looks).encode()).decode()
        name = re.sub(r"\W+", "-", "-".join(["mmclust", *(look.keyword for look in looks)]))
        self.csv.value = f'<a class="mm-csv" download="{name}.csv" href="data:text/csv;base64,{content}">Download the labels (CSV)</a>'

    def _agreement(self, look: Look) -> str:
        from mmclust.metrics import score

        if look.keyword not in self.session.data.criteria:
            return ""
        return f", NMI {score(self.session.data.labels[look.keyword], look.labels)['NMI']:.2f} with the labels"

    def _cross(self, one: Look, other: Look) -> None:
        from mmclust import galleries

        difference, apart, counts = self.session.compare(one, other)
        self.crossed.value = (
            f"<h3>Where they disagree</h3><p>Of all pairs of pictures, {100 * apart:.0f} % are together under one keyword and apart under the other. "
            f"1 - AMI is {difference:.2f}: 0 where two clusterings are the same, about 1 where they have nothing in common.</p>"
            f"{galleries.crossing(counts, one.keyword, other.keyword)}"
        )


def serve(notebook: Path, host: str = "127.0.0.1", port: int = 8866, profile: str = "demo", device: str = "cpu", browser: bool = True) -> None:
    """Show a notebook of the explorer as a web page, until it is stopped.

    A page has a kernel of its own; one is kept warm for the next. Who reaches the page can read the folders of this machine and run code on it, as with
    any Jupyter server: other hosts than this one therefore need the token that is printed.

    Raises:
        ImportError: without voila. ValueError: the port is taken.
    """
    try:
        import nbformat
        from papermill.iorw import load_notebook_node
        from papermill.parameterize import parameterize_notebook
        from voila.app import Voila
    except ImportError as error:
        raise ImportError('the web page needs voila: pip install "mmclust[explorer]"') from error

    from mmclust.backend import cores

    local = host in ("127.0.0.1", "localhost", "::1")
    with tempfile.TemporaryDirectory(prefix="mmclust-explorer-") as room:
        book = parameterize_notebook(load_notebook_node(str(notebook)), {"profile": profile, "device": device, "home": str(Path.cwd())})
        nbformat.write(book, Path(room) / "explorer.ipynb")
        # Voila's template asks a public server for an icon font: without it, the page needs nobody but this machine.
        policy = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'self'"
        limits = {"headers": {"Content-Security-Policy": policy}, "allow_remote_access": not local}
        limits["websocket_max_message_size"] = 8 * UPLOAD  # larger uploads than are allowed arrive, to be refused in words
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // 2)))  # a page computes while the kernel of the next one warms up
        options = [f"--Voila.ip={host}", f"--port={port}", "--Voila.port_retries=0", f"--Voila.open_browser={browser}", f"--Voila.tornado_settings={limits}"]
        options += ["--preheat_kernel=True", "--pool_size=1", "--VoilaConfiguration.show_tracebacks=False", "--VoilaConfiguration.strip_sources=True"]
        options += ["--MappingKernelManager.cull_idle_timeout=3600", "--MappingKernelManager.cull_interval=60", f"--Voila.auto_token={not local}"]
        Voila.launch_instance([str(Path(room) / "explorer.ipynb"), *options])
