"""The trainer and what a run of it is made of."""
