"""Numbers about fitted models and their samples."""
