"""The explorer: a form around an `ExplorerSession`, in a notebook or (`server`) as a web page.

What is slow (torch, the encoder, the first result) runs in a thread, so that the form appears at
once. An error is shown at the field that caused it.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mmclust.data.shifts import Shift
from mmclust.explorer import texts, views
from mmclust.explorer.pictures import MAX_UPLOAD, MB
from mmclust.explorer.session import Clustering, ExplorerSession, InputError
from mmclust.explorer.views import markup
from mmclust.words import keywords as lexicon_keywords

try:
    import ipywidgets
except ImportError:  # `Explorer` explains how to install it
    ipywidgets = None


class ResultPanel:
    """The result of one keyword."""

    def __init__(self) -> None:
        self.heading, self.clusters, self.map = (ipywidgets.HTML() for _ in range(3))
        body = ipywidgets.VBox([self.clusters, self.map]).add_class("mm-result")
        self.box = ipywidgets.VBox([self.heading, body]).add_class("mm-card")


class Explorer:
    """Widgets to cluster pictures by keywords; they appear as the value of a notebook's cell.

    The arguments are those of `ExplorerSession`. Raises ImportError without ipywidgets.
    """

    def __init__(
        self, profile: str = "demo", device: str = "cpu", home: str | Path | None = None, **cfg: Any
    ) -> None:
        if ipywidgets is None:
            raise ImportError('the explorer needs ipywidgets: pip install "mmclust[explorer]"')
        self.session = ExplorerSession(profile, device, home, **cfg)
        self.ready = threading.Event()  # set when the first result, or an error, is shown
        self._warmup = threading.Thread(target=self._warm_up, daemon=True)
        self._pictures_loaded = False
        self._clusterings: list[Clustering] = []  # what the page shows
        self._make_inputs()
        self._lay_out()
        self._connect()
        self._clear_results()
        self._show_used_fields()
        self._set_status("starting: loading torch and the methods, a few seconds once ...")

    def _make_inputs(self) -> None:
        # A change counts when the user leaves the field, not at each key.
        text = partial(ipywidgets.Text, continuous_update=False)
        combobox = partial(ipywidgets.Combobox, continuous_update=False)
        textarea = partial(ipywidgets.Textarea, continuous_update=False)
        cfg = self.session.cfg
        sources = [(texts.WORLD_LABELS.get(name, name), name) for name in cfg.worlds]
        sources += [("a folder on this machine", "folder"), ("an upload", "upload")]
        self.source = ipywidgets.Dropdown(options=sources, description=texts.LABELS["pictures"])
        self.path = text(description="Path of the folder", placeholder="/home/me/photos")
        kinds = {"accept": ".zip,image/*,.heic,.heif,.jfif", "multiple": True, "icon": ""}
        self.upload = ipywidgets.FileUpload(description="Choose pictures or a zip", **kinds)
        self.domain = text(value="photo", description="What they show, in one word")
        self.keywords = [
            combobox(placeholder="type or pick one", description=texts.LABELS["keyword"]),
            combobox(placeholder="none", description=texts.LABELS["second"]),
        ]
        self.keywords[0].value = cfg.keyword
        self.chips = [ipywidgets.HBox().add_class("mm-chips") for _ in texts.KEYWORD_FIELDS]
        self.words = [textarea(description=texts.LABELS[name]) for name in texts.WORDS_FIELDS]
        choice = ipywidgets.Dropdown
        self.method = choice(options=texts.METHODS, description=texts.LABELS["method"])
        self.second_method = choice(
            options=texts.SECOND_METHODS, description=texts.LABELS["second_method"]
        )
        self.shift = choice(options=texts.SHIFT_CHOICES, description=texts.LABELS["shift"])
        self.word_list = choice(
            options=texts.WORD_LIST_CHOICES, description=texts.LABELS["word_list"]
        )
        self.clusters = text(value="auto", description="Clusters, or auto")
        self._chosen = (cfg.encoder, "")  # the encoder that we chose, and why
        self.encoder = combobox(
            value=cfg.encoder, options=texts.ENCODERS, description=texts.LABELS["encoder"]
        )
        self.sort_button = ipywidgets.Button(description="Sort the pictures").add_class("mm-go")

    def _lay_out(self) -> None:
        self.notes = {name: ipywidgets.HTML() for name in texts.LABELS}
        self.status, self.download, self.strip = (ipywidgets.HTML() for _ in range(3))
        self.comparison = ipywidgets.HTML().add_class("mm-card")
        self.panels = [ResultPanel() for _ in texts.KEYWORD_FIELDS]
        self.results = ipywidgets.VBox([panel.box for panel in self.panels]).add_class("mm-results")
        controls = {
            "pictures": [self.source, self.path, self.upload, self.domain],
            "keyword": [self.keywords[0], self.chips[0]], "words": [self.words[0]],
            "second": [self.keywords[1], self.chips[1]], "second_words": [self.words[1]],
            "method": [self.method], "second_method": [self.second_method],
            "clusters": [self.clusters], "encoder": [self.encoder],
            "shift": [self.shift], "word_list": [self.word_list], "run": [self.sort_button],
        }  # fmt: skip
        self.fields = {}
        for name, widgets in controls.items():
            self.fields[name] = ipywidgets.VBox([*widgets, self.notes[name]])
            self.fields[name].add_class("mm-field").add_class(f"mm-field-{name}")
        self.fields["pictures"].children += (self.strip,)
        form = ipywidgets.VBox(list(self.fields.values())).add_class("mm-form").add_class("mm-card")
        bar = ipywidgets.HBox([self.status, self.download]).add_class("mm-bar")
        style = ipywidgets.HTML(f"<style>{views.style_sheet()}</style>")
        self.box = ipywidgets.VBox([style, form, bar, self.comparison, self.results])
        self.box.add_class("mmx")

    def _connect(self) -> None:
        for widget in (self.source, self.path, self.upload, self.domain, self.shift):
            widget.observe(lambda _: self._change_pictures(), "value")
        for k, keyword in enumerate(self.keywords):
            keyword.observe(lambda _, k=k: self._change_keyword(k), "value")
        self.word_list.observe(lambda _: self._change_word_list(), "value")
        for widget in (self.method, self.second_method):
            widget.observe(lambda _: self._change_method(), "value")
        inputs = [*self.words, self.encoder, self.clusters]
        for name, widget in zip((*texts.WORDS_FIELDS, "encoder", "clusters"), inputs):
            widget.observe(lambda _, name=name: self._set_note(name), "value")
        self.sort_button.on_click(lambda _: self.sort())

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        self.start()
        fallback = {"text/plain": texts.NO_KERNEL, "text/html": f"<p>{texts.NO_KERNEL}</p>"}
        return self.box._repr_mimebundle_() | fallback

    def start(self) -> None:
        """Load torch, the encoder and the pictures in a thread, and show a first result."""
        if self._warmup.ident is None:
            self._warmup.start()

    def _warm_up(self) -> None:
        try:
            self._set_status(f"loading the encoder {self.encoder.value} ...")
            self.session.encoder(self.encoder.value)
            self._load_pictures()
            self._sort()
        except Exception as error:
            self._show_error(error)
        finally:
            self.ready.set()

    def _wait(self) -> None:
        """Wait for the first result, except in the thread that makes it."""
        self.start()
        if threading.current_thread() is not self._warmup:
            self.ready.wait()

    def _work(self, step: Callable[[], None]) -> None:
        """Run `step` with the button disabled; an error is shown at its field."""
        self.sort_button.disabled = True
        try:
            self._wait()
            step()
        except Exception as error:
            self._show_error(error)
        finally:
            self.sort_button.disabled = False

    def _set_status(self, text: str, state: str = "busy") -> None:
        """Show a sentence in the status line; `state`: "busy", "idle", "done" or "failed"."""
        self.status.value = markup.status(text, state)

    def _set_note(self, field: str, text: str = "", error: bool = False) -> None:
        """Show a sentence at a field; without text, remove it."""
        self.notes[field].value = markup.note(text, error)

    def _show_error(self, error: Exception) -> None:
        if not isinstance(error, InputError):
            error = InputError("run", f"unexpected error: {type(error).__name__}: {error}")
        self._set_note(error.field, str(error), error=True)
        fields = [texts.LABELS[f] for f, note in self.notes.items() if "mm-error" in note.value]
        titles = [clustering.title for clustering in self._clusterings]
        result = f"sorted by {titles[0]} only" if titles else "nothing was sorted"
        self._set_status(f"{result}: see {' and '.join(fields)}", "failed")

    def _show_used_fields(self) -> None:
        source = self.source.value
        for widget, used in (
            (self.path, source == "folder"),
            (self.upload, source == "upload"),
            (self.domain, source in ("folder", "upload")),
            (self.fields["second_words"], self.keywords[1].value.strip()),
        ):
            widget.layout.display = None if used else "none"

    def _change_pictures(self) -> None:
        self._show_used_fields()
        self._set_note("pictures")
        self._pictures_loaded = False
        self.strip.value = ""
        self._clear_results()
        if self.source.value == "folder" and not self.path.value.strip():
            self._set_note("pictures", "the path of a folder with pictures")
            self._set_status("waiting for the path of a folder", "idle")
        elif self.source.value == "upload" and not self.upload.value:
            self._set_note("pictures", f"pictures or one zip, up to {MAX_UPLOAD // MB} MB")
            self._set_status("waiting for an upload", "idle")
        else:
            self._work(self._load_pictures)

    def _load_pictures(self) -> None:
        session = self.session
        uploads = [(file["name"], bytes(file["content"])) for file in self.upload.value]
        value = uploads if self.source.value == "upload" else self.path.value
        self._set_status("reading the pictures ...")
        shift = Shift(*self.shift.value) if self.shift.value else None
        data = session.load(self.source.value, value, self.domain.value, shift)
        self._set_status(f"encoding {len(data)} pictures ...")
        self._choose_encoder()
        with suppress(InputError):  # shown when the pictures are sorted
            session.encoder(self.encoder.value).encode_images(data.images)
        self._pictures_loaded = True
        self.strip.value = markup.strip(session.thumbnails[: texts.STRIP_LENGTH])
        self._set_status(f"comparing keywords for {len(data)} pictures ...")
        suggested: list[str] = []
        with suppress(InputError):
            suggested = session.suggest(self.encoder.value)
        fits = f"they can be sorted by {', '.join(suggested[: texts.N_CHIPS])}"
        fits = fits if suggested else "no keyword of the lexicon fits them: type your own words"
        self._set_note("pictures", "; ".join([f"{len(data)} pictures", fits, *data.notes]))
        self._offer_keywords(suggested)
        self._set_status("ready: press the button to sort them", "idle")

    def _choose_encoder(self) -> None:
        """Fill in the encoder for the pictures, and say why, unless the user typed another."""
        if self.encoder.value == self._chosen[0]:
            self._chosen = self.session.choose_encoder()
            self.encoder.value = self._chosen[0]
            self._set_note("encoder", self._chosen[1])

    def _offer_keywords(self, suggested: list[str]) -> None:
        """Offer the suggested keywords, and others with words. If the current keyword is unlabeled,
        select a labeled one; for pictures without labels, the first suggestion."""
        criteria = [name for name in self.session.data.criteria if name != "class"]  # of folders
        listed = [*suggested, *lexicon_keywords(self.session.data.domain)]
        offered = list(dict.fromkeys(listed))
        # The words of "identity" are drawn at random: only useful where it is a label.
        chips = [k for k in offered if k != "identity" or k in criteria][: texts.N_CHIPS]
        for field, box in zip(self.keywords, self.chips):
            field.options = offered
            box.children = [ipywidgets.Button(description=keyword) for keyword in chips]
            for chip in box.children:
                chip.on_click(partial(self._pick, field))
        keyword = self.keywords[0].value
        wanted = [k for k in offered if k in criteria] if criteria else suggested[:1]
        if keyword in criteria or not wanted or keyword == wanted[0]:
            self._change_keyword(0)
        else:
            self.keywords[0].value = wanted[0]  # this fetches its words
        self._change_keyword(1)

    def _pick(self, field: Any, chip: Any) -> None:
        removed = field is self.keywords[1] and field.value == chip.description
        field.value = "" if removed else chip.description

    def _change_keyword(self, k: int) -> None:
        """Fetch the reference words of the first (k = 0) or the second keyword (k = 1)."""
        self._wait()
        keyword = self.keywords[k].value.strip()
        for chip in self.chips[k].children:
            (chip.add_class if chip.description == keyword else chip.remove_class)("mm-chosen")
        self._show_used_fields()
        self._set_note(texts.KEYWORD_FIELDS[k])
        if not keyword and (k == 1 or self.method.value == "KMeans"):
            return
        self._set_note(texts.WORDS_FIELDS[k])
        try:
            words = self.session.words(keyword, texts.WORD_LISTS[self.word_list.value])
            self.words[k].value = ", ".join(words)
            self._set_note(texts.WORDS_FIELDS[k], f"from {words.source}; change them as you like")
        except InputError as error:
            self.words[k].value = ""
            field = texts.KEYWORD_FIELDS[k] if error.field == "keyword" else error.field
            self._set_note(field, str(error), error=True)

    def _change_word_list(self) -> None:
        """Fetch the words again; lists with errors need a labeled keyword."""
        self._set_note("word_list")
        for k in (0, 1):
            self._change_keyword(k)
        if self.keywords[0].value not in self.session.data.criteria:
            self._set_note("word_list", "only where the true names of the keyword are known")

    def _change_method(self) -> None:
        methods = {self.method.value, self.second_method.value or self.method.value}
        self.clusters.disabled = methods == {"CLIP_GPT"}
        self._set_note("clusters")
        self._set_note("method", texts.METHOD_NOTES.get(self.method.value, ""))
        self._set_note("second_method", texts.METHOD_NOTES.get(self.second_method.value, ""))

    def _sides(self) -> list[tuple[int, str, str]]:
        """What stands side by side, one or two: the number of the words' field, keyword, method."""
        keyword, second = (" ".join(field.value.split()) for field in self.keywords)
        method, second_method = self.method.value, self.second_method.value
        sides = [(0, keyword, method)]
        if second or second_method:
            sides.append((int(bool(second)), second or keyword, second_method or method))
        if len(sides) == 2 and sides[0][1:] == sides[1][1:]:
            message = "the same keyword as the first: type another, none, or a second method"
            raise InputError("second", message)
        return sides

    def sort(self) -> None:
        """Cluster the pictures as the fields say; errors are shown at the fields."""
        self._work(self._sort)

    def _sort(self) -> None:
        start = time.perf_counter()
        for name in ("run", "encoder", "clusters"):
            self._set_note(name)
        if self.encoder.value == self._chosen[0]:
            self._set_note("encoder", self._chosen[1])
        self._clear_results()
        if not self._pictures_loaded:
            self._load_pictures()
        sides = self._sides()
        keywords = [keyword for _, keyword, _ in sides]
        n = len(self.session.data)
        asked = []
        for k, keyword, method in sides:
            others = [other for other in keywords if other != keyword]
            choices = (method, self.encoder.value, self.clusters.value, others)
            asked.append((keyword, self.words[k].value, *choices))
        results = self.session.cluster_side_by_side(*asked)
        for k, keyword, method in sides:
            short = texts.METHOD_LABELS[method].partition(":")[0]
            full = f"{keyword}, {short}".removeprefix(", ")
            title = full if keywords.count(keyword) > 1 or method == "KMeans" else keyword
            self._set_status(f"sorting {n} pictures by {title} ...")
            try:
                clustering = next(results)
            except InputError as error:
                self._draw_maps()
                names = {"keyword": texts.KEYWORD_FIELDS[k], "words": texts.WORDS_FIELDS[k]}
                raise InputError(names.get(error.field, error.field), error) from error
            self._clusterings.append(replace(clustering, title=title))
            self._set_note(texts.KEYWORD_FIELDS[k])
            self._show_results(len(sides))  # the first is visible while the second is computed
        self._set_status(f"sorted in {time.perf_counter() - start:.1f} s; drawing the map ...")
        self._draw_maps()
        result = f"{n} pictures sorted by {' and by '.join(c.title for c in self._clusterings)}"
        result += f" in {time.perf_counter() - start:.1f} s. Click a picture for its word weights."
        self._set_status(result, "done")

    def _clear_results(self) -> None:
        self._clusterings = []
        self.download.value = self.comparison.value = ""
        self.comparison.layout.display = "none"
        for panel in self.panels:
            panel.heading.value = panel.clusters.value = panel.map.value = ""
            panel.box.layout.display = "none"

    def _show_results(self, n_sides: int) -> None:
        """Show the clusters so far, their comparison and the file of labels."""
        clusterings = self._clusterings
        session = self.session
        uris = session.thumbnails
        names = session.picture_names()
        (self.results.add_class if n_sides == 1 else self.results.remove_class)("mm-single")
        for panel, clustering in zip(self.panels, clusterings):
            panel.heading.value = views.heading(clustering, session.data)
            others = [other for other in clusterings if other is not clustering]
            captions = views.captions(session.data, others)
            wrong = views.wrong_pictures(clustering, session.data)
            panel.clusters.value = views.clusters(clustering, uris, names, captions, wrong)
            panel.map.value = markup.map("", [], views.MAP_SIDE, 0)  # keeps the place
            panel.box.layout.display = None
        if len(clusterings) == 2:
            first, second = clusterings
            difference, apart, counts = session.compare(first, second)
            table = views.cross_table(counts, first, second, uris)
            self.comparison.value = markup.comparison(difference, apart, table)
            self.comparison.layout.display = None
        content = base64.b64encode(session.export(*clusterings).encode()).decode()
        name = re.sub(r"\W+", "-", "-".join(["mmclust", *(c.title for c in clusterings)]))
        self.download.value = markup.download(name, content)

    def _draw_maps(self) -> None:
        names = self.session.picture_names()
        for panel, clustering in zip(self.panels, self._clusterings):
            positions = views.tsne(clustering.representation, self.session.cfg.seed)
            panel.map.value = views.scatter(clustering, positions, names)
