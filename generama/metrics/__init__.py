"""Numbers about generated pictures: features, distances between them, classes, likelihood, memorisation."""
