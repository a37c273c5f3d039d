"""Reference words of a keyword: `python -m mmclust.words --of fruit --keyword color [--n 12] [--source openai --model NAME]`, or `--review`."""

from __future__ import annotations

import argparse
import sys

from mmclust.words import SOURCES, reference_words, reviewed_answers
from mmclust.words.language_model import AskError


def review() -> int:
    """List the stored answers that nobody has reviewed, and those that can't be used."""
    found = reviewed_answers.stored()
    faults = [record for record in found.values() if isinstance(record, str)]
    left = {
        path: record
        for path, record in found.items()
        if isinstance(record, dict) and record.get("reviewed") is not True
    }
    print(f"{reviewed_answers.folder()}: {len(found)} answers, {len(left)} not yet reviewed")
    for path, record in left.items():
        dropped = (
            f"  dropped {word}: {reason}" for word, reason in (record.get("dropped") or {}).items()
        )
        print(f"{path.name}: {', '.join(record['words'])}", *dropped, sep="\n")
    print(*faults, sep="\n", end="\n" if faults else "")
    return int(bool(faults))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mmclust.words", description=__doc__)
    parser.add_argument("--of", metavar="DOMAIN", help="what the pictures show, such as fruit")
    parser.add_argument("--keyword", help="such as color")
    parser.add_argument("--n", type=int, help="how many words")
    parser.add_argument("--seed", type=int, default=0, help="of words that are drawn")
    parser.add_argument("--source", choices=SOURCES, default="lexicon")
    parser.add_argument(
        "--model", help="the language model; by default that in MMCLUST_WORDS_MODEL"
    )
    parser.add_argument(
        "--review", action="store_true", help="list stored answers that nobody has reviewed"
    )
    args = parser.parse_args(arguments)
    if args.review:
        return review()
    if not (args.of and args.keyword):
        parser.error("which words? --of fruit --keyword color, or --review")
    try:
        words = reference_words(args.keyword, args.of, args.n, args.seed, args.source, args.model)
    except (ValueError, AskError, ImportError) as error:
        parser.exit(1, f"{error}\n")
    print(*words, sep="\n")
    print(f"{len(words)} words for {words.template!r}: {words.source}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
