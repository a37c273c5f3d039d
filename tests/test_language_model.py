"""Words from a language model: a real server that behaves, and one that does everything else."""

import contextlib
import gzip
import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import pytest
import yaml
from helpers.notebooks import write_notebooks
from hypothesis import given
from hypothesis import strategies as st

import mmclust as mm
from mmclust.pipeline.notebooks import reproduce
from mmclust.words import language_model, reviewed_answers
from mmclust.words.__main__ import main

pytest.importorskip("openai")
KEY = "sk-test-0123456789-Never-Shown"
FOUR = ["red", "green", "blue", "yellow"]
QUICK = language_model.Limits(timeout=20, patience=30, tries=3, wait=0.01)
HASTY = language_model.Limits(
    timeout=0.5, patience=30, tries=2, wait=0.01
)  # where the server is silent


def said(content, **more):
    """The body of a chat completion whose message is `content` (text, or a list of words)."""
    text = content if isinstance(content, str) else json.dumps({"words": content})
    choice = {
        "index": 0,
        "finish_reason": more.pop("finish_reason", "stop"),
        "message": {"role": "assistant", "content": text, "refusal": more.pop("refusal", None)},
    }
    return {
        "id": "1",
        "object": "chat.completion",
        "model": "fake-1",
        "choices": [choice],
        "usage": {"total_tokens": more.pop("tokens", 50)},
    }


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `script`, the last for good: (status, body, headers), a body, or a function of the handler."""

    daemon_threads = True

    def __init__(self):
        self.script, self.seen, self.keys = [], [], set()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.keys.add(self.headers["Authorization"])
        reply = self.server.script.pop(0) if len(self.server.script) > 1 else self.server.script[0]
        if callable(reply):
            self.close_connection = True
            with contextlib.suppress(OSError):
                reply(self)
            return
        status, body, headers = reply if isinstance(reply, tuple) else (200, reply, {})
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.start(status, **{"Content-Length": len(data)} | headers)
        self.wfile.write(data)

    def start(self, status, **headers):
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch, caplog, capfd):
    """A server that the environment points to; afterwards the key is looked for in all that was printed, logged and written."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for name, value in {
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1",
            "MMCLUST_WORDS": str(tmp_path / "words"),
            "NO_PROXY": "127.0.0.1",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("MMCLUST_WORDS_MODEL", raising=False)
        monkeypatch.delenv("MMCLUST_WORDS_LIMITS", raising=False)
        monkeypatch.setattr(language_model, "SPENT", language_model.Spent())
        caplog.set_level(logging.DEBUG)
        yield server
        server.shutdown()
    assert server.keys <= {f"Bearer {KEY}"}
    assert KEY.lower() not in (caplog.text + "".join(capfd.readouterr())).lower()
    assert_hidden(tmp_path)


def assert_hidden(*folders):
    for path in (p for folder in folders for p in folder.rglob("*") if p.is_file()):
        with contextlib.suppress(FileNotFoundError):  # a journal of a kernel that ends
            assert KEY.lower().encode() not in path.read_bytes().lower(), path


def words(n=4, limits=QUICK, keyword="color", model="fake", **more):
    return mm.reference_words(
        keyword, of="fruit", n=n, source="openai", model=model, limits=limits, **more
    )


@contextlib.contextmanager
def fails(match, error=language_model.AskError):
    """The error says so in one line, and shows the key nowhere: not in its causes, nor in the variables of the frames that it passed."""
    with pytest.raises(error, match=match) as caught:
        yield caught
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    ours = [
        frame.locals for frame in frames if Path(mm.__file__).parent in Path(frame.filename).parents
    ]
    assert ours and KEY not in f"{ours}{caught.value!r}" and str(caught.value).isprintable()
    assert caught.value.__cause__ is None and (
        caught.value.__context__ is None or caught.value.__suppress_context__
    )


