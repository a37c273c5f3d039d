"""Measured ratios: each benchmark runs ours and a naive reference in one process and checks that they agree."""
