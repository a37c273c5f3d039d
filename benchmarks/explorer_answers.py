"""How long the explorer takes to answer on this machine: `python -m benchmarks.explorer_answers`.

A row per method, keyword and rendered world: seconds until the clusters are shown, and until the
map is drawn as well. "color, species" is two keywords at once. The threads are those of a page's
kernel, and all that is done once in a process (imports, features) is done before.
"""

from __future__ import annotations

import argparse
import os
import time

from mmclust.threads import thread_environment

if __name__ == "__main__":  # before numpy and torch are imported
    os.environ |= thread_environment(2)  # as `mmclust.explorer.server.KERNELS_AT_ONCE`

import pandas as pd

from mmclust.explorer import views
from mmclust.explorer.session import METHOD_LABELS, ExplorerSession


def time_answer(session: ExplorerSession, method: str, keywords: list[str]) -> dict[str, object]:
    """Seconds of one answer, with an empty memory of earlier clusterings."""
    session._clusterings.clear()
    names = session.picture_names()
    start = time.perf_counter()
    asked = []
    for keyword in keywords:
        words = ", ".join(session.words(keyword))
        others = [other for other in keywords if other != keyword]
        asked.append((keyword, words, method, None, "auto", others))
    clusterings = list(session.cluster_side_by_side(*asked))
    for clustering in clusterings:
        views.clusters(clustering, session.thumbnails, names)
    if len(clusterings) == 2:
        session.compare(*clusterings)
    session.export(*clusterings)
    clusters_shown = time.perf_counter() - start
    for clustering in clusterings:
        views.scatter(clustering, views.tsne(clustering.representation), names)
    return {
        "method": method,
        "world": session.data.name,
        "keywords": ", ".join(keywords),
        "pictures": len(session.data),
        "clusters": clusters_shown,
        "and maps": time.perf_counter() - start,
    }


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    session = ExplorerSession()
    rows = []
    for world in session.cfg.worlds:
        criteria = [c for c in session.load(world).criteria if c != "identity"]
        for method in METHOD_LABELS:
            time_answer(session, method, criteria[:1])
            for keywords in [*([c] for c in criteria), criteria[:2]]:
                rows.append(time_answer(session, method, keywords))
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".2f"))


if __name__ == "__main__":
    main()
