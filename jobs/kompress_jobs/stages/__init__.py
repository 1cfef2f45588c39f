"""The kinds of stage: each module has

- `run(context) -> StageOutput`, which works at a `Bench` (`bench.py`),
- `rehearse(stage, inputs, room, field) -> Loaded`, which refuses by field path what can't work and gives a model of the structure that
  the stage would make, and `bounds` where its size depends on the weights (both: `rehearsal/rehearse.py`).

`preflight` and `report` stand around a user's stages: they have `run(stage, scratch, events) -> StageSuccess` alone.
"""
