"""Ask a language model for reference words, through the OpenAI client: once, within limits, and without a word about the key.

The client takes the key from OPENAI_API_KEY and the server from OPENAI_BASE_URL, so any compatible server will do. What a server sends back is
believed in nothing: its answer is bounded in bytes and in time, checked word by word, and freed of the key, should it hold it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import re
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from mmclust.words import reviewed_answers

ROUNDS = 3  # how often more words are asked for, where too few can be used
SCHEMA = {
    "name": "reference_words",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"words": {"type": "array", "items": {"type": "string"}}},
        "required": ["words"],
        "additionalProperties": False,
    },
}


class AskError(RuntimeError):
    """A language model gave no words; the message says why, and what may help."""


@dataclass(frozen=True)
class Limits:
    """What asking may cost. The environment sets them as in `MMCLUST_WORDS_LIMITS="requests=10 tokens=20000"`.

    Attributes:
        requests, tokens: of this process in all, failed requests included; tokens as the server counts them, to within one question.
        answer_tokens: of one answer, what a model thinks included.
        timeout: seconds that a server may be silent. patience: seconds for one keyword in all, waits and retries included.
        tries: requests for one answer. wait: seconds before the second; each later wait is twice as long, unless the server asks for another.
        size: bytes of one response.
    """

    requests: int = 100
    tokens: int = 200_000
    answer_tokens: int = 4000
    timeout: float = 60.0
    patience: float = 300.0
    tries: int = 5
    wait: float = 1.0
    size: int = 1_000_000

    @classmethod
    def from_environment(cls) -> Limits:
        text = os.environ.get("MMCLUST_WORDS_LIMITS", "")
        types: dict[str, Any] = {f.name: type(f.default) for f in fields(cls)}
        try:
            return cls(
                **{
                    name: types[name](value)
                    for name, _, value in (pair.partition("=") for pair in text.split())
                }
            )
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"MMCLUST_WORDS_LIMITS={text!r} is not understood ({error}); it takes name=number of: {', '.join(types)}"
            ) from None


class Spent:
    """Requests and tokens of this process so far."""

    def __init__(self) -> None:
        self.requests, self.tokens, self.lock = 0, 0, threading.Lock()

    def start(self, limits: Limits) -> int:
        """Count a request; the tokens that its answer may have."""
        with self.lock:
            if self.requests >= limits.requests or self.tokens >= limits.tokens:
                used = f"{self.requests} of {limits.requests} requests and {self.tokens:,} of {limits.tokens:,} tokens are used"
                raise AskError(
                    f"the budget for asking is spent: {used}; MMCLUST_WORDS_LIMITS sets it"
                )
            self.requests += 1
            return min(limits.answer_tokens, limits.tokens - self.tokens)


SPENT = Spent()


def answered(
    keyword: str,
    of: str,
    n: int,
    template: str,
    model: str | None = None,
    limits: Limits | None = None,
) -> tuple[dict, str]:
    """The stored answer of a model, or its answer now, stored; and where it came from, in words.

    Raises:
        ValueError: no model, an absurd count or a damaged file. AskError: no answer is to be had. ImportError: `openai` is needed and missing.
    """
    model = model or os.environ.get("MMCLUST_WORDS_MODEL")
    if not model:
        raise ValueError('which model is to be asked? Give model="...", or set MMCLUST_WORDS_MODEL')
    if not 2 <= n <= 500:
        raise ValueError(f"{n} words can't be asked for: from 2 to 500")
    path = reviewed_answers.path_of(model, of, keyword, n)
    record = reviewed_answers.read(path)
    if record is None:
        record = _ask(keyword, of, n, template, model, limits or Limits.from_environment(), path)
        try:
            reviewed_answers.keep(path, record)
            record = reviewed_answers.read(path) or record  # another process may have been first
        except OSError as error:
            warnings.warn(
                f"{path} can't be written ({error.strerror or error}): this answer is not kept",
                stacklevel=3,
            )
            return record, f"{model}, asked {record['asked']}, not stored"
    seen = "reviewed" if record.get("reviewed") is True else "not yet reviewed"
    return (
        record,
        f"{model}, asked {record.get('asked', 'at some time')}, stored in {path.name}, {seen}",
    )


def question(keyword: str, of: str, n: int, template: str, had: list[str]) -> str:
    """What the model is asked; `had` are words that it has given already."""
    known = f" You have named these already, so leave them out: {', '.join(had)}." if had else ""
    return (
        f'Think of many photographs of the kind "{of}". Name {n - len(had)} common and clearly different values of "{keyword}" that they may show. '
        f'Each must read well in place of * in "{template}".{known} Use plain English in lower case, one word each where there is one and never more '
        f'than three; no plural beside its singular, no synonyms, no explanations. Answer with JSON alone: {{"words": ["...", "..."]}}'
    )


def _ask(
    keyword: str, of: str, n: int, template: str, model: str, limits: Limits, path: Path
) -> dict:
    if not os.environ.get(
        "OPENAI_API_KEY"
    ):  # never in a variable of these frames: verbose tracebacks show them
        ways = f'set it, put an answer at {path}, or take source="lexicon"'
        raise AskError(
            f"{model} has given no words for {keyword!r} of {of} yet, and OPENAI_API_KEY is not set to ask it: {ways}"
        )
    if not re.fullmatch(r"[!-~]+", os.environ["OPENAI_API_KEY"]):
        raise AskError(
            "OPENAI_API_KEY holds blanks, line ends or other characters that no key has: set it again"
        )
    until, prompt = time.monotonic() + limits.patience, ""
    kept: list[str] = []
    dropped: dict[str, str] = {}
    given: list[str] = []
    with _quiet_transport(), _client(limits, until) as client:
        asking = _Asking(client, model, limits, until)
        for _ in range(ROUNDS):
            prompt = question(keyword, of, n, template, kept)
            values, text = asking.words(prompt)
            new, out = reviewed_answers.clean(values, n, keyword, of, kept)
            kept, dropped, given = (
                kept + new,
                dropped | out,
                [
                    *given,
                    text
                    if len(text) <= 10_000
                    else f"{text[:10_000]}... ({len(text):,} characters)",
                ],
            )
            if len(kept) >= n:
                break
    about = (
        f"; dropped: {', '.join(f'{word!r} ({reason})' for word, reason in dropped.items())}"
        if dropped
        else ""
    )
    if len(kept) < 2:
        raise AskError(f"{model} gave no two words for {keyword!r} of {of} that can be used{about}")
    if len(kept) < n or dropped.keys() - {"..."}:
        warnings.warn(
            f"{model} gave {len(kept)} of {n} words for {keyword!r} of {of}{about}", stacklevel=4
        )
    record = {
        "reviewed": False,
        "words": kept,
        "dropped": dropped,
        "model": model,
        "domain": of,
        "keyword": keyword,
        "count": n,
        "template": template,
    }
    record |= {
        "asked": time.strftime("%Y-%m-%d", time.gmtime()),
        "server": asking.host,
        "answered by": asking.by,
        "question": prompt,
    }
    return record | {"answers": given}


@contextlib.contextmanager
def _quiet_transport() -> Iterator[None]:
    """The transport under the client logs, if asked to, the server's raw headers and errors, with whatever they repeat, and whole addresses."""
    loggers = [logging.getLogger(name) for name in ("httpcore", "httpcore2", "httpx", "httpx2")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(max(logging.WARNING, logger.getEffectiveLevel()))
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def _client(limits: Limits, until: float) -> Any:
    try:
        import openai
    except ImportError:
        raise ImportError(
            'asking a language model needs openai: pip install "mmclust[paper]"'
        ) from None

    class Bounded(openai.DefaultHttpxClient):
        """Reads whole responses, up to a size and a time, and hands on neither their headers nor a key that they may repeat."""

        def send(self, request: Any, **options: Any) -> Any:
            response, body = super().send(request, **options | {"stream": True}), bytearray()
            try:
                for part in response.iter_bytes():
                    body += part
                    if len(body) > limits.size or time.monotonic() > until:
                        raise _TooMuch(
                            f"it sent more than {limits.size:,} bytes"
                            if len(body) > limits.size
                            else "it did not come to an end in time"
                        )
            finally:
                response.close()
            headers = {
                name: hide(response.headers[name])
                for name in ("content-type", "retry-after")
                if name in response.headers
            }
            return type(response)(
                response.status_code,
                headers=headers,
                content=hide(body.decode("utf-8", "replace")).encode(),
                request=request,
            )

    return openai.OpenAI(max_retries=0, http_client=Bounded(follow_redirects=False))


class _TooMuch(Exception):
    """A response that is too large or takes too long: asking again would not help."""


class _Asking:
    """One model on one server, and how it is best asked."""

    def __init__(self, client: Any, model: str, limits: Limits, until: float) -> None:
        self.client, self.model, self.limits, self.until = client, model, limits, until
        self.host, self.by = client.base_url.host, model
        self.structured, self.counted = (
            {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
            "max_completion_tokens",
        )

    def words(self, prompt: str) -> tuple[list, str]:
        """The values that the model names, unchecked, and its answer. Retries what may pass."""
        why, tried = "", 0
        for tried in range(1, self.limits.tries + 1):
            body, why, wait = self._request(prompt)
            if body is not None:
                try:
                    return self._read(body, prompt)
                except (
                    ValueError,
                    LookupError,
                    TypeError,
                    AttributeError,
                    RecursionError,
                ) as error:
                    why, wait = (
                        f"its answer is malformed ({_short(error) or type(error).__name__})",
                        None,
                    )
            wait = (
                self.limits.wait * 2 ** (tried - 1) * random.uniform(0.75, 1)
                if wait is None
                else wait
            )
            if time.monotonic() + wait > self.until:
                why += f", and another try would take more than the {self.limits.patience:g} s for one keyword"
                break
            if tried < self.limits.tries:
                time.sleep(wait)
        raise AskError(
            f"{self.host} gave no answer in {tried} {'try' if tried == 1 else 'tries'}: {why}"
        )

    def _request(self, prompt: str) -> tuple[dict | None, str, float | None]:
        """One request: its response, or why there is none and the seconds to wait before the next (None: the caller's own).

        Raises:
            AskError: another try would not help.
        """
        import openai

        most, left = SPENT.start(self.limits), max(0.01, self.until - time.monotonic())
        fatal = ""
        try:
            response = self.client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=[{"role": "user", "content": prompt}],
                timeout=min(self.limits.timeout, left),
                extra_body={self.counted: most},  # older clients have no such argument
                **self.structured,
            ).http_response
            return response.json(), "", None
        except openai.APIStatusError as error:
            status, about = error.status_code, f"{error.message} {error.body}"
            detail = _short(
                error.body.get("message", error.message)
                if isinstance(error.body, dict)
                else error.message
            )
            if status in (400, 422) and self.structured and "response_format" in about:
                self.structured = {}
                return None, detail, 0.0
            if (
                status in (400, 422)
                and self.counted == "max_completion_tokens"
                and self.counted in about
            ):
                self.counted = "max_tokens"
                return None, detail, 0.0
            if status in (401, 403):
                fatal = f"{self.host} refuses the key ({status}): check OPENAI_API_KEY, and that OPENAI_BASE_URL is the server it is for"
            elif error.code == "insufficient_quota" or (
                status not in (408, 409, 429) and status < 500
            ):
                fatal = f"{self.host} refuses to answer ({status}): {detail}"
            else:
                return (
                    None,
                    f"{status}, {detail}",
                    _retry_after(error.response.headers.get("retry-after")),
                )
        except openai.APITimeoutError:
            return None, f"it was silent for {min(self.limits.timeout, left):.3g} s", None
        except (openai.APIConnectionError, _TooMuch) as error:
            cause = error if isinstance(error, _TooMuch) else error.__cause__ or error
            why = _short(cause) or type(cause).__name__
            if not isinstance(cause, _TooMuch):
                return None, why, None
            fatal = f"the answer of {self.host} is refused: {why}"
        except (ValueError, RecursionError) as error:
            return None, f"its response is no JSON ({type(error).__name__})", None
        raise AskError(fatal)  # out here, where it carries no exception of the client's

    def _read(self, body: dict, prompt: str) -> tuple[list, str]:
        usage = body.get("usage")
        tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
        with SPENT.lock:  # where nobody counts: about four characters each
            SPENT.tokens += (
                tokens
                if isinstance(tokens, int) and tokens > 0
                else (len(prompt) + len(json.dumps(body))) // 4
            )
        choice = body["choices"][0]
        text, refusal = (
            hide(choice["message"].get("content") or ""),
            choice["message"].get("refusal"),
        )
        if refusal or choice.get("finish_reason") == "content_filter":
            raise AskError(
                f"{self.model} declines to name words: {_short(refusal or 'its answer was filtered')}"
            )
        if choice.get("finish_reason") == "length":
            raise ValueError(
                f"cut off at {self.limits.answer_tokens} tokens; MMCLUST_WORDS_LIMITS sets answer_tokens"
            )
        self.by = _short(body.get("model") or self.model)
        inner = re.search(r"\{.*\}", text, re.S)  # some models put a fence or a sentence around it
        if not inner:
            raise ValueError("it holds no JSON")
        found = json.loads(inner[0])["words"]
        if not isinstance(found, list) or not found:
            raise ValueError("it holds no words")
        return json.loads(hide(json.dumps(found, ensure_ascii=False))), text


def _retry_after(value: str | None) -> float | None:
    """Seconds that a server asks to wait, given as such or as a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except (TypeError, ValueError):
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _short(what: object) -> str:
    """What a server says, as a part of a sentence of ours."""
    return " ".join("".join(c if c.isprintable() else " " for c in hide(str(what))).split())[:200]


def hide(text: str) -> str:
    """The text without the key, nor anything that looks like one: servers repeat keys, whole or in part, in what they answer."""
    key = os.environ.get("OPENAI_API_KEY", "")
    if len(key) >= 8:  # what is shorter is a local server's "none"
        text = text.replace(key, "[key]").replace(json.dumps(key)[1:-1], "[key]")
    return re.sub(r"(?i)\bsk-[\w*.-]{6,}", "[key]", text)
