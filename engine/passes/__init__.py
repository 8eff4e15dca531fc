"""Graph to graph: canonical form, folding and fusion, hygiene, and what engines need at the end."""
