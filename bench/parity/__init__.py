"""Gradient parity: the engine's gradient of an exported graph against torch's autograd of the module it came from."""
