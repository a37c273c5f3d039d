"""The rendered worlds as data sets: unlimited, offline, with known factors."""

from __future__ import annotations

import hashlib
import inspect

from mmclust.data import rendered
from mmclust.data.images import ImageDataset, Images, encode_labels


def load_demo(name: str, n: int = 300, seed: int = 0, size: int = 128) -> ImageDataset:
    """`n` pictures of a world, `size` x `size` pixels; the same for the same (name, n, seed, size), and a prefix of any longer sample."""
    if n < 1:
        raise ValueError(f"{name}: n must be at least 1, not {n}")
    world = rendered.RENDERED_WORLDS[name]
    rows = world.sample(n, seed)
    source = hashlib.sha256(inspect.getsource(rendered).encode()).hexdigest()
    images = Images(
        n,
        lambda i: world.render(rows[i], i, seed, size),
        f"{name} {n} {seed} {size} {source}",
        f"picture {{}} of {name} (seed {seed})".format,
    )
    encoded = {c: encode_labels([r[c] for r in rows], world.classes(c)) for c in world.criteria}
    return ImageDataset(
        name, world.domain, images, {c: v for c, (v, _) in encoded.items()}, {c: names for c, (_, names) in encoded.items()},
        provenance=f"rendered by mmclust.data.rendered, seed {seed}", rows=rows, derived_criteria=tuple(world.derived),
    )  # fmt: skip
