"""The explorer: type a keyword, see the clusters."""
