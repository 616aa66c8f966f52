"""The earlier place of `TransformerAgent`, which model cards of earlier versions import."""

from ad_model.in_context import TransformerAgent

__all__ = ["TransformerAgent"]
