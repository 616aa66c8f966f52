"""Learning histories -> a trained transformer.

`ADConfig` and `ADModel` are imported, and registered with transformers, at the first use of either: reading a config
that names an objective imports this package, and must not import torch.
"""

from typing import Any

__all__ = ["ADConfig", "ADModel"]


def __getattr__(name: str) -> Any:
    """Imports the model's classes when one of them is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'ad_model' has no attribute {name!r}")
    from transformers import AutoConfig, AutoModel

    from ad_model.configuration_ad import ADConfig
    from ad_model.modeling_ad import ADModel

    AutoConfig.register(ADConfig.model_type, ADConfig, exist_ok=True)
    AutoModel.register(ADConfig, ADModel, exist_ok=True)
    globals().update(ADConfig=ADConfig, ADModel=ADModel)
    return globals()[name]
