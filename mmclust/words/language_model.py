"""Ask a language model for reference words, through the OpenAI client.

The client reads the key from OPENAI_API_KEY and the server from OPENAI_BASE_URL, so that any
compatible server can be asked. Retries with growing waits, `Retry-After` and timeouts are the
client's. An answer is not trusted: every word is checked (`reviewed_answers.clean`). The key is
never logged, stored or shown, even where the server repeats it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

from mmclust.words import reviewed_answers

MAX_ROUNDS = 3  # questions for one keyword, where an answer has too few valid words
MAX_RETRIES = 4  # of one question, by the client
TIMEOUT = 60.0  # seconds to wait for the server's next bytes
# At debug level the client and its transport log response headers, which may repeat the key.
LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")


class AskError(RuntimeError):
    """A language model gave no words; the message says why, and what may help."""


def answered(
    keyword: str, domain: str, n: int, template: str, model: str | None = None
) -> tuple[dict, str]:
    """A model's stored answer, or a new one, which is stored; and a note of where it is from."""
    model = model or os.environ.get("MMCLUST_WORDS_MODEL")
    if not model:
        raise ValueError('no language model: pass model="...", or set MMCLUST_WORDS_MODEL')
    path = reviewed_answers.path_of(model, domain, keyword, n)
    record = reviewed_answers.read(path)
    if record is None:
        if not os.environ.get("OPENAI_API_KEY"):
            raise AskError(
                f"{model} has no stored answer for {keyword!r} of {domain}: set OPENAI_API_KEY to "
                f'ask it, write an answer to {path}, or use source="lexicon"'
            )
        record = _ask(keyword, domain, n, template, model)
        try:
            record = reviewed_answers.write_once(path, record)
        except OSError as error:
            reason = error.strerror or error
            warnings.warn(f"{path} cannot be written ({reason}): not stored", stacklevel=3)
            return record, f"{model}, asked {record['asked']}, not stored"
    status = "reviewed" if record.get("reviewed") is True else "not yet reviewed"
    asked = record.get("asked", "at an unknown time")
    return record, f"{model}, asked {asked}, stored in {path.name}, {status}"


def question(keyword: str, domain: str, n: int, template: str, named: list[str]) -> str:
    """What the model is asked; `named` are the valid words that it has named already."""
    known = f" You have named these already, so leave them out: {', '.join(named)}."
    known = known if named else ""
    return (
        f'Think of many photographs of the kind "{domain}". Name {n - len(named)} common and '
        f'clearly different values of "{keyword}" that they may show. Each must read well in place '
        f'of * in "{template}".{known} Use plain English in lower case, one word each where there '
        f"is one and never more than three; no plural beside its singular, no synonyms, no "
        f'explanations. Answer with JSON alone: {{"words": ["...", "..."]}}'
    )


def _ask(keyword: str, domain: str, n: int, template: str, model: str) -> dict:
    """Ask until there are n valid words, at most `MAX_ROUNDS` times; the record of the answer."""
    words: list[str] = []
    dropped: list[str] = []
    answers: list[str] = []
    prompt = text = ""
    with _quiet_loggers(), _client() as client:
        for _ in range(MAX_ROUNDS):
            prompt = question(keyword, domain, n, template, words)
            text, answered_by, fault = _complete(client, model, prompt)
            if fault:
                raise AskError(fault)
            answers.append(text)
            valid, invalid = reviewed_answers.clean(_values(text), n, keyword, domain, words)
            words += valid
            dropped += invalid
            if len(words) >= n:
                break
        server = client.base_url.host
    result = f"{model} gave {len(words)} of {n} words for {keyword!r} of {domain}"
    if dropped:
        result += f"; dropped: {', '.join(map(repr, dropped))}"
    if len(words) < reviewed_answers.MIN_WORDS:
        raise AskError(f"{result}; its last answer: {_one_line(text)}")
    if len(words) < n or dropped:
        warnings.warn(result, stacklevel=4)
    record = {"reviewed": False, "words": words, "dropped": dropped}
    record |= {"model": model, "domain": domain, "keyword": keyword, "count": n}
    record |= {"template": template, "asked": time.strftime("%Y-%m-%d", time.gmtime())}
    record |= {"server": server, "answered by": answered_by, "question": prompt}
    return record | {"answers": answers}


