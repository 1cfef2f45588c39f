"""Speed and memory, each as a ratio to a named peer measured in the same run:  make perf

These machines are small and noisy, so nothing here is a test and no absolute time decides: a scenario is run in at least
seven interleaved pairs (ours, the peer's, ours, ...), and a goal holds when the 95 % interval of the ratio reaches it. What a stage
of the product measures itself, interleaved too, is a row with the interval that it told.
"""
