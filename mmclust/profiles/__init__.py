"""Profiles: the one place for what differs between the offline demonstration and the papers' own setting."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any


def profile_names() -> list[str]:
    """The profiles that ship with the package."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.yaml"))


def load_profile(name: str = "demo") -> dict:
    """A profile by name, or from a YAML file by path. One with `base`, the name of another, sets only what differs from that; a notebook's
    settings are replaced one by one, everything else as a whole.

    Raises:
        ValueError: for a name that is neither; a notebook that the base does not have.
    """
    import yaml

    path = (
        Path(name)
        if Path(name).suffix in (".yaml", ".yml")
        else Path(__file__).parent / f"{name}.yaml"
    )
    if not path.is_file():
        raise ValueError(
            f"profile {name!r} is neither a YAML file nor one of: {', '.join(profile_names())}"
        )
    own = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "base" not in own:
        return own
    base = load_profile(own["base"])
    if unknown := own.get("notebooks", {}).keys() - base["notebooks"].keys():
        raise ValueError(
            f"{path} sets {sorted(unknown)[0]!r}, which is no notebook of {own['base']!r}: {', '.join(base['notebooks'])}"
        )
    return (
        base
        | own
        | {
            "notebooks": {
                name: entry | own.get("notebooks", {}).get(name, {})
                for name, entry in base["notebooks"].items()
            }
        }
    )


def params_for_dataset(params: dict, dataset: str) -> dict:
    """A method's parameters for a data set: what its key `datasets` holds for that one stands before the rest."""
    return {k: v for k, v in params.items() if k != "datasets"} | params.get("datasets", {}).get(
        dataset, {}
    )


def override_params(params: dict, **changes: Any) -> dict:
    """A method's parameters with some of them changed, whatever the data set: `own | changes`, and nothing of that under `datasets`."""
    inner = {
        name: {k: v for k, v in own.items() if k not in changes}
        for name, own in params.get("datasets", {}).items()
    }
    return params | ({"datasets": inner} if inner else {}) | changes


def settings(notebook: str, profile: str = "demo", **given: Any) -> SimpleNamespace:
    """A notebook's settings: the profile's, except for those that are given and not None.

    Raises:
        ValueError: for a setting that the notebook does not have.
    """
    whole = load_profile(profile)
    own = whole["notebooks"][notebook]
    if unknown := given.keys() - own.keys() - {"encoder", "source"}:
        raise ValueError(f"{notebook} has no setting {sorted(unknown)[0]!r}: {', '.join(own)}")
    shared = {"encoder": whole["encoder"], "source": whole.get("source", "lexicon")}
    used = [own["world"]] if "world" in own else list(own.get("criteria", {}))
    for name in ("methods", "released"):
        every = whole.get(name, {})
        shared[name] = (
            {method: params_for_dataset(params, used[0]) for method, params in every.items()}
            if len(used) == 1
            else every
        )
    return SimpleNamespace(**shared | own | {k: v for k, v in given.items() if v is not None})