def test_an_answer_is_asked_once_and_stored(server, tmp_path, monkeypatch):
    server.script = [said(FOUR)]
    found = words()
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert found == FOUR and found.template == "fruit with a color of *"
    assert (
        found.source == f"fake, asked {today}, stored in fake,fruit,color,4.yaml, not yet reviewed"
    )
    (request,) = server.seen
    assert (
        request["model"] == "fake"
        and request["response_format"]["json_schema"]["strict"]
        and request["max_completion_tokens"] == QUICK.answer_tokens
    )
    assert (
        "color" in request["messages"][0]["content"]
        and "fruit with a color of *" in request["messages"][0]["content"]
        and "4 common" in str(request)
    )
    (path,) = (tmp_path / "words").iterdir()
    record = yaml.safe_load(path.read_text())
    assert (
        record["reviewed"] is False
        and record["server"] == "127.0.0.1"
        and record["answered by"] == "fake-1"
        and record["asked"] == today
    )
    assert (
        record["question"] == request["messages"][0]["content"]
        and json.loads(record["answers"][0])["words"] == FOUR
    )

    monkeypatch.delenv("OPENAI_API_KEY")
    server.script = [(500, {}, {})]
    text = (
        path.read_text()
        .replace("reviewed: false", "reviewed: true")
        .replace("- yellow", "- sea green")
    )
    path.write_text(text)
    again = words()
    assert (
        again == ["red", "green", "blue", "sea green"]
        and again.source.endswith("reviewed")
        and "not yet" not in again.source
    )
    assert (
        len(server.seen) == 1 and path.read_text() == text
    )  # neither asked again nor written over


def test_every_model_domain_keyword_and_count_has_its_own_answer(server, tmp_path):
    server.script = [said(FOUR)]
    words(), words(n=3), words(model="other/fake"), words(keyword="size, of stalk")
    assert len(server.seen) == 4 == len(list((tmp_path / "words").glob("*.yaml")))
    words(), words(n=3), words(model="other/fake"), words(keyword="size, of stalk")
    assert len(server.seen) == 4


