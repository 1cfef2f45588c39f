"""What a student imitates. The loss's name is the module; it looks either at scores or at features:

- `ON = "scores"`: `loss(student, teacher, targets, temperature) -> Tensor` of both logits, (batch, classes) or (batch, frames, tokens);
- `ON = "features"`: `loss(student, teacher) -> Tensor` of what one pair of layers gave, and, where the two must be made comparable
  by something that learns, `projector(student, teacher) -> nn.Module` for two such tensors.

Features are (batch, channels, ...) of convolutions and (batch, tokens, channels) of transformers (`training/taps.py`). All losses are
means over the batch, in float32.
"""
