"""One step's time: value and input gradient (or the whole update) in PyTorch's forms, the rival road and our engines."""
