"""Windows: strand order, boundary tokens, no window across two histories, and dependence on (seed, update) only."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from ad_model.token_cache import strand_order, token_cache
from ad_model.tokens import EPISODE_ENDED, LIFETIME_STARTS, WITHIN_EPISODE
from ad_model.windows import WindowDataset
from data_gen.generation.generate import generate
from data_gen.scoring.scores import history_scores
from data_gen.scoring.selection import history_likelihoods
from data_gen.storage.folder import load_info
from data_gen.storage.shards import read_shard
from icrl.config.schema import SelectionConfig
from icrl.run.folder import run_folder
from icrl.support.errors import ConfigError, UserError

ACTIONS = {"type": "Discrete", "n": 5, "start": 0}


def reference_strands(histories, k):
    """The definition in plain loops: for each history and phase, the steps of episodes phase, phase + k, ..."""
    for h in range(len(histories["reward"])):
        ended = histories["terminated"][h] | histories["truncated"][h]
        episode = 0
        steps = [[] for _ in range(k)]
        for t, end in enumerate(ended):
            steps[episode % k].append(t)
            episode += int(end)
        for strand in steps:
            yield h, strand


@pytest.fixture
def ragged():
    """Random histories whose episodes have random lengths."""
    rng = np.random.default_rng(0)
    terminated = rng.random((7, 60)) < 0.12
    return {
        "observation": rng.integers(9, size=(7, 60, 2), dtype=np.uint8),
        "action": rng.integers(5, size=(7, 60), dtype=np.uint8),
        "reward": rng.random((7, 60), dtype=np.float32),
        "terminated": terminated,
        "truncated": (rng.random((7, 60)) < 0.1) & ~terminated,
    }


@pytest.mark.parametrize("k", [1, 2, 5])
def test_strands_are_every_kth_episode_and_tokens_carry_the_previous_step(ragged, k):
    columns, lengths = strand_order(ragged, k, ACTIONS)
    strands = list(reference_strands(ragged, k))
    np.testing.assert_array_equal(lengths, [len(steps) for _, steps in strands])
    row = 0
    for h, steps in strands:
        before = None
        for t in steps:
            np.testing.assert_array_equal(columns["observation"][row], ragged["observation"][h, t])
            assert columns["action"][row] == ragged["action"][h, t]
            if before is None:
                expected = (0, 0.0, LIFETIME_STARTS)
            else:
                end = ragged["terminated"][h, before] | ragged["truncated"][h, before]
                flag = EPISODE_ENDED if end else WITHIN_EPISODE
                expected = (ragged["action"][h, before], ragged["reward"][h, before], flag)
            found = (columns["previous_action"][row], columns["previous_reward"][row], columns["boundary"][row])
            assert found == expected
            before = t
            row += 1


def test_the_boundary_token_carries_the_real_last_action_and_reward():
    histories = {
        "observation": np.array([[[1, 1], [1, 2], [1, 1], [1, 0]]], dtype=np.uint8),
        "action": np.array([[4, 2, 3, 0]], dtype=np.uint8),
        "reward": np.array([[0, 1, 0, 0]], dtype=np.float32),
        "terminated": np.zeros((1, 4), dtype=bool),
        "truncated": np.array([[False, True, False, True]]),
    }
    columns, _ = strand_order(histories, 1, ACTIONS)
    np.testing.assert_array_equal(columns["boundary"], [LIFETIME_STARTS, WITHIN_EPISODE, EPISODE_ENDED, WITHIN_EPISODE])
    np.testing.assert_array_equal(columns["previous_action"], [0, 4, 2, 3])
    # The real last reward, in the token with the first cell of the new episode.
    np.testing.assert_array_equal(columns["previous_reward"], [0, 0, 1, 0])


def test_the_action_before_the_first_is_the_first_of_the_space():
    histories = {
        "observation": np.zeros((1, 3), dtype=np.uint8),
        "action": np.array([[3, 2, 4]], dtype=np.uint8),
        "reward": np.zeros((1, 3), dtype=np.float32),
        "terminated": np.zeros((1, 3), dtype=bool),
        "truncated": np.zeros((1, 3), dtype=bool),
    }
    columns, _ = strand_order(histories, 1, {"type": "Discrete", "n": 3, "start": 2})
    np.testing.assert_array_equal(columns["previous_action"], [2, 3, 2])


@pytest.fixture
def cache(tiny):
    config = tiny()
    generate(config)
    return token_cache(run_folder(config), config.training.subsample, 18)


def test_no_window_spans_two_histories(tiny):
    """Traces each row of the cache back to its history."""
    config = tiny(data={"histories_per_task": 4})
    generate(config)
    cache = token_cache(run_folder(config), 4, 18)
    shards = [read_shard(path) for path in sorted(run_folder(config).data.glob("*.h5"))]
    owner = np.concatenate([np.repeat(shard["history"], shard["reward"].shape[1]) for shard in shards])
    windows = WindowDataset(cache, 18, 64, seed=0)
    rows = np.concatenate([windows.first_rows(update) for update in range(200)])
    span = owner[rows[:, None] + np.arange(18)]
    assert (span == span[:, :1]).all()
    for row in rows[:200]:  # nor two strands: only the first token can start a lifetime
        assert (cache.columns["boundary"][row + 1 : row + 18] != LIFETIME_STARTS).all()


def test_every_offset_of_every_strand_is_drawn(cache):
    windows = WindowDataset(cache, 18, 256, seed=0)
    rows = np.concatenate([windows.first_rows(update) for update in range(300)])
    expected = np.concatenate([np.arange(first, first + length - 18 + 1) for first, length in cache.strands])
    np.testing.assert_array_equal(np.unique(rows), expected)


def test_windows_depend_only_on_seed_and_update(cache):
    first, again = WindowDataset(cache, 18, 8, seed=3), WindowDataset(cache, 18, 8, seed=3)
    again[7]
    for part in ("tokens", "columns"):
        for name, values in first[5][part].items():
            assert torch.equal(values, again[5][part][name])
    other = WindowDataset(cache, 18, 8, seed=4)
    assert not torch.equal(first[5]["columns"]["action"], other[5]["columns"]["action"])
    assert not torch.equal(first[5]["columns"]["action"], first[6]["columns"]["action"])


def test_processes_and_accumulation_share_the_same_global_batch(cache):
    whole = WindowDataset(cache, 18, 8, seed=0)[2]
    for parts, processes in [(1, 2), (2, 1), (2, 2)]:
        pieces = [
            WindowDataset(cache, 18, 8, 0, parts, process, processes)[2 * parts + part]["columns"]["action"]
            for part in range(parts)
            for process in range(processes)
        ]
        assert torch.equal(torch.cat(pieces), whole["columns"]["action"])


def test_a_batch_size_that_the_processes_do_not_divide_is_refused(cache):
    with pytest.raises(ConfigError, match=r"training\.batch_size 8 must be divisible"):
        WindowDataset(cache, 18, 8, 0, num_processes=3)


def test_a_context_longer_than_every_strand_is_refused(tiny):
    config = tiny()
    generate(config)
    with pytest.raises(ConfigError, match=r"model\.context_episodes: a context of 37 steps does not fit"):
        token_cache(run_folder(config), 4, 37)
    assert not list(run_folder(config).cache.glob("tokens-*"))


def test_a_damaged_shard_or_cache_is_named(tiny):
    config = tiny()
    with pytest.raises(UserError, match="has not been generated"):
        token_cache(run_folder(config), 4, 18)
    generate(config)
    token_cache(run_folder(config), 4, 18)
    (column,) = run_folder(config).cache.glob("tokens-*/action.npy")
    column.write_bytes(column.read_bytes()[:100])
    with pytest.raises(UserError, match="the token cache is damaged"):
        token_cache(run_folder(config), 4, 18)
    shard = run_folder(config).data / "train-00000-of-00003.h5"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"train-00000-of-00003\.h5: the shard is damaged"):
        token_cache(run_folder(config), 2, 18)


def test_by_default_every_history_is_read_and_the_windows_never_change(cache):
    """Pins the draws of seed 0, so that a trained model can be reproduced."""
    assert cache.likelihoods is None
    assert len(cache.strands) == 24 * 4
    drawn = WindowDataset(cache, 18, 8, seed=0).first_rows(5)
    rng = np.random.default_rng((0, 2, 5))
    first, length = cache.strands[rng.integers(24 * 4, size=8)].T
    np.testing.assert_array_equal(drawn, first + rng.integers(length - 18 + 1))


def mixed(tiny, **changes):
    """Six learners per task. Half of them are random and do not improve."""
    sources = [{"name": "q_learning"}, {"name": "random"}]
    config = tiny(data={"sources": sources, "histories_per_task": 6, "episodes": 40, **changes})
    if not run_folder(config).data_info.exists():
        generate(config)
    return config


def histories_of(config, likelihoods):
    """The step columns of the selected histories."""
    shards = [read_shard(path) for path in sorted(run_folder(config).data.glob("*.h5"))]
    names = ("observation", "action", "reward", "terminated", "truncated")
    everything = {name: np.concatenate([shard[name] for shard in shards]) for name in names}
    return {name: values[likelihoods > 0] for name, values in everything.items()}


@pytest.mark.parametrize(
    "limits",
    [
        {"min_improvement": 0.2},
        {"min_final_return": 0.5, "max_drop": 0.4},
        {"best_share": 0.34},
        {"min_improvement": 0.1, "likelihood": "improvement"},
    ],
)
def test_the_cache_holds_only_the_selected_histories(tiny, limits):
    config, selection = mixed(tiny), SelectionConfig(**limits)
    scores = history_scores(run_folder(config), load_info(run_folder(config)))
    likelihoods = history_likelihoods(scores, selection)
    assert 0 < (likelihoods > 0).sum() < len(likelihoods)
    cache = token_cache(run_folder(config), 4, 18, selection)
    columns, lengths = strand_order(histories_of(config, likelihoods), 4, ACTIONS)
    for name, values in columns.items():
        np.testing.assert_array_equal(cache.columns[name], values, err_msg=name)
    np.testing.assert_array_equal(cache.strands[:, 1], lengths)
    if selection.likelihood == "uniform":
        assert cache.likelihoods is None
    else:
        np.testing.assert_array_equal(cache.likelihoods, np.repeat(likelihoods[likelihoods > 0], 4))


def test_another_selection_or_objective_has_another_cache(tiny):
    config = mixed(tiny, optimal_actions=True)
    folder = run_folder(config)
    names = set()
    for settings in ({}, {"selection": SelectionConfig(best_share=0.5)}, {"wanted": ["optimal_action"]}):
        token_cache(folder, 4, 18, **settings)
        names |= {path.name for path in folder.cache.glob("tokens-*")}
    assert len(names) == 3


def test_windows_are_drawn_in_proportion_to_the_likelihoods(cache):
    """Six strands of equal length with chosen likelihoods; a chi-squared test of 19,200 draws."""
    strands, likelihoods = cache.strands[:6], np.array([1.0, 0.5, 3.0, 0.25, 0.0, 2.0])
    windows = WindowDataset(replace(cache, strands=strands, likelihoods=likelihoods), 18, 64, seed=0)
    rows = np.concatenate([windows.first_rows(update) for update in range(300)])
    counts = np.bincount(np.searchsorted(strands[:, 0], rows, side="right") - 1, minlength=6)
    assert counts[4] == 0
    drawn = likelihoods > 0
    expected = (likelihoods / likelihoods.sum() * len(rows))[drawn]
    assert ((counts[drawn] - expected) ** 2 / expected).sum() < 18.5  # .999 quantile of 4 degrees of freedom
    np.testing.assert_array_equal(windows.first_rows(7), windows.first_rows(7))


def test_a_selection_that_leaves_no_history_names_its_key_and_the_values_found(tiny):
    config = mixed(tiny)
    with pytest.raises(ConfigError) as raised:
        token_cache(run_folder(config), 4, 18, SelectionConfig(min_improvement=2))
    assert re.match(
        r"training\.selection\.min_improvement: 2\.0 is met by 0 of 72 histories, whose improvement is "
        r"(-?[\d.]+ ){5}\(lowest, quartiles, highest\): no history is left; .* normalised return",
        str(raised.value),
    )
    assert "\n" not in str(raised.value)
    assert not list(run_folder(config).cache.glob("tokens-*"))


def test_labels_are_optimal_actions_but_the_context_holds_the_actions_taken(tiny):
    config = tiny(data={"optimal_actions": True})
    generate(config)
    taken = token_cache(run_folder(config), 4, 18)
    columns = {name: np.array(values) for name, values in taken.columns.items()}
    wanted = token_cache(run_folder(config), 4, 18, wanted=("optimal_action",))
    shards = [read_shard(path) for path in sorted(run_folder(config).data.glob("*.h5"))]
    labels = np.concatenate([shard["optimal_action"] for shard in shards])
    ended = np.concatenate([shard["truncated"] for shard in shards])
    phase = (np.cumsum(ended, axis=1) - ended) % 4
    order = np.argsort(phase, axis=1, kind="stable")
    np.testing.assert_array_equal(wanted.columns["optimal_action"], np.take_along_axis(labels, order, axis=1).ravel())
    assert (wanted.columns["optimal_action"] != columns["action"]).mean() > 0.2
    for name in set(columns) - {"action"}:
        np.testing.assert_array_equal(wanted.columns[name], columns[name], err_msg=name)


def test_labels_that_the_data_lacks_are_reported_in_one_line(tiny):
    config = tiny()
    generate(config)
    with pytest.raises(ConfigError, match=r"^training\.objective: optimal_action .* data\.optimal_actions: true$"):
        token_cache(run_folder(config), 4, 18, wanted=("optimal_action",))
