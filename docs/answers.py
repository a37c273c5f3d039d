"""How long the explorer takes to answer, on this machine, with the threads that its page has: `python docs/answers.py`.

A row per method, keyword and world: seconds until the galleries are there, and until the map is drawn, too. "color, species" is two keywords at once.
Everything that is asked for the first time in a process (imports, features) has been asked for before.
"""

import argparse
import os
import time

from mmclust.threads import cores

os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // 2)))  # as for the page's kernel

import pandas as pd

from mmclust.explorer import html as explorer_html
from mmclust.explorer.session import METHODS, ExplorerSession


def answer(session: ExplorerSession, method: str, keywords: list[str]) -> dict:
    """Seconds of one answer, nothing of which is in memory."""
    session._looks.clear()
    start = time.perf_counter()
    looks = []
    for k in keywords:
        looks.append(
            session.cluster(
                k,
                ", ".join(session.words(k)),
                method,
                others=[other for other in keywords if other != k],
            )
        )
        explorer_html.gallery(
            k, looks[-1].labels, looks[-1].names, session.thumbs, session.said(), looks[-1].weights
        )
    if len(looks) == 2:
        session.compare(*looks)
    session.export(*looks)
    shown = time.perf_counter() - start
    for look in looks:
        explorer_html.scatter(
            explorer_html.positions(look.space), look.labels, look.names, session.said(), ""
        )
    asked = {
        "method": method,
        "world": session.data.name,
        "keywords": ", ".join(keywords),
        "pictures": len(session.data),
    }
    return asked | {"galleries": shown, "and maps": time.perf_counter() - start}


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    session, rows = ExplorerSession(), []
    for world in session.cfg.worlds:
        criteria = [c for c in session.load(world).criteria if c != "identity"]
        for method in METHODS.values():
            answer(session, method, criteria[:1])
            rows += [
                answer(session, method, asked) for asked in [[c] for c in criteria] + [criteria[:2]]
            ]
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".2f"))


if __name__ == "__main__":
    main()
