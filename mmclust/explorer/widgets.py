"""The explorer: pictures, a keyword, its words, and the clusters to look at; in a notebook, or as a web page (`python run_all.py explore`)."""

from __future__ import annotations

import base64
import logging
import os
import re
import secrets
import socket
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from mmclust.explorer.session import MB, METHODS, UPLOAD, Clustering, ExplorerSession, InputError

WORLD_LABELS = {
    "demo-fruit": "rendered fruit",
    "demo-card": "rendered playing cards",
    "demo-face": "rendered faces",
}
FIELDS = {  # where a fault is told, and what the field is called
    "pictures": "Pictures", "keyword": "Keyword", "words": "Reference words", "second": "Second keyword", "second_words": "Second reference words",
    "method": "Method", "clusters": "Clusters", "encoder": "Encoder",
}  # fmt: skip
SECOND = {
    "keyword": "second",
    "words": "second_words",
}  # where a fault of the second keyword is told
CHIPS = 6  # keywords to pick from with one click


class Explorer:
    """Widgets around a `ExplorerSession`. Shows itself as the value of a cell, says what it is doing, and answers what stands in its fields.

    Args: as for `ExplorerSession`.

    Raises:
        ImportError: without ipywidgets.
    """

    def __init__(
        self,
        profile: str = "demo",
        device: str = "cpu",
        home: str | Path | None = None,
        **given: Any,
    ) -> None:
        try:
            import ipywidgets as w
        except ImportError as error:
            raise ImportError(
                'the explorer needs ipywidgets: pip install "mmclust[explorer]"'
            ) from error
        from mmclust.explorer.html import CSS, PAGE

        self.session = ExplorerSession(profile, device, home, **given)
        cfg, self.ready, self._idle, self._taken = (
            self.session.cfg,
            threading.Event(),
            threading.Event(),
            False,
        )
        self._warming: threading.Thread | None = None
        kinds = [(WORLD_LABELS.get(name, name), name) for name in cfg.worlds] + [
            ("a folder on this machine", "folder"),
            ("an upload", "upload"),
        ]
        late = {"continuous_update": False}
        self.kind = w.Dropdown(options=kinds, description=FIELDS["pictures"])
        self.path = w.Text(description="Path of the folder", placeholder="/home/me/photos", **late)
        self.upload = w.FileUpload(
            accept=".zip,image/*", multiple=True, description="Choose pictures or a zip", icon=""
        )
        self.domain = w.Text(value="photo", description="What they show, in one word", **late)
        self.keyword = w.Combobox(
            value=cfg.keyword, description=FIELDS["keyword"], placeholder="type or pick one", **late
        )
        self.words = w.Textarea(description=FIELDS["words"], **late)
        self.second = w.Combobox(description=FIELDS["second"], placeholder="none", **late)
        self.second_words = w.Textarea(description=FIELDS["second_words"], **late)
        self.method = w.Dropdown(options=list(METHODS.items()), description=FIELDS["method"])
        self.clusters = w.Text(value="auto", description="Clusters: a number, or auto", **late)
        self.encoder = w.Combobox(
            value=cfg.encoder,
            options=["mini", "mini-half", "mini-quarter"],
            description=FIELDS["encoder"],
            **late,
        )
        self.go = w.Button(description="Sort the pictures").add_class("mm-go")
        self.status, self.strip, self.csv, self.crossed = (
            w.HTML(),
            w.HTML(),
            w.HTML(),
            w.HTML().add_class("mm-card"),
        )
        self.heads, self.galleries, self.maps = ([w.HTML(), w.HTML()] for _ in range(3))
        self.panels = [
            w.VBox([head, w.VBox(pair).add_class("mm-look")]).add_class("mm-card")
            for head, *pair in zip(self.heads, self.galleries, self.maps)
        ]
        self.looks = w.VBox(self.panels).add_class("mm-looks")
        self.beside = {name: w.HTML() for name in (*FIELDS, "run")}
        self.chips = {name: w.HBox().add_class("mm-chips") for name in ("keyword", "second")}
        fields = {
            "pictures": [self.kind, self.path, self.upload, self.beside["pictures"], self.domain, self.strip],
            "keyword": [self.keyword, self.chips["keyword"]], "words": [self.words], "second": [self.second, self.chips["second"]],
            "second_words": [self.second_words], "method": [self.method], "clusters": [self.clusters], "encoder": [self.encoder],
            "run": [self.go],
        }  # fmt: skip
        self.fields = {}
        for name, controls in fields.items():
            told = [] if self.beside[name] in controls else [self.beside[name]]
            self.fields[name] = (
                w.VBox([*controls, *told]).add_class("mm-field").add_class(f"mm-field-{name}")
            )
        form = w.VBox(list(self.fields.values())).add_class("mm-form").add_class("mm-card")
        self.box = w.VBox(
            [
                w.HTML(f"<style>{PAGE}{CSS}</style>"),
                form,
                w.HBox([self.status, self.csv]).add_class("mm-bar"),
                self.crossed,
                self.looks,
            ]
        )
        self.box.add_class("mmx")
        self.say("starting: loading torch and the methods, a few seconds once ...")
        self._clear()
        self._show_fields()
        for widget, react in (
            (self.kind, self._new_pictures), (self.path, self._new_pictures), (self.upload, self._new_pictures), (self.domain, self._new_pictures),
            (self.keyword, self._new_keyword), (self.second, self._new_second), (self.method, self._new_method),
        ):  # fmt: skip
            widget.observe(react, "value")
        for name in ("words", "second_words", "encoder", "clusters"):
            getattr(self, name).observe(lambda _, name=name: self.note(name), "value")
        self.go.on_click(lambda _: self.sort())

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        self.start()
        still = "The explorer needs a running kernel: run this notebook in JupyterLab, or show it as a web page with python run_all.py explore."
        return self.box._repr_mimebundle_() | {"text/plain": still, "text/html": f"<p>{still}</p>"}

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
            from mmclust.methods import method_class

            for name in METHODS.values():
                method_class(name)  # loads torch and the methods
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
            from mmclust.data import load_dataset
            from mmclust.explorer.html import thumbnails

            for name in self.session.cfg.worlds:
                images = load_dataset(
                    name, n=self.session.cfg.n, seed=self.session.cfg.seed
                ).images.cached()
                thumbnails(images, self._idle.wait)  # whoever asks comes first
                self.session.encoder(self.session.cfg.encoder).encode_images(images)

    def say(self, text: str, state: str = "busy") -> None:
        """Put a sentence into the status line; `state`: "busy", "idle", "done" or "wrong"."""
        self.status.value = f'<div class="mm-status mm-{state}" role="status" aria-live="polite">{escape(text)}</div>'

    def note(self, name: str, text: str = "", bad: bool = False) -> None:
        """Put a sentence beside a field; none takes away what stands there."""
        self.beside[name].value = (
            text
            and f'<div class="{"mm-bad" if bad else "mm-note"}"{" role=alert" * bad}>{escape(text)}</div>'
        )

    def _tell(self, error: Exception) -> None:
        field, said = (
            (error.field, str(error))
            if isinstance(error, InputError)
            else ("run", f"something went wrong: {type(error).__name__}: {error}")
        )
        self.note(field, said, bad=True)
        wrong = [
            FIELDS.get(name, "the note at the button")
            for name, html in self.beside.items()
            if "mm-bad" in html.value
        ]
        sorted_ = (
            f"sorted by {self._looks[0].keyword} alone" if self._looks else "nothing was sorted"
        )
        self.say(f"{sorted_}: see {' and '.join(wrong)}", "wrong")

    def _show_fields(self) -> None:
        kind = self.kind.value
        shown = {
            self.path: kind == "folder",
            self.upload: kind == "upload",
            self.domain: kind in ("folder", "upload"),
        }
        for widget, there in (
            shown | {self.fields["second_words"]: self.second.value.strip()}
        ).items():
            widget.layout.display = None if there else "none"

    def _new_pictures(self, _: Any = None) -> None:
        self._show_fields()
        self.note("pictures")
        self._taken, self.strip.value = False, ""
        self._clear()
        if self.kind.value == "folder" and not self.path.value.strip():
            self.note("pictures", "the path of a folder that holds pictures")
            self.say("waiting for the path of a folder", "idle")
        elif self.kind.value == "upload" and not self.upload.value:
            self.note("pictures", f"pictures or one zip, up to {UPLOAD // MB} MB")
            self.say("waiting for an upload", "idle")
        else:
            self._do(self._take_pictures)

    def _take_pictures(self) -> None:
        kind = self.kind.value
        self.say(
            "reading the pictures ..."
            if kind in ("folder", "upload")
            else f"drawing {self.session.cfg.n} pictures ..."
        )
        value = (
            [(f["name"], bytes(f["content"])) for f in self.upload.value]
            if kind == "upload"
            else self.path.value
        )
        data = self.session.load(kind, value, self.domain.value)
        from mmclust.explorer.html import strip

        self.say(f"the encoder looks at {len(data)} pictures ...")
        with suppress(InputError):  # told when it is needed
            self.session.encoder(self.encoder.value).encode_images(data.images)
        self._taken, self.strip.value = True, strip(self.session.thumbs)
        self.note("pictures", "; ".join([f"{len(data)} pictures", *self.session.notes]))
        self._offer_keywords()
        if self.second.value.strip():
            self._fill("second")
        self.say("ready: press the button to sort them", "idle")

    def _offer_keywords(self) -> None:
        """Those that there are words for; what the pictures have labels of is taken if the one that stands there is none of them."""
        import ipywidgets as w

        offered, criteria = self.session.keywords(), self.session.data.criteria
        few = [k for k in offered if k != "identity" or k in criteria][
            :CHIPS
        ]  # its words are drawn at random: it makes sense where it is a label
        for name, box in self.chips.items():
            field, box.children = (
                getattr(self, name),
                [w.Button(description=keyword) for keyword in few],
            )
            field.options = offered
            for chip in box.children:
                chip.on_click(lambda chip, field=field: self._pick(field, chip.description))
        before = self.keyword.value
        if before not in criteria:
            self.keyword.value = next((k for k in offered if k in criteria), before)
        if self.keyword.value == before:  # else the change has fetched its words
            self._fill("keyword")
        self._mark()

    def _pick(self, field: Any, keyword: str) -> None:
        field.value = "" if field is self.second and field.value == keyword else keyword

    def _mark(self) -> None:
        for name, box in self.chips.items():
            for chip in box.children:
                (
                    chip.add_class
                    if chip.description == getattr(self, name).value.strip()
                    else chip.remove_class
                )("mm-on")

    def _clear(self) -> None:
        self._looks: list[Clustering] = []  # what is shown
        for html in (self.csv, self.crossed, *self.heads, *self.galleries, *self.maps):
            html.value = ""
        for part in (self.crossed, *self.panels):
            part.layout.display = "none"

    def _fill(self, name: str) -> None:
        """Fetch a keyword's words into their field."""
        beside = {"keyword": "words", "second": "second_words"}[name]
        words = getattr(self, beside)
        self.note(name)
        self.note(beside)
        try:
            found = self.session.words(getattr(self, name).value)
            words.value = ", ".join(found)
            self.note(beside, f"from {found.source}; change them as you like")
        except InputError as error:
            words.value = ""
            self.note(name, str(error), bad=True)

    def _new_keyword(self, _: Any) -> None:
        self._wait()
        self._mark()
        self._fill("keyword")

    def _new_second(self, _: Any) -> None:
        self._wait()
        self._mark()
        self.note("second")
        self._show_fields()
        if self.second.value.strip():
            self._fill("second")

    def _new_method(self, _: Any) -> None:
        self.note("method")
        self.note("clusters")
        self.clusters.disabled = self.method.value == "CLIP_GPT"
        if self.clusters.disabled:
            self.note(
                "method",
                "one cluster for each word that some picture is nearest to; nothing is learned",
            )

    def sort(self) -> None:
        """Answer what stands in the fields; faults are told beside them."""
        self._do(self._sort)

    def _do(self, work: Callable[[], None]) -> None:
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
        session, start = self.session, time.perf_counter()
        for name in ("run", "encoder", "clusters"):
            self.note(name)
        self._clear()
        if not self._taken:
            self._take_pictures()
        asked = [(self.keyword.value, self.words.value)] + [
            (self.second.value, self.second_words.value)
        ] * bool(self.second.value.strip())
        keywords = [" ".join(keyword.split()) for keyword, _ in asked]
        if len(set(keywords)) < len(keywords):
            raise InputError("second", "the same keyword as the first: give another, or none")
        looks = self._looks
        for k, (keyword, words) in enumerate(asked):
            self.say(f"sorting {len(session.data)} pictures by {keywords[k]} ...")
            others = [other for other in keywords if other != keywords[k]]
            try:
                looks.append(
                    session.cluster(
                        keyword,
                        words,
                        self.method.value,
                        self.encoder.value,
                        self.clusters.value,
                        others,
                    )
                )
            except InputError as error:
                self._draw(looks)
                raise InputError(
                    SECOND.get(error.field, error.field) if k else error.field, error
                ) from error
            self.note("second" if k else "keyword")
            self._show(
                looks, len(asked)
            )  # the first is there to look at while the second is sorted
        self.say(f"sorted in {time.perf_counter() - start:.1f} s; drawing the map ...")
        self._draw(looks)
        by = " and by ".join(keywords)
        self.say(
            f"{len(session.data)} pictures sorted by {by} in {time.perf_counter() - start:.1f} s. Click a picture for its word weights.",
            "done",
        )

    def _show(self, looks: list[Clustering], asked: int) -> None:
        """Galleries, where two disagree, and the file of labels; room for as many as were asked for."""
        from mmclust.explorer import html as explorer_html

        session = self.session
        (self.looks.add_class if asked == 1 else self.looks.remove_class)("mm-one")
        for k, look in enumerate(looks):
            about = [f"{look.model.n_clusters_} clusters", *self._agreement(look)]
            self.heads[
                k
            ].value = f"<h3>by {escape(look.keyword)} <small>{', '.join(about)}</small></h3>"
            self.heads[
                k
            ].value += f'<p class="mm-note">{escape(look.model.encoder.training_vocabulary_note(look.words))}</p>'  # names may be of what it never saw
            told = self._told([other for other in looks if other is not look])
            self.galleries[k].value = explorer_html.gallery(
                look.keyword,
                look.labels,
                look.names,
                session.thumbs,
                session.said(),
                look.weights,
                told,
            )
            self.maps[k].value = self._map(
                look, '<svg class="mm-map" viewBox="0 0 400 400"></svg>'
            )  # its place
            self.panels[k].layout.display = None
        if len(looks) == 2:
            self._cross(*looks)
        content = base64.b64encode(session.export(*looks).encode()).decode()
        name = re.sub(r"\W+", "-", "-".join(["mmclust", *(look.keyword for look in looks)]))
        self.csv.value = f'<a class="mm-csv" download="{name}.csv" href="data:text/csv;charset=utf-8;base64,{content}">Download the labels (CSV)</a>'

    def _told(self, others: list[Clustering]) -> list[str] | None:
        """A sentence on each picture: its cluster by the other keywords, and its labels."""
        data = self.session.data
        parts = [[f"by {other.keyword}: {name}" for name in other.named] for other in others]
        if data.criteria:
            parts.append(
                [
                    f"labels: {', '.join(row)}"
                    for row in data.frame()[data.criteria].itertuples(index=False)
                ]
            )
        return [" · ".join(part) for part in zip(*parts)] or None

    def _agreement(self, look: Clustering) -> list[str]:
        from mmclust.metrics import score

        truth = self.session.data.labels.get(look.keyword)
        return (
            [] if truth is None else [f"NMI {score(truth, look.labels)['NMI']:.2f} with the labels"]
        )

    def _map(self, look: Clustering, drawn: str) -> str:
        return f"<h4>As a map <small>t-SNE of what was clustered</small></h4>{drawn}"

    def _draw(self, looks: list[Clustering]) -> None:
        from mmclust.explorer import html as explorer_html

        for look, html in zip(looks, self.maps):
            about = f"t-SNE of {len(look.labels)} pictures by {look.keyword}"
            points = explorer_html.positions(look.space, self.session.cfg.seed)
            html.value = self._map(
                look,
                explorer_html.scatter(points, look.labels, look.names, self.session.said(), about),
            )

    def _cross(self, one: Clustering, other: Clustering) -> None:
        from mmclust.explorer import html as explorer_html

        difference, apart, counts = self.session.compare(one, other)
        firsts = {
            cell: self.session.thumbs[i]
            for i, cell in reversed([*enumerate(zip(one.labels, other.labels))])
        }
        self.crossed.value = (
            f'<h3>Where they disagree</h3><p class="mm-crossed">Of all pairs of pictures, {100 * apart:.0f} % are together under one keyword and apart under '
            f"the other. 1 - AMI is {difference:.2f}: 0 where two clusterings are the same, about 1 where they have nothing in common. Each cell counts the "
            f"pictures that its row and its column share.</p>{explorer_html.crossing(counts, one.keyword, other.keyword, firsts)}"
        )
        self.crossed.layout.display = None


