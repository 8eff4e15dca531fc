"""Measurements of glaze-trt against PyTorch, side by side in one run.

Three commands, each with its own package: `python -m bench.parity` (are the gradients those of torch?),
`python -m bench.step` (how long is one step?) and `python -m bench.quality` (what does a cloak reach, and when?).
Nothing here is imported by the product, and nothing here needs a path of one machine: weights are given by option,
and where none are given seeded ones stand in, which cost the same to run.
"""
