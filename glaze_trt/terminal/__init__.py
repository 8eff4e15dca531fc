"""What a person at a terminal is told, and their Ctrl-C. No commands, and no work."""