def serve(
    notebook: Path,
    host: str = "127.0.0.1",
    port: int = 8866,
    profile: str = "demo",
    device: str = "cpu",
    browser: bool = True,
) -> None:
    """Show a notebook of the explorer as a web page, until it is stopped.

    A page has a kernel of its own; one is kept warm for the next. Who reaches the page can look at the pictures on this machine, by their folder's path:
    where others than this machine are let in, they need the token that is part of the printed address.

    Args:
        port: 0 takes any that is free.

    Raises:
        ImportError: without voila. ValueError: the port can't be used.
    """
    try:
        from voila.app import Voila
    except ImportError as error:
        raise ImportError('the web page needs voila: pip install "mmclust[explorer]"') from error

    import nbformat
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook
    from tornado.ioloop import IOLoop
    from traitlets.config import Config

    from mmclust.threads import cores

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"port {port} of {host} can't be used ({error.strerror}): give another with --port, or 0 for any that is free"
            ) from error
        port = probe.getsockname()[1]
    local = host in ("127.0.0.1", "localhost", "::1")
    token = "" if local else secrets.token_urlsafe()
    shown = (
        socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    )
    address = f"http://{shown}:{port}/" + f"?token={token}" * bool(token)

    def ready() -> None:
        print(f"The explorer is at {address} until you press Ctrl-C.", flush=True)
        if browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    with tempfile.TemporaryDirectory(prefix="mmclust-explorer-") as room:
        book = parameterize_notebook(
            load_notebook_node(str(notebook)),
            {"profile": profile, "device": device, "home": str(Path.cwd())},
        )
        nbformat.write(book, Path(room) / "explorer.ipynb")
        # Voila's template asks a public server for an icon font: without it, the page needs nobody but this machine.
        policy = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' data: blob: ws: wss:; frame-ancestors 'self'"
        limits = {"headers": {"Content-Security-Policy": policy}, "allow_remote_access": not local}
        limits["websocket_max_message_size"] = (
            8 * UPLOAD
        )  # larger uploads than are allowed arrive, to be refused in words
        os.environ.setdefault(
            "OMP_NUM_THREADS", str(max(1, cores() // 2))
        )  # a page computes while the kernel of the next one warms up
        os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this environment
        config = {
            "preheat_kernel": True,
            "default_pool_size": 1,
            "show_tracebacks": False,
            "strip_sources": True,
        }
        culling = {"cull_idle_timeout": 3600, "cull_interval": 60}
        here = {
            "ip": host,
            "port": port,
            "port_retries": 0,
            "open_browser": False,
            "token": token,
            "tornado_settings": limits,
            "log_level": logging.ERROR,
        }
        app = Voila.instance(
            config=Config({"VoilaConfiguration": config, "MappingKernelManager": culling}), **here
        )
        app.initialize([str(Path(room) / "explorer.ipynb")])
        IOLoop.current().add_callback(ready)
        app.start()
