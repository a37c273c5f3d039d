"""Words from a language model: a real server that answers well, badly, late or not at all.

After each test the key is searched for in everything that was printed, logged and written.
"""

import contextlib
import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from helpers.notebooks import write_notebooks

import mmclust as mm
from mmclust.pipeline.notebooks import reproduce
from mmclust.words import language_model

pytest.importorskip("openai")
pytest.importorskip("inflect")
KEY = "sk-test-0123456789-Never-Shown"
FOUR = ["red", "green", "blue", "yellow"]
FILE = "fake,fruit,color,4.yaml"
AT_ONCE = {"retry-after-ms": "1"}  # the client waits that long before it asks again


def completion(content, finish_reason="stop", refusal=None):
    """The body of a chat completion; `content` is text or a list of words."""
    text = content if isinstance(content, str) else json.dumps({"words": content})
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"index": 0, "finish_reason": finish_reason, "message": message}
    return {"id": "1", "object": "chat.completion", "model": "fake-1", "choices": [choice]}


def error(status, message, **headers):
    return status, {"error": {"message": message}}, AT_ONCE | headers


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `replies`, and the last one again and again.

    A reply is a body, (status, body, headers), or a function of the handler.
    """

    daemon_threads = True

    def __init__(self):
        self.replies = []
        self.requests = []
        self.keys = set()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.requests.append(json.loads(self.rfile.read(length)))
        self.server.keys.add(self.headers["Authorization"])
        replies = self.server.replies
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if callable(reply):
            self.close_connection = True
            with contextlib.suppress(OSError):
                reply(self)
            return
        status, body, headers = reply if isinstance(reply, tuple) else (200, reply, {})
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        defaults = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for name, value in (defaults | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch, caplog, capfd):
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.setenv("MMCLUST_WORDS", str(tmp_path / "words"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("MMCLUST_WORDS_MODEL", raising=False)
        monkeypatch.setattr(language_model, "MAX_RETRIES", 1)
        caplog.set_level(logging.DEBUG)
        for name in language_model.LOGGERS:
            caplog.set_level(logging.DEBUG, logger=name)
        yield server
        server.shutdown()
    assert server.keys <= {f"Bearer {KEY}"}
    assert KEY.lower() not in (caplog.text + "".join(capfd.readouterr())).lower()
    assert_key_in_no_file(tmp_path)


def assert_key_in_no_file(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            with contextlib.suppress(FileNotFoundError):  # a journal of a kernel that ends
                assert KEY.lower().encode() not in path.read_bytes().lower(), path


def ask(n=4, keyword="color", model="fake"):
    return mm.reference_words(keyword, of="fruit", n=n, source="openai", model=model)


@contextlib.contextmanager
def raises(match, error=language_model.AskError):
    """The error is one line; the key is neither in its causes nor in our frames' variables."""
    with pytest.raises(error, match=match) as caught:
        yield
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    package = Path(mm.__file__).parent
    ours = [frame.locals for frame in frames if package in Path(frame.filename).parents]
    assert ours and KEY not in f"{ours}{caught.value!r}" and str(caught.value).isprintable()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_an_answer_is_asked_for_once_and_stored(server, tmp_path, monkeypatch):
    server.replies = [completion(FOUR)]
    words = ask()
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert words == FOUR and words.template == "fruit with a color of *"
    assert words.source == f"fake, asked {today}, stored in {FILE}, not yet reviewed"
    (request,) = server.requests
    question = request["messages"][0]["content"]
    assert request["model"] == "fake" and request["response_format"] == {"type": "json_object"}
    assert "color" in question and "fruit with a color of *" in question and "4 common" in question
    path = tmp_path / "words" / FILE
    record = yaml.safe_load(path.read_text())
    expected = {
        "reviewed": False,
        "server": "127.0.0.1",
        "answered by": "fake-1",
        "asked": today,
        "question": question,
        "answers": [json.dumps({"words": FOUR})],
    }
    assert expected.items() <= record.items()

    monkeypatch.delenv("OPENAI_API_KEY")  # a stored answer needs none, and a person may edit it
    text = path.read_text().replace("reviewed: false", "reviewed: true")
    path.write_text(text.replace("- yellow", "- sea green"))
    words = ask()
    assert words == ["red", "green", "blue", "sea green"]
    assert words.source.endswith(", reviewed") and len(server.requests) == 1


