"""Profiles: all settings that differ between the offline demonstration and the papers' setting."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmclust.profiles.values import brief, check_names, check_settings, schema

FOLDER = Path(__file__).resolve().parent


def profile_names() -> list[str]:
    """The profiles that ship with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_profile(name: str = "demo") -> dict:
    """A profile by its name, or from a YAML file by its path.

    A profile with a key `base` (name of another profile, or path relative to this one) contains
    only what differs from that one. Settings of a notebook are replaced one by one; any other key
    is replaced completely. Values are checked and converted: see `check_settings`.

    Raises ValueError for what is missing, unknown, not valid or not allowed.
    """
    return _load(name, Path(), ())


def _load(name: str, folder: Path, derived: tuple[Path, ...]) -> dict:
    """A profile; `folder`: where a relative path begins, `derived`: the profiles based on it."""
    is_file = Path(name).suffix in (".yaml", ".yml")
    path = (folder / Path(name).expanduser() if is_file else FOLDER / f"{name}.yaml").resolve()
    if not path.is_file():
        names = ", ".join(profile_names())
        raise ValueError(f"unknown profile {brief(name)}: use {names}, or the path of a YAML file")
    if path in derived:
        raise ValueError(f"{path} is its own base: give it another, such as base: demo")
    profile = _read(path)
    check_names(profile, schema()["profile"], f"{path}: unknown setting")
    profile = check_settings(profile, place=f"{path}: ")
    changes = profile.setdefault("notebooks", {})
    base = _load(profile["base"], path.parent, (*derived, path)) if "base" in profile else None
    if base:
        problem = f"{path}: its base {profile['base']!r} has no notebook"
        check_names(changes, base["notebooks"], problem)
    elif "encoder" not in profile:
        raise ValueError(f"{path} has no encoder: set one, or a base such as base: demo")
    known = base or (profile if path.parent == FOLDER else load_profile())
    for notebook, entry in changes.items():
        if notebook in known["notebooks"]:  # a user's own notebook may have any settings
            allowed = [*known["notebooks"][notebook], *schema()["any notebook"]]
            check_names(entry, allowed, f"{path}: {notebook} has no setting")
        changes[notebook] = check_settings(entry, notebook, f"{path}: {notebook}: ")
    if not base:
        return profile
    notebooks = {name: entry | changes.get(name, {}) for name, entry in base["notebooks"].items()}
    return base | profile | {"notebooks": notebooks}


def _read(path: Path) -> dict:
    import yaml

    try:
        profile = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(profile, dict):
        raise ValueError(f"{path} must hold settings, such as base: demo, not {brief(profile)}")
    return profile


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

    Raises ValueError for an unknown notebook or setting, or a value that is not allowed.
    """
    loaded = load_profile(profile)
    check_names([notebook], loaded["notebooks"], f"profile {profile!r} has no notebook")
    entry = loaded["notebooks"][notebook]
    check_names(overrides, [*entry, "encoder", "source"], f"{notebook} has no setting")
    changes = {name: value for name, value in overrides.items() if value is not None}
    values = entry | check_settings(changes, notebook)
    shared = {"encoder": loaded["encoder"], "source": loaded.get("source", "lexicon")}
    shared["download"] = loaded.get("download", True)
    datasets = [values["world"]] if "world" in values else list(values.get("criteria", {}))
    for name in ("methods", "released"):
        methods = loaded.get(name, {})
        if len(datasets) == 1:
            methods = {m: params_for_dataset(p, datasets[0]) for m, p in methods.items()}
        shared[name] = methods
    return SimpleNamespace(**shared | values)
