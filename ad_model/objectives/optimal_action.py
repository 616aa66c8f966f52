"""Prediction of optimal actions: supervised pretraining of the Decision-Pretrained Transformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ad_model.objectives.base import Objective
from icrl.config.components import component

if TYPE_CHECKING:
    from torch import Tensor

    from ad_model.modeling_ad import ADOutput


@component
class OptimalAction(Objective):
    """Predicts the optimal action of every step, whatever the source did (DPT, Lee et al. 2023, section 3).

    `data.optimal_actions: true` records the labels; the context holds the actions that were taken. The histories need
    not improve. Two differences from the paper: every step of the context has a label, and the steps of the context
    are in temporal order.
    """

    columns = ("optimal_action",)

    def loss(self, model: Callable[..., ADOutput], tokens: Mapping[str, Any], columns: Mapping[str, Tensor]) -> Tensor:
        loss = model(**tokens, action=columns["optimal_action"]).loss
        assert loss is not None
        return loss
