"""Scripts that run once per release: `python -m tools.train_mini`."""
