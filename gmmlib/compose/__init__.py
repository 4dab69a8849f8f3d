"""Models made of models: stacks and classifiers."""
