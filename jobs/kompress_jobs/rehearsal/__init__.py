"""Every stage once without training, before anything runs: does it work, how large will its model be, what memory does it take."""
