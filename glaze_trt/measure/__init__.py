"""What a finished picture costs, in numbers, and what ordinary handling makes of it.

Nothing here has a gradient; the forms that have one are in `graph`. All measures together are in `evaluate`.
"""
