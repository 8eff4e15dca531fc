"""Progress against seconds: the published Glaze recipe in PyTorch and this project, on the same pairs in one run."""
