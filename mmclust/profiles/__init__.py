"""Profiles: the one place for what differs between the offline demonstration and the papers' own setting."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace


def profile_names() -> list[str]:
    """The profiles that ship with the package."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.yaml"))


def load_profile(name: str = "demo") -> dict:
    """A profile by name, or from a YAML file by path.

    Raises:
        ValueError: for a name that is neither.
    """
    import yaml

    path = Path(name) if Path(name).suffix in (".yaml", ".yml") else Path(__file__).parent / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"profile {name!r} is neither a YAML file nor one of: {', '.join(profile_names())}")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def settings(notebook: str, profile: str = "demo", **given) -> SimpleNamespace:
    """A notebook's settings: the profile's, except for those that are given and not None.

    Raises:
        ValueError: for a setting that the notebook does not have.
    """
    whole = load_profile(profile)
    own = whole["notebooks"][notebook]
    if unknown := given.keys() - own.keys() - {"encoder"}:
        raise ValueError(f"{notebook} has no setting {sorted(unknown)[0]!r}: {', '.join(own)}")
    shared = {"encoder": whole["encoder"], "methods": whole.get("methods", {}), "released": whole.get("released", {})}
    return SimpleNamespace(**shared | own | {k: v for k, v in given.items() if v is not None})
