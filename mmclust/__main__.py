"""`python -m mmclust`: a list of the commands."""

print("python run_all.py, or python -m mmclust.storage; see --help")
