"""The protocol of an objective: which columns it needs, which heads the model gets, the loss, and how to act.

A file of this folder is an objective by its name: `optimal_action.py` has the class `OptimalAction`, and a config names
it `optimal_action`. Nothing else has to be touched. Objectives are built whenever a config is read, so that their files
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
    """A subclass is a component: a dataclass of its parameters, decorated with `icrl.component`.

    Axes: B windows, T steps of the context, F factors of an action, K values of a factor.
    """

    columns: ClassVar[tuple[str, ...]] = ("action",)
    """Columns of the histories that `loss` needs beside the tokens: `action`, `reward`, `terminated`, `truncated`, or
    `optimal_action`."""

    def heads(self) -> dict[str, int]:
        """Linear heads that the model gets beside the policy head: by name, the number of outputs per token."""
        return {}

    @abstractmethod
    def loss(self, model: Callable[..., ADOutput], tokens: Mapping[str, Any], columns: Mapping[str, Tensor]) -> Tensor:
        """The loss of a batch of windows, a scalar.

        Args:
            model: the transformer, possibly wrapped for several processes: call it, and read the output.
            tokens: keyword arguments of the model, (B, T, ...).
            columns: by name, the columns that the objective asks for, (B, T, ...).
        """

    def act(
        self,
        model: ADModel,
        logits: Tensor,
        heads: Mapping[str, Tensor],
        uniform: Tensor,
        temperature: float,
    ) -> Tensor:
        """Actions for the last step of each context; here samples from the policy head.

        Args:
            model: the frozen transformer.
            logits: (B, F, K) of the policy head.
            heads: by name, (B, outputs) of the objective's own heads.
            uniform: (B, F) random numbers in [0, 1).
            temperature: of `evaluation.temperature`; 0 takes the best action.
        """
        return model.sample(logits, uniform, temperature)