def test_without_a_key_a_model_or_the_package(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    with fails("no key has"):
        words()
    monkeypatch.delenv("OPENAI_API_KEY")
    with fails(r"OPENAI_API_KEY is not set.*fake,fruit,color,4\.yaml.*lexicon"):
        words()
    with fails("MMCLUST_WORDS_MODEL", ValueError):
        words(model=None)
    with fails("lexicon or openai, not from 'gpt'", ValueError):
        mm.reference_words("color", of="fruit", source="gpt")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setitem(sys.modules, "openai", None)
    with fails(r"mmclust\[paper\]", ImportError):
        words()
    assert not server.seen


def test_identity_draws_nouns_and_asks_nobody(server):
    found = mm.reference_words("identity", of="face", seed=3, source="openai", model="fake")
    assert (
        len(found) == 40
        and found.source == "random nouns of the lexicon, seed 3"
        and not server.seen
    )


# What may pass is tried again


def stalls(handler):
    time.sleep(1.2)


def stalls_within(handler):
    handler.start(200, Content_Length=1000)
    handler.wfile.write(b'{"choi')
    handler.wfile.flush()
    time.sleep(1.2)


def drops_at_once(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


def drops_within(handler):
    handler.start(200, Content_Length=1000)
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


PASSING = {
    "silent": (stalls, "silent for 0.5 s"),
    "silent within": (stalls_within, "silent for 0.5 s"),
    "dropped": (drops_at_once, "disconnected|Connection reset"),
    "dropped within": (drops_within, "without sending complete|Connection reset"),
    "429": (
        (429, {"error": {"message": f"slow down, {KEY}"}}, {"Retry-After": "0"}),
        r"429, .*slow down, \[key\]",
    ),
    "500": ((500, {"error": {"message": f"oh {KEY}"}}, {}), r"500, .*oh \[key\]"),
    "503, not JSON": ((503, b"<html>\nno</html>", {"Content-Type": "text/html"}), "503, "),
    "no JSON": ((200, b"{not json", {}), "no JSON"),
    "a web page": ((200, b"<html>hello</html>", {"Content-Type": "text/html"}), "no JSON"),
    "nothing": ((200, b"", {}), "no JSON"),
    "no choices": ({"choices": []}, "malformed"),
    "a list": ([1, 2], "malformed"),
    "nests": ((200, b'{"choices":' + b"[" * 100_000, {}), "no JSON"),
    "a word": (said("red"), "malformed .it holds no JSON"),
    "JSON cut short": (said('{"words": ["red", "gre'), "malformed"),
    "other JSON": (said('{"values": ["red"]}'), "malformed .'words'"),
    "null": (said("null"), "malformed"),
    "no words": (said([]), "holds no words"),
    "cut off": (said('{"words": ["red"', finish_reason="length"), "cut off at 4000 tokens"),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_tried_again(server, tmp_path, name):
    reply, reason = PASSING[name]
    limits = HASTY if "silent" in name else language_model.Limits(timeout=20, tries=2, wait=0.01)
    server.script = [reply, said(FOUR)]
    assert words(limits=limits) == FOUR and len(server.seen) == 2
    server.script = [reply]
    with fails(f"127.0.0.1 gave no answer in 2 tries: .*({reason})"):
        words(n=3, limits=limits)
    assert len(server.seen) == 4 and [p.name for p in (tmp_path / "words").iterdir()] == [
        "fake,fruit,color,4.yaml"
    ]


def test_nobody_listens(server, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}/v1")
        with fails("gave no answer in 3 tries: .*refused"):
            words()


def test_waits_as_long_as_the_server_asks_but_no_longer_than_patience(server):
    server.script = [(429, {}, {"Retry-After": "0.6"}), said(FOUR)]
    start = time.monotonic()
    assert words() == FOUR and 0.6 <= time.monotonic() - start < 3
    for header in ("3600", formatdate(time.time() + 3600, usegmt=True)):
        server.script, start = [(429, {}, {"Retry-After": header})], time.monotonic()
        with fails("in 1 try: 429.*more than the 30 s"):
            words(n=3)
        assert time.monotonic() - start < 2


def test_backoff_doubles(server, monkeypatch):
    waits = []
    monkeypatch.setattr(language_model.time, "sleep", waits.append)
    server.script = [(500, {}, {})]
    with fails("in 4 tries"):
        words(limits=language_model.Limits(tries=4, wait=0.1))
    assert len(waits) == 3 and all(
        0.75 * 0.1 * 2**k <= wait <= 0.1 * 2**k for k, wait in enumerate(waits)
    )


# What will not pass is not


def endless(handler):
    handler.start(200, Connection="close")
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b'{"words": "' + b"red, " * 10_000)


def endless_error(handler):
    handler.start(500, Connection="close")
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b"no " * 10_000)


def drips(handler):
    handler.start(200, Connection="close")
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.05)


LASTING = {
    "401": (
        (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}, {"x-echo": KEY}),
        r"refuses the key \(401\): check OPENAI_API_KEY",
    ),
    "403": ((403, {"error": {"message": KEY}}, {}), r"refuses the key \(403\)"),
    "404": ((404, {"error": {"message": "no model 'fake'"}}, {}), r"\(404\): no model 'fake'"),
    "400": (
        (400, {"error": {"message": f"\x1b[31mbad\n{KEY} sk-test-0123****own"}}, {}),
        r"\(400\): .*bad \[key\] \[key\]",
    ),
    "quota": (
        (429, {"error": {"message": "pay first", "code": "insufficient_quota"}}, {}),
        r"\(429\): pay first",
    ),
    "moved": ((302, b"", {"Location": "/elsewhere"}), r"\(302\)"),
    "declines": (said("", refusal=f"I won't, {KEY}"), r"declines to name words: I won't, \[key\]"),
    "filtered": (
        said("", finish_reason="content_filter"),
        "declines to name words: its answer was filtered",
    ),
    "endless": (endless, "more than 1,000,000 bytes"),
    "endless error": (endless_error, "more than 1,000,000 bytes"),
    "zipped flood": (
        (200, gzip.compress(b" " * 50_000_000), {"Content-Encoding": "gzip"}),
        "more than 1,000,000 bytes",
    ),
}


