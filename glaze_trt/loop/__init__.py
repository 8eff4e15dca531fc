"""One picture's way through the compiled loop: where its features shall go, and how long the change may be.

The graph that the loop repeats is made in `graph`, and pictures too large for it are cut up in `large`.
"""
