"""The protocol of an objective: which columns it needs, which heads the model gets, the loss, and how to act.

Each file of this folder is one objective: `optimal_action.py` has the class `OptimalAction`, and a config names it
`optimal_action`. A new objective changes no other file. Objectives are built whenever a config is read, so their files
import torch only for type checkers, or inside functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from ad_model.modeling_ad import ADModel, ADOutput


class Objective(ABC):
    """The base class of objectives. A subclass is a dataclass of its parameters, decorated with `icrl.component`.

    Axes: B windows, T steps of the context, F factors of an action, K values of a factor.
    """

    columns: ClassVar[tuple[str, ...]] = ("action",)
    """Columns of the histories that `loss` needs beside the tokens: `action`, `reward`, `terminated`, `truncated`, or
    `optimal_action`."""

    imitates: ClassVar[bool] = False
    """True if the model learns the sources' own actions, so that the data has to improve: reports then warn."""

    def heads(self) -> dict[str, int]:
        """Linear heads of the model beside the policy head: the number of outputs per token, by name."""
        return {}

    @abstractmethod
    def loss(self, model: Callable[..., ADOutput], tokens: Mapping[str, Any], columns: Mapping[str, Tensor]) -> Tensor:
        """The loss of a batch of windows, a scalar.

        Args:
            model: the transformer, possibly wrapped for several processes. Call it and read the output, nothing else.
            tokens: keyword arguments of the model, (B, T, ...).
            columns: the columns of the histories that the objective needs, by name, (B, T, ...).
        """

    def act(
        self,
        model: ADModel,
        logits: Tensor,
        heads: Mapping[str, Tensor],
        uniform: Tensor,
        temperature: float,
    ) -> Tensor:
        """The actions, (B, ...), for the last step of each context. By default, samples from the policy head.

        Args:
            model: the frozen transformer.
            logits: (B, F, K) outputs of the policy head.
            heads: (B, outputs) outputs of the objective's own heads, by name.
            uniform: (B, F) random numbers in [0, 1).
            temperature: `evaluation.temperature`; 0 takes the best action.
        """
        return model.sample(logits, uniform, temperature)
