"""What a stage's result is called before it is made: keys, fingerprints, the code's version; and the plan that holds them."""
