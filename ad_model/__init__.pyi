from ad_model.configuration_ad import ADConfig as ADConfig
from ad_model.modeling_ad import ADModel as ADModel
