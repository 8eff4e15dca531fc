"""Many pictures in one run: found, planned, cloaked stage by stage, noted, gone on with; the door is `run`.

What is done to one picture in the loop is in `loop`, and what a person is told in `terminal`.
"""
