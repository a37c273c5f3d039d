"""Run the notebooks and collect their outputs in a gallery."""
