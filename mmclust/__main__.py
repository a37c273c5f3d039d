"""`python -m mmclust`: a list of the commands."""

print("python run_all.py, or python -m mmclust.data, mmclust.words or mmclust.storage; see --help")
