"""Gradient rules."""