@contextlib.contextmanager
def _quiet_loggers() -> Iterator[None]:
    levels = {logger: logger.level for logger in map(logging.getLogger, LOGGERS)}
    try:
        for logger in levels:
            logger.setLevel(max(logging.WARNING, logger.getEffectiveLevel()))
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _client() -> Any:
    try:
        import inflect  # noqa: F401  # needed to check the answer: better missed before asking
        import openai
    except ImportError:
        remedy = 'pip install "mmclust[paper]"'
        raise ImportError(f"a language model needs openai and inflect: {remedy}") from None
    # Never in a variable: verbose tracebacks print those.
    if not re.fullmatch(r"[!-~]+", os.environ["OPENAI_API_KEY"]):
        raise AskError("OPENAI_API_KEY contains spaces, line breaks or other invalid characters")
    url = os.environ.get("OPENAI_BASE_URL")
    if url is not None and not re.match("https?://[^/]", url):
        raise AskError(
            f"OPENAI_BASE_URL must begin with http:// or https://, not {hide(url)[:60]!r}"
        )
    return openai.OpenAI(max_retries=MAX_RETRIES, timeout=TIMEOUT)


def _complete(client: Any, model: str, prompt: str) -> tuple[str, str, str]:
    """The model's answer, the name that the server gives the model, and what went wrong, if so.

    Nothing is raised: the variables of this frame, which verbose tracebacks print, may hold a key.
    """
    import openai

    server = client.base_url.host
    messages = [{"role": "user", "content": prompt}]
    create = partial(client.chat.completions.create, model=model, messages=messages)
    try:
        try:
            response = create(response_format={"type": "json_object"})
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if "response_format" not in f"{error.message} {error.body}":
                raise
            response = create()  # a server without structured output
        choice = response.choices[0]
        text = hide(choice.message.content or "")
        refusal = choice.message.refusal
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        fault = f"{server} refuses the key ({error.status_code}): is it for OPENAI_BASE_URL?"
    except openai.APIStatusError as error:
        detail = error.body.get("message") if isinstance(error.body, dict) else error.message
        fault = f"{server} answers with status {error.status_code}: {_one_line(detail)}"
    except openai.APITimeoutError:
        fault = f"{server} did not answer within {TIMEOUT:g} s, in {MAX_RETRIES + 1} tries"
    except openai.APIConnectionError as error:
        fault = f"no connection to {server}: {_one_line(error.__cause__ or error)}"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        fault = f"{server} does not answer like the OpenAI API: check OPENAI_BASE_URL"
    else:
        if not refusal and choice.finish_reason != "content_filter":
            return text, _one_line(response.model or model), ""
        fault = f"{model} refuses to name words: {_one_line(refusal or 'its answer was filtered')}"
    return "", model, fault


def _values(text: str) -> list:
    """The list in an answer, unchecked; some models put a sentence around the JSON. [] if none."""
    with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
        values = json.loads(text[text.index("{") : text.rindex("}") + 1])["words"]
        if isinstance(values, list):
            return json.loads(hide(json.dumps(values, ensure_ascii=False)))
    return []


def _one_line(text: object) -> str:
    """What a server says, without the key, as one line that is short and printable."""
    return " ".join("".join(c if c.isprintable() else " " for c in hide(str(text))).split())[:200]


def hide(text: str) -> str:
    """The text without the key and without anything that looks like one."""
    key = os.environ.get("OPENAI_API_KEY", "")
    if len(key) >= 8:  # shorter ones are placeholders for local servers, such as "none"
        text = text.replace(key, "[key]").replace(json.dumps(key)[1:-1], "[key]")
    return re.sub(r"(?i)\bsk-[\w*.-]{6,}", "[key]", text)
