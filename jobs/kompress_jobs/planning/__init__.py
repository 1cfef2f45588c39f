"""What can be told before anything runs: whether it works, what it is called, how large it will be, what memory it takes."""
