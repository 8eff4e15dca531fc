"""One optimisation step as a static graph: what extractors see, the terms, the update. Nothing is run here."""
