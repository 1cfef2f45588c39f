"""The kinds of stage: each module has `run(context) -> StageOutput`."""
