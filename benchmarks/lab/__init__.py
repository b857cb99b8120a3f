"""The lab: a small synthetic tool-use world, and models that reinforcement learning damaged in it.

`python -m benchmarks.lab NAME` trains a checkpoint, `... cases` writes the held-out cases,
`... card NAME` measures a checkpoint, `... figure` draws the curves. See README.md.
"""
