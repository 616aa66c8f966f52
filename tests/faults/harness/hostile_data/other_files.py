"""Whatever else may lie in a data folder: links, configs, cards, scripts, and things in the place of its files."""

import random
from pathlib import Path

from tests.faults.harness.hostile_data.folder import Mutation, random_shard, read_record, write_record
from tests.faults.harness.payloads import ANSI, INSTEAD, RIGHT_TO_LEFT, replace_file


def _instead(how: str, sealed: bool = True) -> Mutation:
    def mutate(folder: Path, rng: random.Random, home: Path) -> None:
        names = ["info.json", "tasks-train.npz", "tasks-validation.npz", "tasks-test.npz", "README.md", "config.yaml"]
        name = rng.choice([*names, random_shard(folder, rng).name, random_shard(folder, rng).name])
        if not sealed and name.endswith(".npz"):
            write_record(folder, {**read_record(folder), "files": {}})
        replace_file(folder / name, how, home)

    return mutate


def _secret_config(folder: Path, rng: random.Random, home: Path) -> None:
    (folder / "config.yaml").unlink(missing_ok=True)
    (folder / "config.yaml").symlink_to(home / "secret" / rng.choice(["config.yaml", "secret.json", "secret.txt"]))


def _linked_folder(folder: Path, rng: random.Random, home: Path) -> None:
    folder.rename(folder.with_name("real"))
    folder.symlink_to("real", target_is_directory=True)
    (folder / "again").symlink_to(folder, target_is_directory=True)


def _config(folder: Path, rng: random.Random, home: Path) -> None:
    """A config beside the data that names code."""
    texts = [
        "name: x\ntasks: {name: 'trap_module:Family'}\ndata: {sources: [q_learning]}\n",
        "name: x\ntasks: {name: gymnasium, env_id: 'trap_module:X-v0', layouts: 3}\ndata: {sources: [q_learning]}\n",
        "tasks: dark_room\ndata: {sources: ['trap_module:Family']}\nevaluation: {figures: ['trap_module:load']}\n",
        "!!python/object/apply:os.system ['touch executed']\n",
        f"name: '{RIGHT_TO_LEFT}'\n# {ANSI}\n",
        "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b]\n",
        "[" * 5000,
    ]
    (folder / "config.yaml").write_text(rng.choice(texts))


def _readme(folder: Path, rng: random.Random, home: Path) -> None:
    text = (
        "---\nconfigs: !!python/object/apply:os.system ['touch executed']\ndataset_info: {name: 'trap_module:Family'}\n"
    )
    (folder / "README.md").write_text(text + f"---\n{ANSI}\n")
    (folder / "loading_script.py").write_text("import trap_module\n")
    (folder / f"{folder.name}.py").write_text("import trap_module\n")


MUTATIONS: dict[str, Mutation] = {
    "secret-config": _secret_config,
    "linked-folder": _linked_folder,
    "config": _config,
    "readme": _readme,
    **{f"instead-{how}": _instead(how) for how in INSTEAD},
    "unsealed-secret": _instead("secret", sealed=False),
}
