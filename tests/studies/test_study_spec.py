"""Studies as they are written: cells and runs, names, the command line, and bad studies in one line each."""

import pytest
from conftest import TINY

from icrl.config.loader import load_config
from icrl.support.errors import ConfigError
from icrl.support.yaml12 import write_yaml
from studies.cells import runs_of
from studies.plan import Part
from studies.reading import Words, checked_study, find_study, read_study
from studies.table import check_figures


@pytest.fixture
def base(tmp_path, monkeypatch):
    """The file of a tiny config in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(write_yaml(TINY))
    return "tiny.yaml"


def runs(tmp_path, **values):
    return runs_of(checked_study({"base": "tiny.yaml", "name": "study", **values}), tmp_path / "runs")


def test_a_product_has_a_run_for_every_cell_and_seed_and_pairs_one_for_every_pair(base, tmp_path):
    axes = {
        "training.learning_rate": [0.001, 0.003],
        "size": {"small": {"model.hidden_size": 8}, "large": {"model.hidden_size": 32, "model.num_layers": 3}},
    }
    product = runs(tmp_path, axes=axes, seeds={"training": 2, "evaluation": [7]})
    assert len(product.cells) == 4 and len(product.runs) == 8
    last = product.runs[-1]
    assert last.cell.settings == {"training.learning_rate": 0.003, "size": "large"}
    assert last.name == "learning_rate-0.003_size-large_training-1_evaluation-7"
    assert (last.config.training.learning_rate, last.config.model.num_layers) == (0.003, 3)
    assert [last.seed(kind) for kind in ("split", "data", "training", "evaluation")] == [0, 0, 1, 7]
    assert last.config.name == last.name and last.config.output == str(tmp_path / "runs")
    pairs = runs(tmp_path, axes=axes, combine="pairs")
    assert [cell.name for cell in pairs.cells] == ["learning_rate-0.001_size-small", "learning_rate-0.003_size-large"]
    everything = runs(tmp_path, seeds={"seed": [4, 5]})
    assert [run.seed("data") for run in everything.runs] == [4, 5]


def test_a_value_more_on_an_axis_leaves_the_names_of_the_other_runs_as_they_are(base, tmp_path):
    few = runs(tmp_path, axes={"training.betas": [[0.9, 0.99], [0.9, 0.95]]})
    more = runs(tmp_path, axes={"training.betas": [[0.8, 0.99], [0.9, 0.99], [0.9, 0.95]]})
    assert {run.name for run in few.runs} < {run.name for run in more.runs}
    assert len({run.name for run in more.runs}) == 3


def test_the_command_line_alone_says_the_same_as_a_file(base, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "base: tiny.yaml\n"
        "axes: {training.learning_rate: [1e-3, 3e-3], size: {small: {model.hidden_size: 8}, large: {tasks.size: 5}}}\n"
        "seeds: {training: 3, data: [1, 2]}\n"
        "overrides: {evaluation.seeds: 4}\n"
    )
    size = "size={small: {model.hidden_size: 8}, large: {tasks.size: 5}}"
    words = Words(
        base="tiny.yaml",
        name="mine",
        axes=["training.learning_rate=1e-3,3e-3", size],
        seeds=["training=3", "data=1,2"],
        overrides=["--evaluation.seeds", "4"],
    )
    written, typed = (runs_of(asked, tmp_path) for asked in (read_study("mine.yaml", Words()), read_study(None, words)))
    assert [run.config for run in written.runs] == [run.config for run in typed.runs]
    assert written.asked.spec.name == "mine" and len(typed.runs) == 24


def test_text_keeps_its_letters_through_the_folder_of_a_study(base, tmp_path):
    words = Words(
        base=base, axes=["evaluation.baselines.0.label=1.10,2.0"], overrides=["evaluation.baselines=[random]"]
    )
    asked = read_study(None, words)
    for each in (asked, checked_study(asked.values)):
        labels = [run.config.evaluation.baselines[0].label for run in runs_of(each, tmp_path).runs]
        assert labels == ["1.10", "2.0"]


def test_the_shipped_studies_can_be_read_and_have_runs(tmp_path):
    for name, cells, number in (("seeds", 1, 5), ("learning_rate_by_context", 9, 27)):
        asked = read_study(name, Words())
        assert asked.spec.name == name and find_study(f"configs/studies/{name}.yaml").samefile(find_study(name))
        planned = runs_of(asked, tmp_path)
        check_figures(planned)
        assert (len(planned.cells), len(planned.runs)) == (cells, number)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"axes": {"training.learning_rte": [1, 2]}}, "training.learning_rte: unknown key .*did you mean"),
        ({"axes": {"training.learning_rate": []}}, "axes.training.learning_rate: is empty"),
        ({"axes": {"training.learning_rate": 3}}, "axes.training.learning_rate: needs a list"),
        ({"axes": {"size": {}}}, "axes.size: is empty"),
        ({"axes": {"size": {"small": 3}}}, "axes.size.small: needs a mapping"),
        ({"axes": {"training.steps": {"few": {"training.steps": 3}}}}, "needs a list of values"),
        ({"axes": {"cell": {"a": {"training.steps": 3}}}}, "axes.cell: is a column"),
        ({"axes": {"training.steps": [3, 3]}}, "two runs are the same experiment"),
        ({"axes": {"training.steps": [3, -1]}}, r"training.steps: .*\(got -1\) \(cell steps -1\)"),
        ({"axes": {"training.steps": [3]}, "overrides": {"training.steps": 4}}, "training.steps: is set twice"),
        ({"axes": {"training.steps": [3]}, "overrides": {"training": {"steps": 4}}}, "is set twice"),
        ({"axes": {"model.num-layers": [3], "size": {"a": {"model.num_layers": 2}}}}, "model.num_layers: is set twice"),
        ({"axes": {"size": {"a": {"model": {}, "model.num_layers": 2}}}}, "is set twice"),
        ({"axes": {"seeds.training": [3]}, "seeds": {"training": 3}}, "seeds.training: is set twice"),
        ({"axes": {"seeds.training": [3]}}, "seeds belong under the study's key seeds"),
        ({"axes": {"name": ["a"]}}, "is a key that no study sets"),
        ({"overrides": {"output": "x"}}, "is a key that no study sets"),
        ({"axes": {"a": {"x": {}, "y": {}}}}, "two runs are the same experiment"),
        ({"axes": {"training.steps": [3], "model.num_layers": [1, 2]}, "combine": "pairs"}, "combine: pairs need"),
        ({"combine": "all"}, "combine: 'all' is not a choice"),
        ({"seeds": {"training": [1, 1]}}, "seeds.training: has 1 twice"),
        ({"seeds": {"training": 2, "seed": 2}}, "seeds.training: collides with seeds.seed"),
        ({"seeds": {"training": 0}}, "seeds.training: "),
        ({"seeds": {"training": []}}, "seeds.training: is empty"),
        ({"seeds": {"trainin": 2}}, "seeds.trainin: unknown key .*did you mean 'training'"),
        ({"seeds": {"training": True}}, "seeds.training: is true or false"),
        ({"show": ["final"]}, "show: unknown figure 'final'"),
        ({"axis": {}}, "axis: unknown key .*did you mean 'axes'"),
        ({"name": "../x"}, "name: "),
        ({"threads": 0}, "threads: "),
        ({"base": "tny.yaml"}, "base: tny.yaml: is neither a config file"),
        (
            {"published": [{"what": "a", "source": "b", "value": 1, "figure": "final_episode"}]},
            "published.0.figure: unknown figure .*did you mean 'final_episodes'",
        ),
        (
            {
                "axes": {"training.steps": [3, 4]},
                "published": [{"what": "a", "source": "b", "value": 1, "figure": "final_episodes"}],
            },
            "published.0.settings: 2 cells have these values",
        ),
    ],
)
def test_a_bad_study_is_refused_in_one_line(base, tmp_path, values, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        check_figures(runs(tmp_path, **values))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (Words(axes=["training.steps"]), "--axis 'training.steps': write it as"),
        (Words(seeds=["training"]), "--seeds 'training': write it as"),
        (Words(axes=["training.steps=[1"]), "its value"),
        (Words(axes=["training.steps=1", "training.steps=2"]), "is given twice"),
        (Words(overrides=["training.steps"]), "expected an override"),
    ],
)
def test_bad_words_are_refused_in_one_line(base, words, expected):
    with pytest.raises(ConfigError, match=expected):
        read_study(None, Words(**{**vars(words), "base": base}))


def test_an_experiment_and_a_study_are_told_apart(base, tmp_path):
    with pytest.raises(ConfigError, match=r"tiny.yaml: is an experiment, not a study: icrl run tiny.yaml"):
        read_study("tiny.yaml", Words())
    (tmp_path / "mine.yaml").write_text("base: tiny.yaml\nseeds: {training: 2}\n")
    with pytest.raises(ConfigError, match=r"mine.yaml: is a study, not an experiment: icrl study mine.yaml"):
        load_config("mine.yaml")
    (tmp_path / "twice.yaml").write_text("base: tiny.yaml\naxes: {training.steps: [1], training.steps: [2]}\n")
    with pytest.raises(ConfigError, match=r"has the key 'training\.steps' twice"):
        read_study("twice.yaml", Words())


def test_parts_take_every_nth_run_and_a_part_that_is_not_there_is_refused(base, tmp_path):
    planned = runs(tmp_path, seeds={"training": 5}).runs
    parts = [Part.of(f"{index}/2").runs(planned) for index in (1, 2)]
    assert sorted(run.name for part in parts for run in part) == [run.name for run in planned]
    assert [len(part) for part in parts] == [3, 2]
    for text in ("3/2", "0/2", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(ConfigError, match=f"--part '?{text}"):
            Part.of(text)
