"""What a student imitates. The loss's name is the module, with `loss(student, teacher, temperature) -> Tensor`."""
