"""The shipped configs, such as `demo` and `dark_room/ppo`, found wherever the project is installed."""

from pathlib import Path

import icrl
from icrl.support.errors import ConfigError, did_you_mean

STUDIES = "studies"
"""Folder of the configs that are studies."""

_NOT_EXPERIMENTS = ("accelerate", STUDIES)
"""Folders of configs that are not experiments."""


def shipped_folder() -> Path:
    """The folder of the shipped configs: inside the package if it is installed, `configs/` in a checkout."""
    package = Path(icrl.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped_names() -> list[str]:
    """The names of all shipped experiments, such as `dark_room/ppo`."""
    folder = shipped_folder()
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*.yaml"))]
    return [path.with_suffix("").as_posix() for path in paths if path.parts[0] not in _NOT_EXPERIMENTS]


def shipped_studies() -> list[str]:
    """The names of all shipped studies, such as `seeds`."""
    return [path.stem for path in sorted((shipped_folder() / STUDIES).glob("*.yaml"))]


def find_config(name: str | Path) -> Path:
    """The file of a config, given as a path or as the name of a shipped config.

    The user's own file takes precedence. Raises ConfigError, with the nearest name, if neither exists.
    """
    path = Path(name)
    if path.is_file():
        return path
    names = shipped_names()
    plain = path.as_posix().removeprefix("configs/").removesuffix(".yaml")
    if plain in names and path.suffix != ".yml":
        return shipped_folder() / f"{plain}.yaml"
    if path.is_dir():
        raise ConfigError(f"{name}: is a folder; give the file of a config, or the name of a shipped one such as demo")
    beside = sorted(path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    raise ConfigError(f"{name}: is neither a config file nor a shipped config{did_you_mean(plain, [*beside, *names])}")
