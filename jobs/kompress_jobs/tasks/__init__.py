"""What a task decides: preprocessing, augmentation, loss, metrics. The task's name is the module."""