@pytest.mark.parametrize("name", LASTING)
def test_what_will_not_pass_is_not_tried_again(server, tmp_path, name):
    reply, reason = LASTING[name]
    server.script = [reply, said(FOUR)]
    with fails(reason):
        words()
    assert len(server.seen) == 1 and not list(tmp_path.rglob("*.yaml"))


def test_a_server_that_drips_is_left(server):
    server.script, start = [drips], time.monotonic()
    with fails("did not come to an end in time"):
        words(limits=language_model.Limits(timeout=20, patience=1))
    assert time.monotonic() - start < 3


def test_servers_that_know_less(server):
    server.script = [
        (400, {"error": {"message": "This response_format type is unavailable now"}}, {}),
        (
            422,
            {
                "detail": [
                    {"loc": ["body", "max_completion_tokens"], "msg": "extra fields not permitted"}
                ]
            },
            {},
        ),
        said("Here you are:\n```json\n" + json.dumps({"words": FOUR}) + "\n```"),
    ]
    assert words() == FOUR
    first, second, third = server.seen
    assert (
        "response_format" in first
        and "response_format" not in second
        and "max_tokens" not in second
    )
    assert third["max_tokens"] == QUICK.answer_tokens and "max_completion_tokens" not in third


# Budget


def test_the_budget_of_requests(server, monkeypatch):
    monkeypatch.setenv("MMCLUST_WORDS_LIMITS", "requests=3 wait=0.01 tries=9")
    server.script = [(500, {}, {}), (500, {}, {}), said(FOUR)]
    assert words(limits=None) == FOUR
    with fails("3 of 3 requests and 50 of 200,000 tokens are used; MMCLUST_WORDS_LIMITS"):
        words(n=3, limits=None)
    assert words(limits=None) == FOUR and len(server.seen) == 3  # what is stored costs nothing
    monkeypatch.setenv("MMCLUST_WORDS_LIMITS", "request=3")
    with fails("'request=3' is not understood.*requests, tokens", ValueError):
        words(n=3, limits=None)


def test_the_budget_of_tokens(server):
    server.script = [said(FOUR, tokens=900)]
    words(limits=language_model.Limits(tokens=1000))
    words(n=3, limits=language_model.Limits(tokens=1000))
    assert [request["max_completion_tokens"] for request in server.seen] == [1000, 100]
    with fails("2 of 100 requests and 1,800 of 1,000 tokens"):
        words(n=2, limits=language_model.Limits(tokens=1000))


@pytest.mark.parametrize("usage", [None, 7, {}, {"total_tokens": -5}, {"total_tokens": "many"}])
def test_tokens_that_nobody_counts_are_estimated(server, usage):
    server.script = [said(FOUR) | {"usage": usage}]
    words()
    assert 50 < language_model.SPENT.tokens < 500


def test_answers_that_cannot_be_used_cost_their_tokens(server):
    server.script = [
        said("red", tokens=700),
        said(FOUR, tokens=30) | {"choices": []},
        said(FOUR, tokens=50),
    ]
    assert words() == FOUR and (language_model.SPENT.requests, language_model.SPENT.tokens) == (
        3,
        780,
    )


# What is taken of an answer


