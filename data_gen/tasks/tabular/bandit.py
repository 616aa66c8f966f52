"""Multi-armed bandits: find out which arm pays best by pulling the arms."""

from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.vector import TaskVectorEnv
from icrl.config.components import component
from icrl.support.errors import UserError

_ODD_SHARE = 0.95  # fraction of the training tasks, Laskin et al. 2022
_GAUSSIAN_NOISE = 1.0  # standard deviation; the ten-armed testbed, Sutton and Barto 2018, section 2.3


@component
class Bandit(TaskDistribution):
    """Bernoulli bandits (Duan et al. 2016, "RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning", 3.1).

    Also Gaussian bandits, and the shifted bandits of Laskin et al. 2022, "In-context Reinforcement Learning with
    Algorithm Distillation".

    ## Description
    One state and `arms` arms. Tasks differ in the arms' mean rewards, drawn for each arm of each task by `prior`:

    - `uniform`: uniform in [0, 1].
    - `normal`: standard normal; for Gaussian rewards only.
    - `odd_arms`: with probability 0.95, the odd arms' means are uniform in [1/2, 1] and the even arms' in [0, 1/2],
      else the other way round; arms count from 0. In the held-out tasks of `split`, the odd arms are the good ones with
      probability 0.05, so what most training tasks have in common misleads there. The paper only says that reward is
      more likely under the odd arms 95% of the time in training, and under the even arms in evaluation; the two halves
      of [0, 1] are this project's interpretation.

    ## Action Space
    `Discrete(arms)`: the arm to pull.

    ## Observation Space
    `Discrete(1)`: there is nothing to observe except the rewards.

    ## Starting State
    The only state.

    ## Rewards
    `reward: bernoulli`: 1 with the arm's mean as probability, else 0. `reward: gaussian`: normal about the arm's mean
    with standard deviation `noise`, by default 1.

    ## Episode End
    Termination after `episode_length` pulls, because a learner should not bootstrap from a next state. By default each
    pull is an episode, so a config's lengths in episodes are numbers of pulls.

    ## Arguments
    `arms`, `reward`, `noise`, `prior`, `episode_length`.
    """

    arms: Annotated[int, Field(ge=2, le=2**20)] = 10
    reward: Literal["bernoulli", "gaussian"] = "bernoulli"
    noise: Annotated[float, Field(ge=0)] | None = None
    prior: Literal["uniform", "normal", "odd_arms"] = "uniform"
    episode_length: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        if self.reward == "bernoulli" and self.prior == "normal":
            raise ValueError("prior normal gives means outside [0, 1], not probabilities: use reward gaussian")
        if self.reward == "bernoulli" and self.noise is not None:
            raise ValueError(f"noise {self.noise} is for Gaussian rewards: leave it out, or use reward gaussian")

    @property
    def observation_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(1)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(self.arms)

    def make_vec(self, tasks: Tasks) -> "BanditVectorEnv":
        return BanditVectorEnv(self, tasks)

    def sample(self, num_tasks: int, seed: int) -> Tasks:
        """Draws means from `prior`; for `odd_arms`, from the prior of the training tasks."""
        rng = np.random.default_rng(seed)
        if self.prior == "normal":
            return Tasks({"mean": rng.standard_normal((num_tasks, self.arms))})
        mean = rng.random((num_tasks, self.arms))
        if self.prior == "odd_arms":
            odd_arms, odd_tasks = np.arange(self.arms) % 2 == 1, rng.random((num_tasks, 1)) < _ODD_SHARE
            mean = (mean + (odd_arms == odd_tasks)) / 2
        return Tasks({"mean": mean})

    def split(self, train: float, test: float, seed: int) -> tuple[Tasks, Tasks]:
        """Disjoint training and held-out tasks; with prior `odd_arms`, the held-out tasks are shifted.

        Every mean m of a held-out task becomes 1 - m, which is the prior with odd and even arms exchanged.
        """
        training, held_out = super().split(train, test, seed)
        if self.prior == "odd_arms":
            held_out = Tasks({"mean": 1 - held_out["mean"]})
        return training, held_out

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: the best arm's mean at every pull."""
        best: NDArray[np.float64] = self.episode_length * tasks["mean"].max(axis=1)
        return best

    def random_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: the mean of the arms' means at every pull."""
        mean: NDArray[np.float64] = self.episode_length * tasks["mean"].mean(axis=1)
        return mean

    def expected_rewards(self, tasks: Tasks, observation: NDArray[Any], action: NDArray[Any]) -> NDArray[np.float64]:
        """The mean of the arm of each pull."""
        return np.take_along_axis(tasks["mean"], action.astype(np.int64), axis=1)

    def draw(self, axes: Any, task: Tasks, observation: NDArray[Any], reward: NDArray[Any]) -> bool:
        """Draws the arms' means, the best one highlighted, and the episode's mean reward per pull."""
        mean = task["mean"][0]
        colors = np.where(mean == mean.max(), "#f59e0b", "#d1d5db")
        axes.bar(np.arange(self.arms), mean, color=list(colors), width=0.8)
        axes.axhline(0, color="#9ca3af", linewidth=0.6)
        if len(reward):
            axes.axhline(reward.mean(), color="#2563eb", linewidth=1.2, linestyle="--")
        axes.set(xticks=[0, self.arms - 1], xlim=(-0.6, self.arms - 0.4))
        if self.reward == "bernoulli":
            axes.set(yticks=[0, 1], ylim=(0, 1.05))
        axes.tick_params(labelsize=7, length=2)
        return True


class BanditVectorEnv(TaskVectorEnv):
    """Bandits with their own arms in every slot."""

    def __init__(self, bandit: Bandit, tasks: Tasks) -> None:
        super().__init__(len(tasks), bandit.observation_space, bandit.action_space, bandit.episode_length)
        mean = tasks["mean"]
        if mean.shape[1:] != (bandit.arms,):
            raise UserError(f"a task's mean has shape {mean.shape[1:]}, but the bandit has {bandit.arms} arms")
        if not np.isfinite(mean).all():
            raise UserError("a task's mean is not finite")
        if bandit.reward == "bernoulli" and ((mean < 0) | (mean > 1)).any():
            raise UserError("a mean lies outside [0, 1]: a Bernoulli bandit's means are probabilities")
        noise = _GAUSSIAN_NOISE if bandit.noise is None else bandit.noise
        self._noise = noise if bandit.reward == "gaussian" else None
        self._best = mean.argmax(axis=1)
        self._means = mean.ravel()
        self._first_arm = np.arange(self.num_envs) * bandit.arms

    def _restart(self, slots: NDArray[np.intp]) -> None:
        """Does nothing: there is only one state."""

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        mean = self._means.take(self._first_arm + actions)
        over = self.elapsed == self.episode_length - 1  # this pull is the last
        if self._noise is None:
            return (self.streams.uniform() < mean).astype(np.float32), over
        return (mean + self._noise * self.streams.normal()).astype(np.float32), over

    def _observe(self) -> NDArray[np.int64]:
        return np.zeros(self.num_envs, dtype=np.int64)

    def optimal_action(self) -> NDArray[np.int64]:
        """The arm with the highest mean."""
        return self._best.copy()
