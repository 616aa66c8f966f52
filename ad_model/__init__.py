"""Learning histories -> a trained transformer. Importing this package registers the model with transformers."""

from transformers import AutoConfig, AutoModel

from ad_model.configuration_ad import ADConfig
from ad_model.modeling_ad import ADModel

AutoConfig.register(ADConfig.model_type, ADConfig)
AutoModel.register(ADConfig, ADModel)

__all__ = ["ADConfig", "ADModel"]