def test_what_cannot_be_used_is_dropped_and_asked_for_again(server, tmp_path):
    first = [
        " Red. ",
        "red",
        "Reds",
        "",
        "  ",
        None,
        7,
        ["blue"],
        "rouge vif très foncé",
        "赤",
        "a color like that of ripe plums",
        "x" * 31,
        "color",
        "Fruits",
        "2. sea-green",
        KEY,
    ]
    server.script = [said(first), said(["SEA-GREEN", "blue", "yellow", "pink", "black"])]
    with pytest.warns(
        UserWarning, match="4 of 4 words for 'color' of fruit; dropped: 'red'.*as red"
    ):
        assert words() == ["red", "sea-green", "blue", "yellow"]
    assert (
        "Name 2 common" in str(server.seen[1])
        and "red, sea-green" in str(server.seen[1])
        and "pink" not in str(server.seen)
    )
    (path,) = (tmp_path / "words").glob("*.yaml")
    record = yaml.safe_load(path.read_text())
    assert {
        "red": "as red",
        "Reds": "as red",
        "": "empty",
        "None": "no text",
        "赤": "not in English letters",
        "color": "the keyword or the domain itself",
    }.items() <= (record["dropped"].items())
    assert (
        record["dropped"]["Fruits"] == record["dropped"]["color"]
        and record["dropped"]["SEA-GREEN"] == "as sea-green"
    )
    assert (
        record["dropped"]["[key]"] == "not in English letters"
        and record["dropped"]["..."] == "2 more than the 4 asked for"
    )
    assert (
        sum(reason == "too long" for reason in record["dropped"].values()) == 3
        and len(record["answers"]) == 2
    )


@pytest.mark.parametrize(
    "stem, dropped",
    [("", {"...": "9996 more than the 4 asked for"}), ("ö", None), ("a b c d", None)],
)
def test_a_flood_of_words_is_cut(server, tmp_path, stem, dropped):
    server.script = [
        said([f"{stem}{a}{b}{c}" for a in "abcdefghij" for b in "klmnopqrst" for c in range(100)]),
        said(FOUR),
    ]
    start = time.monotonic()
    with contextlib.nullcontext() if dropped else pytest.warns(UserWarning, match="dropped"):
        assert words() == (["ak0", "ak1", "ak2", "ak3"] if dropped else FOUR)
    (path,) = (tmp_path / "words").iterdir()
    record = yaml.safe_load(path.read_text())
    assert record["dropped"] == dropped or len(record["dropped"]) == reviewed_answers.TOLD
    assert path.stat().st_size < 30_000 and time.monotonic() - start < 5


def test_too_few_words_are_told_and_none_is_an_error(server):
    server.script = [said(["red", "green"]), said(["Greens"])]
    with pytest.warns(UserWarning, match="gave 2 of 4 words"):
        assert words() == ["red", "green"] and len(server.seen) == language_model.ROUNDS
    server.script = [said(["rød", "grøn", "blå"])]
    with fails("no two words for 'color' of fruit.*'rød' .not in English letters"):
        words(n=3)


PLURALS = "cherry cherries, box boxes, peach peaches, leaf leaves, knife knives, mouse mice, fireman firemen, tomato tomatoes, glass glasses, rose roses, bus buses"
DIFFERENT = "glass grass, moss mos, bus bu, princess prince, iris iri, red green, car cart, cactus cact, order border"


def test_plurals_are_known():
    pairs = [pair.split() for pair in PLURALS.split(", ")] + [
        ["water lily", "water lilies"],
        ["movie", "movies"],
        ["small child", "small children"],
    ]
    assert [
        pair
        for pair in pairs
        if not (reviewed_answers.same(*pair) and reviewed_answers.same(*pair[::-1]))
    ] == []
    assert [pair for pair in DIFFERENT.split(", ") if reviewed_answers.same(*pair.split())] == []


VALUES = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.sampled_from(["red", "reds", "Box", "boxes", "color", "a b c d"]),
        st.none(),
        st.integers(),
    ),
    max_size=40,
)


@given(VALUES, st.integers(1, 10))
def test_words_that_are_taken_keep_the_rules(values, n):
    kept, dropped = reviewed_answers.clean(values, n, "color", "fruit", ["plum"])
    assert (
        len(kept) <= max(0, n - 1)
        and len(dropped) <= reviewed_answers.TOLD + 1
        and all(dropped.values())
    )
    for k, word in enumerate(kept):
        assert (
            re.fullmatch("[a-z0-9][a-z0-9' -]{,29}", word)
            and len(word.split()) <= 3
            and word == word.strip()
        )
        assert not any(
            reviewed_answers.same(word, other) for other in ["plum", "colors", *kept[:k]]
        )
    assert reviewed_answers.clean(kept, n, "color", "fruit", ["plum"]) == (kept, {})


