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

    The labels are recorded with `data.optimal_actions: true`; the context holds the actions that were taken. The data
    need not improve. Unlike the paper, every step of the context has a label, and the context is a lifetime in its
    order.
    """

    columns = ("optimal_action",)

    def loss(self, model: Callable[..., ADOutput], tokens: Mapping[str, Any], columns: Mapping[str, Tensor]) -> Tensor:
        loss = model(**tokens, action=columns["optimal_action"]).loss
        assert loss is not None
        return loss
