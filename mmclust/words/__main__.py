"""Reference words of a keyword: `python -m mmclust.words --of fruit --keyword color [--n 12]`.

`--source openai --model NAME` asks a language model; `--review` lists its stored answers.
"""

from __future__ import annotations

import argparse
import sys

from mmclust.scripts import print_any_text
from mmclust.words import SOURCES, reference_words, reviewed_answers
from mmclust.words.language_model import AskError


def review() -> int:
    """Print the stored answers that are not reviewed or invalid; 1 if any is invalid."""
    answers = reviewed_answers.stored()
    faults = [record for record in answers.values() if isinstance(record, str)]
    valid = {path.name: record for path, record in answers.items() if isinstance(record, dict)}
    pending = {name: r for name, r in valid.items() if r.get("reviewed") is not True}
    print(f"{reviewed_answers.folder()}: {len(answers)} answers, {len(pending)} not yet reviewed")
    for name, record in pending.items():
        print(f"{name}: {', '.join(record['words'])}")
        for word, reason in (record.get("dropped") or {}).items():
            print(f"  dropped {word}: {reason}")
    for fault in faults:
        print(fault)
    return int(bool(faults))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mmclust.words",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--of", metavar="DOMAIN", help="what the images show, such as fruit")
    parser.add_argument("--keyword", help="such as color")
    parser.add_argument("--n", type=int, help="number of words")
    parser.add_argument("--seed", type=int, default=0, help="of words that are drawn")
    parser.add_argument("--source", choices=SOURCES, default="lexicon")
    parser.add_argument("--model", help="the language model (default: MMCLUST_WORDS_MODEL)")
    parser.add_argument("--review", action="store_true", help="list answers to be reviewed")
    args = parser.parse_args(arguments)
    print_any_text()
    if args.review:
        return review()
    if not (args.of and args.keyword):
        parser.error("--of and --keyword are required, such as --of fruit --keyword color")
    if args.source == "openai":
        print("asking the language model, if its answer is not stored ...", file=sys.stderr)
    try:
        words = reference_words(args.keyword, args.of, args.n, args.seed, args.source, args.model)
    except (ValueError, AskError, ImportError) as error:
        parser.exit(1, f"{error}\n")
    print(*words, sep="\n")
    print(f"{len(words)} words for {words.template!r}: {words.source}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
