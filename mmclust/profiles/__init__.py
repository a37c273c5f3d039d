"""Profiles: all settings that differ between the offline demonstration and the papers' setting."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

FOLDER = Path(__file__).parent


def profile_names() -> list[str]:
    """The profiles that ship with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_profile(name: str = "demo") -> dict:
    """A profile by its name, or from a YAML file by its path.

    A profile with a key `base` (name or path of another profile) contains only what differs from
    that one. Settings of a notebook are replaced one by one; any other key is replaced completely.

    Raises:
        ValueError: there is no such profile, or it sets a notebook that its base does not have.
    """
    import yaml

    path = Path(name) if Path(name).suffix in (".yaml", ".yml") else FOLDER / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(profile_names())
        raise ValueError(f"unknown profile {name!r}: use {names}, or the path of a YAML file")
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "base" not in profile:
        return profile
    base = load_profile(profile["base"])
    changes = profile.get("notebooks", {})
    if unknown := changes.keys() - base["notebooks"].keys():
        raise ValueError(
            f"{path} sets the notebook {sorted(unknown)[0]!r}, which {profile['base']!r} does not "
            f"have: {', '.join(base['notebooks'])}"
        )
    notebooks = {name: entry | changes.get(name, {}) for name, entry in base["notebooks"].items()}
    return base | profile | {"notebooks": notebooks}


def params_for_dataset(params: dict, dataset: str) -> dict:
    """A method's parameters for one data set, whose entry in `datasets` takes precedence."""
    common = {name: value for name, value in params.items() if name != "datasets"}
    return common | params.get("datasets", {}).get(dataset, {})


def override_params(params: dict, **changes: Any) -> dict:
    """A method's parameters with some of them replaced, also in its entries in `datasets`."""
    changed = params | changes
    if "datasets" in params:
        changed["datasets"] = {
            dataset: {name: value for name, value in entry.items() if name not in changes}
            for dataset, entry in params["datasets"].items()
        }
    return changed


def settings(notebook: str, profile: str = "demo", **overrides: Any) -> SimpleNamespace:
    """A notebook's settings: the profile's, except for the overrides that are not None.

    `methods` and `released` are method -> parameters. For a notebook with one data set (`world`,
    or one in `criteria`) these are the parameters for that data set, so that an estimator can be
    built from them. With several data sets, a method's parameters may contain the key `datasets`;
    `mm.grid` then takes the parameters for each data set.

    Raises:
        ValueError: an override is not a setting of the notebook.
    """
    loaded = load_profile(profile)
    entry = loaded["notebooks"][notebook]
    if unknown := overrides.keys() - entry.keys() - {"encoder", "source"}:
        raise ValueError(f"{notebook} has no setting {sorted(unknown)[0]!r}: {', '.join(entry)}")
    values = entry | {name: value for name, value in overrides.items() if value is not None}
    shared = {"encoder": loaded["encoder"], "source": loaded.get("source", "lexicon")}
    datasets = [values["world"]] if "world" in values else list(values.get("criteria", {}))
    for name in ("methods", "released"):
        methods = loaded.get(name, {})
        if len(datasets) == 1:
            methods = {m: params_for_dataset(p, datasets[0]) for m, p in methods.items()}
        shared[name] = methods
    return SimpleNamespace(**shared | values)