def test_every_model_keyword_and_count_has_its_own_answer(server, tmp_path):
    server.replies = [completion(FOUR)]
    for _ in range(2):
        ask(), ask(n=3), ask(model="other/fake"), ask(keyword="size, of stalk")
        assert len(server.requests) == 4 == len(list((tmp_path / "words").glob("*.yaml")))


def test_without_a_key_a_model_or_the_package(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    with raises("OPENAI_API_KEY"):
        ask()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for url in ("127.0.0.1:80/v1", "http:///v1", ""):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        with raises(f"OPENAI_BASE_URL must begin with http://.* not '{url}'"):
            ask()
    monkeypatch.delenv("OPENAI_API_KEY")
    with raises(rf"OPENAI_API_KEY.*{re.escape(FILE)}.*lexicon"):
        ask()
    with raises("MMCLUST_WORDS_MODEL", ValueError):
        ask(model=None)
    with raises("'gpt'.*lexicon or openai", ValueError):
        mm.reference_words("color", of="fruit", source="gpt")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setitem(sys.modules, "openai", None)
    with raises(r"mmclust\[paper\]", ImportError):
        ask()
    nouns = mm.reference_words("identity", of="face", seed=3, source="openai", model="fake")
    assert len(nouns) == 40 and not server.requests


def is_silent(handler):
    time.sleep(1.2)


def hangs_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


TRANSIENT = {
    "silent": (is_silent, "within 0.5 s.*2 tries"),
    "hangs up": (hangs_up, "no connection to 127.0.0.1"),
    "429": (error(429, f"slow down, {KEY}", **{"x-echo": KEY}), r"429: slow down, \[key\]"),
    "500": (error(500, f"broken {KEY}"), r"500: broken \[key\]"),
    "503, not JSON": ((503, b"<html>\nno</html>", AT_ONCE), "503"),
}


@pytest.mark.parametrize("name", TRANSIENT)
def test_transient_faults_are_retried_by_the_client(server, tmp_path, monkeypatch, name):
    reply, reason = TRANSIENT[name]
    monkeypatch.setattr(language_model, "TIMEOUT", 0.5 if name == "silent" else 20.0)
    server.replies = [reply, completion(FOUR)]
    assert ask() == FOUR and len(server.requests) == 2
    server.replies = [reply]
    with raises(reason):
        ask(n=3)
    assert len(server.requests) == 4
    assert [path.name for path in (tmp_path / "words").iterdir()] == [FILE]


REFUSALS = {
    "401": (error(401, f"Incorrect API key: {KEY}"), r"refuses the key \(401\).*OPENAI_BASE_URL"),
    "403": (error(403, KEY), r"refuses the key \(403\)"),
    "404": (error(404, "no model 'fake'"), "404: no model 'fake'"),
    "400": (error(400, f"\x1b[31mbad\n{KEY} sk-test-0123****own"), r"bad \[key\] \[key\]"),
    "declines": (completion("", refusal=f"I won't, {KEY}"), r"refuses.*I won't, \[key\]"),
    "filtered": (completion("", finish_reason="content_filter"), "refuses.*filtered"),
    "no JSON": ((200, b"{not json", {}), "OPENAI_BASE_URL"),
    "a web page": ((200, b"<html>hello</html>", {"Content-Type": "text/html"}), "OPENAI_BASE_URL"),
    "no choices": ({"choices": []}, "OPENAI_BASE_URL"),
    "a list": ([1, 2], "OPENAI_BASE_URL"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_errors_at_once(server, tmp_path, name):
    reply, reason = REFUSALS[name]
    server.replies = [reply, completion(FOUR)]
    with raises(reason):
        ask()
    assert len(server.requests) == 1 and not list(tmp_path.rglob("*.yaml"))


@pytest.mark.parametrize(
    "text",
    ["red", '{"words": ["red", "gre', '{"values": ["red"]}', "null", '{"words": "red"}', "{}" * 50],
)
def test_an_invalid_answer_is_asked_for_again(server, text):
    server.replies = [completion(text), completion(FOUR)]
    assert ask() == FOUR and len(server.requests) == 2
    server.replies = [completion(text)]
    with raises("0 of 3 words.*last answer"):
        ask(n=3)
    assert len(server.requests) == 2 + language_model.MAX_ROUNDS


def test_nobody_listens(server, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}/v1")
        with raises("no connection to 127.0.0.1: .*refused"):
            ask()


def test_a_server_without_structured_output(server):
    fenced = "Here you are:\n```json\n" + json.dumps({"words": FOUR}) + "\n```"
    server.replies = [error(400, "response_format is not supported"), completion(fenced)]
    assert ask() == FOUR
    assert ["response_format" in request for request in server.requests] == [True, False]


# Which words of an answer are valid


def test_invalid_words_are_dropped_and_replaced(server, tmp_path):
    first = [" Red. ", "Reds", "", None, "赤", "a color like that of plums", "x" * 31, "Fruits"]
    server.replies = [
        completion([*first, "2. sea-green", KEY]),
        completion(["SEA-GREEN", "blue", "yellow", "pink", "black"]),
    ]
    with pytest.warns(UserWarning, match="4 of 4 words for 'color' of fruit.*'Reds'"):
        assert ask() == ["red", "sea-green", "blue", "yellow"]
    second = server.requests[1]["messages"][0]["content"]
    assert "Name 2 common" in second and "red, sea-green" in second
    record = yaml.safe_load((tmp_path / "words" / FILE).read_text())
    assert record["dropped"] == [
        "Reds", "", "None", "赤", "a color like that of plums", "x" * 31, "Fruits", "[key]",
        "SEA-GREEN",
    ]  # fmt: skip


def test_too_few_words_are_a_warning_and_fewer_than_two_an_error(server):
    server.replies = [completion(["red", "green"]), completion(["Greens"])]
    with pytest.warns(UserWarning, match="2 of 4 words"):
        assert ask() == ["red", "green"] and len(server.requests) == language_model.MAX_ROUNDS
    server.replies = [completion(["rød", "grøn", "blå"])]
    with raises("0 of 3 words for 'color' of fruit.*'rød'"):
        ask(n=3)


# Stored answers


def test_a_folder_that_cannot_be_written_costs_the_file_and_not_the_words(
    server, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMCLUST_WORDS", str(tmp_path / "file" / "words"))
    server.replies = [completion(FOUR)]
    with pytest.warns(UserWarning, match="cannot be written"):
        words = ask()
    assert words == FOUR and words.source.endswith("not stored")


def test_two_processes_end_with_the_same_words(server, tmp_path):
    both_asked = threading.Barrier(2)

    def reply(words):
        def answer(handler):
            both_asked.wait(60)
            data = json.dumps(completion(words)).encode()
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

        return answer

    server.replies = [reply(["red", "green"]), reply(["blue", "pink"]), error(500, "no")]
    code = (
        "import mmclust as mm; "
        "print(*mm.reference_words('color', 'fruit', n=2, source='openai', model='fake'))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    ]
    one, other = (process.communicate(timeout=90)[0].split() for process in processes)
    stored = yaml.safe_load(next((tmp_path / "words").iterdir()).read_text())["words"]
    assert len(server.requests) == 2 and one == other == stored and len(one) == 2


CELL = """import logging
logging.basicConfig(level=logging.DEBUG)
import mmclust as mm
words = mm.reference_words({keyword!r}, of="fruit", n=4, source="openai", model="fake")
print(list(words), words.source, words.__dict__)
import pandas as pd
mm.NotebookOutput({name!r}, out).table(pd.DataFrame({{"word": words}}), "words", words.source);"""


def test_the_key_is_in_no_notebook_log_or_cached_file(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MMCLUST_WORDS")
    monkeypatch.setenv("OPENAI_LOG", "debug")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    out = tmp_path / "out"

    def run_notebook(name, cell):
        folder = tmp_path / name
        profile = write_notebooks(folder, **{name: cell})
        (outcome,) = reproduce(profile=profile, out=out, notebooks=folder)
        return outcome, (out / "notebooks" / f"{name}.html").read_text()

    server.replies = [error(500, KEY, **{"x-echo": KEY}), completion(["Red", KEY, *FOUR])]
    outcome, page = run_notebook("asks", CELL.format(name="asks", keyword="color"))
    assert outcome.status == "done", outcome.error
    assert "red" in page and "DEBUG" in page
    stored = next((tmp_path / "cache" / "words").iterdir()).read_text()
    assert "[key]" in stored, "the server did repeat the key"
    # A verbose traceback shows the variables of all frames.
    server.replies = [error(401, f"Incorrect API key: {KEY}", **{"www-authenticate": KEY})]
    verbose = "%xmode Verbose\n" + CELL.format(name="fails", keyword="size")
    outcome, page = run_notebook("fails", verbose)
    assert outcome.status == "failed" and "refuses the key (401)" in outcome.error
    assert "refuses the key" in page and server.keys == {f"Bearer {KEY}"}
    assert_key_in_no_file(tmp_path)