# Stored answers


@given(
    st.dictionaries(st.text(max_size=9), st.text(max_size=9)),
    st.text(max_size=30),
    st.text(min_size=1, max_size=9),
    st.text(min_size=1, max_size=9),
)
def test_any_answer_survives_its_file(tmp_path_factory, dropped, text, model, keyword):
    folder = tmp_path_factory.mktemp("words")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCLUST_WORDS", str(folder))
        record = {
            "reviewed": False,
            "words": ["no", "1", "on"],
            "dropped": dropped,
            "model": model,
            "domain": "a/b",
            "keyword": keyword,
            "count": 3,
            "template": "*",
        }
        path = reviewed_answers.path_of(model, "a/b", keyword, 3)
        reviewed_answers.keep(path, record | {"answers": [text]})
        assert (
            reviewed_answers.read(path) == record | {"answers": [text]}
            and path.parent == folder
            and list(reviewed_answers.stored()) == [path]
        )


def test_damaged_and_badly_edited_files_are_named_and_left_alone(server, tmp_path):
    server.script = [said(FOUR)]
    words()
    (path,) = (tmp_path / "words").iterdir()
    good = path.read_text()
    faults = {
        good[: good.index("\nmodel")] + "\nmodel: [": "can't be used .while parsing",
        "": "holds no answer",
        good.replace("words:", "word:"): "lacks 'words'",
        good.replace("- green", "- no"): "word False is no text: put it in quotes",
        good.replace("- green", "- Red"): "a word stands twice",
        good.replace(
            "keyword: color", "keyword: size"
        ): "it is the answer of fake,fruit,size,4.yaml",
        good.replace("color of *", "color"): "has no single",
        good.replace("words:\n- red\n- green\n- blue\n- yellow", "words: red"): "at least two",
        "\0" + good: "can't be used",
    }
    for text, fault in faults.items():
        path.write_text(text)
        with fails(f"fake,fruit,color,4.yaml.*{fault}.*mend it, or remove it", ValueError):
            words()
        assert path.read_text() == text
    assert len(server.seen) == 1
    path.write_bytes(b"\xff\xfe\x00")
    with fails("mend it", ValueError):
        words()


def test_a_folder_that_cannot_be_written_costs_the_file_not_the_words(
    server, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMCLUST_WORDS", str(tmp_path / "file" / "words"))
    server.script = [said(FOUR)]
    with pytest.warns(UserWarning, match="can't be written.*not kept"):
        found = words()
    assert found == FOUR and found.source.endswith("not stored")


def test_two_processes_end_with_the_same_words(server, tmp_path):
    together = threading.Barrier(2)

    def both(first):
        def reply(handler):
            together.wait(60)  # neither is answered before both have asked
            data = json.dumps(said(["red", "green"] if first else ["blue", "pink"])).encode()
            handler.start(200, Content_Length=len(data))
            handler.wfile.write(data)

        return reply

    server.script = [both(True), both(False), (500, {}, {})]
    command = [
        sys.executable,
        "-m",
        "mmclust.words",
        *[
            "--of",
            "fruit",
            "--keyword",
            "color",
            "--n",
            "2",
            "--source",
            "openai",
            "--model",
            "fake",
        ],
    ]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(2)
    ]
    one, other = (process.communicate(timeout=90)[0].split() for process in processes)
    assert (
        len(server.seen) == 2
        and one
        == other
        == yaml.safe_load(next((tmp_path / "words").iterdir()).read_text())["words"]
        and len(one) == 2
    )


