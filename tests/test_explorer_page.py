"""The explorer as a web page (`python run_all.py explore`) in a real Chromium.

At the width of a phone and of a laptop; behind nginx; and its notebook, executed and as a static
page.
"""

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import psutil
import pytest
from helpers import local_servers as web
from helpers.pages import CONTRAST, OVERFLOW, look
from helpers.pictures import COLORS, picture, zip_of
from helpers.processes import started

import mmclust as mm
from mmclust.pipeline.notebooks import reproduce
from mmclust.threads import WAITING, cores

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]

RUN_ALL = Path(__file__).parents[1] / "run_all.py"
FIRST_PAGE = "200 pictures sorted by color in"
CHECKS = {"MappingKernelManager": {"cull_interval": 3}}  # seconds between checks for pages
NGINX = """daemon off; master_process off; pid nginx.pid; error_log nginx.err;
events {{}}
http {{
  access_log off; client_body_temp_path temp1; proxy_temp_path temp2; fastcgi_temp_path temp3;
  uwsgi_temp_path temp4; scgi_temp_path temp5;
  proxy_http_version 1.1;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection "upgrade";
  proxy_set_header Host $http_host;
  server {{ listen 127.0.0.1:{port}; location /demo/ {{ proxy_pass http://{upstream}; }} }}
}}"""
THREADS = ("OMP_NUM_THREADS", *WAITING)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of `python run_all.py explore`, started in a folder with pictures."""
    pytest.importorskip("voila")
    folder = tmp_path_factory.mktemp("explorer")
    (folder / "photos").mkdir()
    for name, content in COLORS.items():
        (folder / "photos" / name).write_bytes(content)
    (folder / "config").mkdir()
    (folder / "config" / "voila.json").write_text(json.dumps(CHECKS))
    port = web.free_port()
    url = f"http://127.0.0.1:{port}"
    command = [RUN_ALL, "explore", "--port", str(port), "--no-browser"]
    with pytest.MonkeyPatch.context() as patch:
        for name in THREADS:  # of the machine that runs the tests
            patch.delenv(name, raising=False)
        with web.running(command, f"{url}/voila/static/nothing", folder):
            lines = (folder / "log").read_text().splitlines()
            assert lines[0].startswith(f"Starting the explorer at {url}/ ")
            assert lines[1].startswith(f"The explorer is at {url}/ ")
            yield url


class Page:
    """The explorer's page as its user sees it.

    `faults`: scripts that fail, and requests to other servers or without success.
    """

    def __init__(self, chromium, address, width, query="", status=FIRST_PAGE):
        # In a context that stays: one that ends with its page would cancel the page's last request.
        self.page = chromium.new_context(viewport={"width": width, "height": 900}).new_page()
        self.faults = []
        self.address = address
        self.page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        self.page.on("response", self._check_response)
        self.page.goto(address + query)
        self.wait_for_status(status)

    def close(self):
        self.page.close(run_before_unload=True)  # as a user does; else its kernel would stay

    def _check_response(self, response):
        if not response.url.startswith((self.address, "data:", "blob:")):
            self.faults.append(f"outside: {response.url}")
        if response.status >= 400:
            self.faults.append(f"{response.status}: {response.url}")

    def wait_for_status(self, text):
        self.page.locator(".mm-status", has_text=re.compile(text)).wait_for(timeout=120_000)

    def fill(self, label, text):
        self.page.get_by_label(label, exact=True).fill(text)
        self.page.keyboard.press("Tab")

    def wait_for_words(self, field, beginning):
        value = f"document.querySelector('.mm-field-{field} textarea').value"
        self.page.wait_for_function(f"{value}.startsWith('{beginning}')")

    def choose_pictures(self, label):
        self.page.get_by_label("Pictures", exact=True).select_option(label)

    def sort(self, status):
        self.page.locator(".mm-go").click()
        self.wait_for_status(status)

    def upload(self, content):
        with self.page.expect_file_chooser() as chooser:
            self.page.locator(".widget-upload").click()
        file = {"name": "photos.zip", "mimeType": "application/zip", "buffer": content}
        chooser.value.set_files([file])

    def error(self, field):
        return self.page.locator(f".mm-field-{field} .mm-error")

    def check(self):
        """Nothing is cut off or hard to read, and nothing failed."""
        assert self.page.evaluate(OVERFLOW) == []
        assert self.page.evaluate(CONTRAST) == []
        assert self.faults == []


@pytest.fixture(params=[390, 1440])
def explorer(chromium, address, request):
    made = Page(chromium, address, request.param)
    yield made
    made.close()


def test_two_methods_side_by_side(explorer):
    """k-means mixes colors: its wrong pictures have a red frame, and a sentence when opened."""
    page = explorer.page
    page.get_by_label("Second method", exact=True).select_option("k-means: without a keyword")
    explorer.sort("sorted by color, Multi-Sub and by color, k-means in")
    wrong = page.locator(".mm-wrong")
    assert wrong.count() > 3
    wrong.first.locator("summary").click()
    assert "most of this cluster: " in wrong.first.inner_text()
    explorer.check()


def test_a_keyword_its_words_and_the_labels_as_a_file(explorer):
    page = explorer.page
    explorer.check()
    explorer.fill("Keyword", "species")
    explorer.wait_for_words("words", "apple")
    words = "apple, banana, grapes, cherry, pear, strawberry, lemon, pineapple, corn"
    explorer.fill("Reference words", words)
    explorer.fill("Clusters, or auto", "8")
    explorer.sort("200 pictures sorted by species in")
    assert page.locator(".mm-cluster").count() == 8
    assert page.locator(".mm-map path").count() == page.locator(".mm-grid details").count() == 200
    explorer.check()

    with page.expect_download() as download:
        page.locator("a.mm-csv").click()
    assert download.value.suggested_filename == "mmclust-species.csv"
    table = pd.read_csv(download.value.path())
    assert list(table) == ["picture", "file", "species: cluster", "species: name"]
    on_page = page.locator(".mm-cluster").evaluate_all(
        """clusters => clusters.map(cluster => [
            cluster.querySelector('h4').childNodes[1].data.trim(),
            [...cluster.querySelectorAll('summary')].map(
                picture => picture.title.split(':')[0]).sort()])"""
    )
    in_file = {
        name: sorted(f"picture {i}" for i in rows["picture"])
        for name, rows in table.groupby("species: name")
    }
    assert dict(on_page) == in_file
    assert set(in_file) < set(words.split(", "))
    truth = mm.load_dataset("demo-fruit", n=200, seed=0).labels["species"]
    assert mm.score(truth, table["species: cluster"])["NMI"] > 0.75


def test_a_picture_opens_to_its_weights_by_mouse_and_keyboard(explorer):
    first = explorer.page.locator(".mm-grid details").first
    first.locator("summary").click()
    weights = [float(text) for text in first.locator("li span").all_inner_texts()]
    assert len(weights) == 6
    assert weights == sorted(weights, reverse=True)
    assert 0 < sum(weights) < 1.03  # each is rounded
    explorer.check()
    explorer.page.keyboard.press("Enter")
    assert first.get_attribute("open") is None


def test_two_keywords(explorer):
    page = explorer.page
    page.locator(".mm-field-second button", has_text="species").click()
    explorer.wait_for_words("second_words", "apple")
    explorer.sort("200 pictures sorted by color and by species in")
    headings = page.locator("h3").all_inner_texts()
    assert [h.split(" ")[:2] for h in headings[1:]] == [["by", "color"], ["by", "species"]]
    cells = [int(text) for text in page.locator(".mm-cross-table td").all_inner_texts() if text]
    assert sum(cells) == 200
    assert page.locator(".mm-cross-table td img").count() == len(cells)
    explorer.check()


def test_errors_are_shown_at_the_field(explorer):
    page = explorer.page
    explorer.fill("Keyword", "<b>hairstyle</b>")
    explorer.error("keyword").wait_for()
    assert "'<b>hairstyle</b>'" in explorer.error("keyword").inner_text()
    explorer.sort("see Keyword and Reference words")
    assert "at least two" in explorer.error("words").inner_text()
    assert page.locator(".mm-cluster").count() == 0
    page.locator(".mm-field-keyword button", has_text="color").click()
    explorer.wait_for_words("words", "red")
    assert explorer.error("keyword").count() == explorer.error("words").count() == 0


def test_the_users_pictures(explorer):
    page = explorer.page
    explorer.choose_pictures("a folder on this machine")
    explorer.fill("Path of the folder", "nowhere")
    explorer.error("pictures").wait_for()
    assert re.search("no folder .*nowhere", explorer.error("pictures").inner_text())
    explorer.check()
    explorer.fill("Path of the folder", "photos")
    page.locator(".mm-field-pictures .mm-note", has_text="6 pictures").wait_for()
    assert explorer.error("pictures").count() == 0
    assert page.locator(".mm-strip img").count() == 6

    explorer.choose_pictures("an upload")
    explorer.upload(b"no zip")
    explorer.error("pictures").wait_for()
    assert "photos.zip" in explorer.error("pictures").inner_text()
    # 16 MB: more than a websocket takes by default
    large = {f"{i}.bmp": picture((i, 0, 0), "BMP") + os.urandom(2**22) for i in range(4)}
    explorer.upload(zip_of(COLORS | large))
    page.locator(".mm-field-pictures .mm-note", has_text="10 pictures").wait_for()
    explorer.sort("10 pictures sorted by color in")
    explorer.check()


def test_six_reloads_leave_the_kernels_of_this_page_and_the_next(chromium, address):
    page = Page(chromium, address, 390, status="").page
    for _ in range(6):
        page.reload()
        page.get_by_label("Keyword", exact=True).wait_for()  # before the first result
        page.locator(".mm-status").wait_for()
    end = time.time() + 60
    while len(started("ipykernel")) > 2 and time.time() < end:
        page.wait_for_timeout(500)
    assert len(started("ipykernel")) <= 2
    page.close(run_before_unload=True)


def test_kernels_share_the_cores_and_do_not_spin(address):
    kernels = started("ipykernel")
    assert kernels
    share = str(max(1, cores() // 2))
    for kernel in kernels:
        environment = kernel.environ()
        assert {n: environment.get(n) for n in THREADS} == {"OMP_NUM_THREADS": share, **WAITING}


def test_only_this_machine_reaches_the_page(address):
    port = int(address.rpartition(":")[2])
    listening = [
        c.laddr.ip
        for c in psutil.net_connections()
        if c.laddr and c.laddr.port == port and c.status == "LISTEN"
    ]
    assert set(listening) == {"127.0.0.1"}
    # A name that another server makes point to this machine (DNS rebinding)
    request = urllib.request.Request(address, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=60)
    assert error.value.code == 403


def test_other_machines_need_the_token(chromium, tmp_path):
    pytest.importorskip("voila")
    port = web.free_port()
    url = f"http://127.0.0.1:{port}"
    command = [RUN_ALL, "explore", "--port", str(port), "--no-browser", "--host", "0.0.0.0"]
    with web.running(command, f"{url}/voila/static/nothing", tmp_path):
        for query in ("", "?token=guessed"):
            with urllib.request.urlopen(f"{url}/{query}", timeout=60) as answer:
                assert "/login?" in answer.geturl()
                assert b"mmclust explorer" not in answer.read()
        token = re.search(r"http://\S+/(\?token=\S+)", (tmp_path / "log").read_text())[1]
        with urllib.request.urlopen(f"{url}/{token}", timeout=60) as answer:
            assert b"mmclust explorer" in answer.read()


@contextmanager
def running_nginx(program, folder, url, upstream):
    conf = NGINX.format(port=url.split(":")[2].partition("/")[0], upstream=upstream)
    (folder / "nginx.conf").write_text(conf)
    server = subprocess.Popen([program, "-p", folder, "-c", "nginx.conf", "-e", "nginx.err"])
    try:
        while not web.answers(url):
            assert server.poll() is None, (folder / "nginx.err").read_text()
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(30)


def test_behind_a_proxy_with_a_prefix(chromium, nginx, tmp_path):
    pytest.importorskip("voila")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    port = web.free_port()
    direct, proxy = (f"http://127.0.0.1:{p}/demo/" for p in (port, web.free_port()))
    command = [RUN_ALL, "explore", "--port", str(port), "--no-browser", "--base-url", "demo"]
    static = "voila/static/voila.js"
    with web.running(command, direct + static, tmp_path, TMPDIR=str(temporary)):
        token = re.search(rf"{direct}(\?token=\S+)", (tmp_path / "log").read_text())[1]
        with running_nginx(nginx, tmp_path, proxy, f"127.0.0.1:{port}/"):  # removes the prefix
            page = Page(chromium, proxy, 390, token)
            page.choose_pictures("an upload")
            page.upload(zip_of(COLORS))
            page.page.locator(".mm-field-pictures .mm-note", has_text="6 pictures").wait_for()
            assert page.faults == []
        assert len(list(temporary.rglob("mmclust-upload-*"))) == 1
        with running_nginx(nginx, tmp_path, proxy, f"127.0.0.1:{port}"):  # keeps the prefix
            page.sort("6 pictures sorted by color in")  # the lost connection came back
            assert urllib.request.urlopen(proxy + static, timeout=60).status == 200
            for url in (direct, proxy):  # the proxy does not replace the token
                with urllib.request.urlopen(url, timeout=60) as answer:
                    assert answer.geturl().startswith(f"{url}login?")
    assert list(temporary.iterdir()) == []  # SIGTERM removes the uploads
    page.close()


def test_the_notebook_runs_and_its_static_page_says_what_it_needs(chromium, tmp_path):
    outcomes = reproduce(only=["16"], out=tmp_path, workers=0)
    assert [outcome.status for outcome in outcomes] == ["done"]
    for width in (390, 1440):
        notebook = tmp_path / "notebooks" / "16_explorer.html"
        page, faults = look(chromium, notebook, width, contrast=False)
        assert faults == []
        assert "needs a running kernel" in page.inner_text("body")
        page.close()
