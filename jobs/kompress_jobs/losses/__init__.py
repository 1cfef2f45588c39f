"""What a student imitates. The loss's name is the module; it looks either at scores or at features:

- `ON = "scores"`: `loss(student, teacher, targets, temperature) -> Tensor` of both logits, (batch, classes) or (batch, frames, tokens);
- `ON = "features"`: `loss(student, teacher) -> Tensor` of what one pair of layers gave, and, where the two must be made comparable
  by something that learns, `projector(student, teacher) -> nn.Module` for two such tensors.

Features are (batch, channels, ...) of convolutions and (batch, tokens, channels) of transformers (`distillation/taps.py`). All losses are
means over the batch, in float32. Of scores, `targets` are (batch,) class numbers, (batch, labels) bool where a sample may carry several,
or (batch, longest) transcripts; frames behind a clip's end do not count (`ctc.real`). What a loss can't do it refuses by MethodRefused.

To add one: its name in `DistillLoss` (`kompress_api/stages/distill.py`), a copy of `kd.py` (scores) or `attention.py` (features) under that
name, its paper in the docstring; its line below `examples/methods/`, and `make crds`. `test_every_loss_teaches` takes it through a stage.
One that has no meaning with mixed samples has its row in `training/refusals.py`, one with none for transcripts its line in `NO_MEANING` of
`tasks/speech_recognition.py`.
"""