def test_command_line(server, tmp_path, capfd, monkeypatch):
    assert main(["--of", "fruit", "--keyword", "color", "--n", "3"]) == 0
    told = capfd.readouterr()
    assert (
        told.out.split() == ["red", "orange", "yellow"]
        and "3 words for 'fruit with a color of *': the lexicon" in told.err
    )
    server.script = [said(["Red", "reds", "green"])]
    monkeypatch.setenv("MMCLUST_WORDS_MODEL", "fake")
    with pytest.warns(UserWarning):
        assert main(["--of", "fruit", "--keyword", "color", "--n", "2", "--source", "openai"]) == 0
    with pytest.warns(UserWarning, match="reds"):
        main(["--of", "fruit", "--keyword", "size", "--n", "2", "--source", "openai"])
    capfd.readouterr()
    assert main(["--review"]) == 0
    told = capfd.readouterr().out
    assert (
        "2 answers, 2 not yet reviewed" in told
        and "fake,fruit,color,2.yaml: red, green" in told
        and "dropped reds: as red" in told
    )
    path = tmp_path / "words" / "fake,fruit,color,2.yaml"
    path.write_text(path.read_text().replace("reviewed: false", "reviewed: true"))
    (tmp_path / "words" / "other.yaml").write_text("[")
    assert main(["--review"]) == 1
    told = capfd.readouterr().out
    assert (
        "3 answers, 1 not yet reviewed" in told
        and "fruit,color" not in told
        and "other.yaml can't be used" in told
    )
    server.script = [(401, {"error": {"message": KEY}}, {})]
    with pytest.raises(SystemExit) as left:
        main(["--of", "fruit", "--keyword", "shape", "--n", "2", "--source", "openai"])
    assert left.value.code == 1 and "refuses the key (401)" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        main([])


# The key


NOTEBOOK = """import logging, warnings
logging.basicConfig(level=logging.DEBUG)
import mmclust as mm
from mmclust.words.language_model import Limits
words = mm.reference_words("color", of="fruit", n=4, source="openai", model="fake", limits=Limits(tries=2, wait=0.01))
print(list(words), words.source, words.__dict__)
import pandas as pd
mm.NotebookOutput({0!r}, out).table(pd.DataFrame({{"word": words}}), "words", words.source);"""


def test_the_key_is_in_no_executed_notebook_log_or_cache_file(server, tmp_path, monkeypatch, capfd):
    server.script = [
        (500, {"error": {"message": f"again, {KEY}"}}, {"x-echo": KEY}),
        said(["Red", KEY, *FOUR]),
    ]
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MMCLUST_WORDS")
    monkeypatch.setenv("OPENAI_LOG", "debug")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    books = {"nb": "asks", "verbose": "refused"}
    for folder, name in books.items():
        verbose = "%xmode Verbose\n" if folder == "verbose" else ""
        profile = write_notebooks(
            tmp_path / folder,
            **{
                name: verbose
                + NOTEBOOK.format(name).replace('"color"', '"color"' if not verbose else '"size"')
            },
        )
        if verbose:
            server.script = [
                (
                    401,
                    {"error": {"message": f"Incorrect API key provided: {KEY}"}},
                    {"www-authenticate": KEY},
                )
            ]
        (outcome,) = reproduce(profile=profile, out=tmp_path / "out", notebooks=tmp_path / folder)
        assert outcome.status == ("failed" if verbose else "done"), outcome.error
    assert "refuses the key (401)" in outcome.error and server.keys == {f"Bearer {KEY}"}
    out = tmp_path / "out"
    pages = {name: (out / "notebooks" / f"{name}.html").read_text() for name in books.values()}
    assert (
        "red" in pages["asks"]
        and "DEBUG" in pages["asks"]
        and "refuses the key" in pages["refused"]
    )
    assert (
        "AskError" in json.dumps(nbformat.read(out / "notebooks" / "refused.ipynb", 4))
        and (out / "asks_words.csv").exists()
    )
    stored = next((tmp_path / "cache" / "words").iterdir()).read_text()
    assert "[key]" in stored  # the server did repeat it
    assert_hidden(tmp_path)  # notebooks, pages, tables, states, answers
    assert KEY not in "".join(capfd.readouterr())
