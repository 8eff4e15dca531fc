"""One step's time: a gradient or the whole update, in PyTorch's forms, by the rival road and in our engines."""
