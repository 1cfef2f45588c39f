"""`kompress run`: the operator's own `reconcile` with processes of this machine in place of pods."""
