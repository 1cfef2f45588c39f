"""What a task decides: preprocessing, augmentation, loss, metrics. The task's name is the module.

Its `DRAWS` says which augmentations it has, and how many random numbers each takes a sample; with 0 every epoch sees the same.
"""
