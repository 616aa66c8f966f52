"""Imitation of the sources: Algorithm Distillation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ad_model.objectives.base import Objective
from icrl.config.components import component

if TYPE_CHECKING:
    from torch import Tensor

    from ad_model.modeling_ad import ADOutput


@component
class Imitation(Objective):
    """Predicts the action that the source took next (Laskin et al. 2022, equation 1).

    The histories have to improve: the transformer learns to improve as its sources did. With experts as sources, this
    is Expert Distillation.
    """

    columns = ("action",)
    imitates = True

    def loss(self, model: Callable[..., ADOutput], tokens: Mapping[str, Any], columns: Mapping[str, Tensor]) -> Tensor:
        loss = model(**tokens, action=columns["action"]).loss
        assert loss is not None
        return loss
