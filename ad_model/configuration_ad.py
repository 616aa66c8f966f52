"""Config of the Algorithm Distillation transformer. It needs transformers alone, so that a checkpoint can carry it."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig


class ADConfig(PreTrainedConfig):
    """Spaces that the transformer reads and predicts, and the transformers backbone in between.

    Args:
        observation_space: a Gymnasium space as plain values: {"type": "MultiDiscrete", "nvec": [9, 9], ...}.
        action_space: likewise.
        context_length: length of the windows in training, in tokens, one per environment step.
        action_bins: bins that the range of each number of a Box action is cut into.
        reward_scale: divisor of rewards before they are compressed: their root mean square in training.
        observation_statistics: `mean` and `std` in training of every Box leaf of the observation space, by dotted path.
        backbone: the config of a transformers decoder as plain values, including `model_type`.
        heads: linear heads beside the policy head: the number of outputs per token, by name.

    A trained model's config also has `training_tasks`, a record of the tasks in its data, and `validation_tasks`, one
    of the tasks that choices were made on, if they are known.
    """

    model_type = "algorithm_distillation"

    def __init__(
        self,
        observation_space: dict[str, Any] | None = None,
        action_space: dict[str, Any] | None = None,
        context_length: int = 100,
        action_bins: int = 32,
        reward_scale: float = 1.0,
        observation_statistics: dict[str, dict[str, list[float]]] | None = None,
        backbone: dict[str, Any] | None = None,
        heads: dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        # transformers builds a config without arguments to find the values that differ from the defaults.
        self.observation_space = observation_space or {}
        self.action_space = action_space or {}
        self.context_length, self.action_bins, self.reward_scale = context_length, action_bins, reward_scale
        self.observation_statistics = observation_statistics or {}
        self.backbone = backbone or {"model_type": "llama"}
        self.heads = heads or {}
        super().__init__(**kwargs)

    def backbone_config(self) -> PreTrainedConfig:
        """The backbone's own config object."""
        return AutoConfig.for_model(**self.backbone)
