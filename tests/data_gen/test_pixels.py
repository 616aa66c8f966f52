"""Grids as images: the content of the images, and the grid inside, also through the config."""

import numpy as np
import pytest
import yaml

from data_gen.agents.optimal import Optimal
from data_gen.agents.tabular.q_learning import QLearning
from data_gen.interaction import interact
from data_gen.streams import make_seeds
from data_gen.tasks import Tasks
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.grids.pixels import Pixels
from icrl.config.loader import dump, load_config, validate
from icrl.support.errors import ConfigError

ROOM = {"name": "dark_room", "size": 4, "episode_length": 5}


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "pixels.yaml"
    path.write_text(yaml.safe_dump({"tasks": {"name": "pixels", "of": ROOM}, "data": {"sources": ["random"]}}))
    return path


@pytest.mark.parametrize("tile", [1, 3])
def test_the_image_shows_the_agents_cell_and_nothing_else(tile):
    pixels = Pixels(of=ROOM, tile=tile, keep=True)
    envs = pixels.make_vec(pixels.all_tasks())
    observation, _ = envs.reset(seed=0)
    for step in range(12):
        for cell, image in zip(observation["cell"], observation["image"], strict=True):
            row, column = cell * tile
            assert image.shape == (4 * tile, 4 * tile, 3) and image.dtype == np.uint8
            assert (image[row : row + tile, column : column + tile] == 255).all()
            assert (image == 255).sum() == 3 * tile**2 and (image == 0).sum() == image.size - 3 * tile**2
        actions = (np.arange(len(observation["cell"])) + step) % 5
        observation, *_, infos = envs.step(actions)
        if infos:
            final = infos["final_obs"]
            np.testing.assert_array_equal(final["image"], pixels.images()[final["cell"][:, 0], final["cell"][:, 1]])


def test_everything_but_the_observation_equals_the_grids():
    pixels, room = Pixels(of=ROOM), DarkRoom(size=4, episode_length=5)
    tasks = pixels.all_tasks()
    np.testing.assert_array_equal(tasks["goal"], room.all_tasks()["goal"])
    np.testing.assert_array_equal(pixels.optimal_return(tasks), room.optimal_return(tasks))
    np.testing.assert_array_equal(pixels.random_return(tasks), room.random_return(tasks))
    np.testing.assert_array_equal(pixels.split(0.5, 0.5, 3)[1]["goal"], room.split(0.5, 0.5, 3)[1]["goal"])
    np.testing.assert_array_equal(pixels.sample(9, 3)["goal"], room.sample(9, 3)["goal"])
    assert (pixels.episode_length, pixels.varies) == (5, "rewards")


def test_a_table_learner_on_the_state_records_the_same_history_as_in_the_grid_itself():
    pixels = Pixels(of={"name": "dark_key_to_door", "size": 4, "episode_length": 9})
    grid = pixels.of.build()
    tasks, seeds = pixels.sample(6, seed=1), make_seeds(6, 1)
    seen = interact(QLearning(), pixels.make_vec(tasks), 60, seeds, sees="state")
    direct = interact(QLearning(), grid.make_vec(tasks), 60, seeds, sees="state")
    np.testing.assert_array_equal(seen.action, direct.action)
    np.testing.assert_array_equal(seen.reward, direct.reward)
    np.testing.assert_array_equal(seen.ended, direct.ended)
    cells = direct.observation.astype(int)
    np.testing.assert_array_equal(seen.observation, pixels.images()[cells[..., 0], cells[..., 1]])


def test_an_optimal_policy_that_depends_on_the_steps_left_is_the_grids():
    pixels = Pixels(of={"name": "windy_room", "size": 4, "episode_length": 5, "wind": 0.4})
    tasks, seeds = pixels.sample(50, seed=1), make_seeds(50, 1)
    seen = interact(Optimal(), pixels.make_vec(tasks), 20, seeds)
    direct = interact(Optimal(), pixels.of.build().make_vec(tasks), 20, seeds)
    np.testing.assert_array_equal(seen.action, direct.action)
    np.testing.assert_array_equal(seen.reward, direct.reward)


def test_a_grid_without_an_optimal_policy_has_none_as_pixels(monkeypatch):
    monkeypatch.delattr("data_gen.tasks.grids.dark_room.DarkRoomVectorEnv.optimal_action")
    pixels = Pixels(of=ROOM)
    assert not hasattr(pixels.make_vec(pixels.sample(2, 0)), "optimal_action")


@pytest.mark.parametrize("keep", [False, True])
def test_a_picture_shows_the_path_in_the_images(keep):
    from matplotlib.figure import Figure

    pixels = Pixels(of=ROOM, tile=2, keep=keep)
    task = Tasks({"goal": np.array([[0, 3]])})
    images = pixels.images()[[2, 1, 0, 0], [2, 2, 2, 3]]
    axes = Figure().subplots()
    pixels.draw(axes, task, {"image": images} if keep else images, np.array([0, 0, 1, 1.0]))
    line = axes.lines[0].get_xydata()
    np.testing.assert_allclose(line, [(2, 2), (2, 1), (2, 0), (3, 0), (3, 0)], atol=0.49)  # with the step to the goal


def test_the_grid_is_part_of_the_config_and_is_read_back(config_file):
    config = load_config(config_file, ["--tasks.of.size", "7", "--tasks.tile", "2"])
    assert config.tasks.build().observation_space.shape == (14, 14, 3)
    plain = yaml.safe_load(dump(config))
    assert plain["tasks"].pop("of").items() >= {"name": "dark_room", "size": 7, "start": "center"}.items()
    assert plain["tasks"] == {"name": "pixels", "tile": 2, "keep": False}
    plain = yaml.safe_load(dump(config))
    assert dump(validate(plain)) == dump(config)


def test_a_bare_name_is_enough_for_the_grid(config_file):
    config = load_config(config_file, ["--tasks.of", "grid_navi"])
    assert config.tasks.build().observation_space.shape == (5, 5, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks.of.size=1", "tasks.of.size: input should be greater than or equal to 2 (got 1)"),
        ("tasks.of.sise=7", "tasks.of: dark_room has no parameter 'sise'; did you mean 'size'?"),
        ("tasks.of.start=[4, 0]", "tasks.of: start [4, 0] lies outside the 4x4 room"),
        ("tasks.of.name=dark_rom", "tasks.of: unknown name 'dark_rom'; did you mean 'dark_room'?"),
        ("tasks.of=bandit", "tasks.of: bandit is not a grid: its observation is "),
        ("tasks.of={name: pixels, of: dark_room}", "tasks.of: pixels is not a grid: its observation is Box"),
        ("tasks.of=3", "tasks.of: input should be a valid dictionary or instance of TasksComponent (got 3)"),
        ("tasks.tile=0", "tasks.tile: input should be greater than or equal to 1 (got 0)"),
    ],
)
def test_an_invalid_grid_is_reported_in_one_line(config_file, override, message):
    with pytest.raises(ConfigError) as error:
        load_config(config_file, [override])
    assert str(error.value).startswith(f"{config_file}: {message}")
    assert "\n" not in str(error.value)
