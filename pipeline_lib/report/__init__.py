"""Results as pages that stand alone: one HTML file an experiment, and an index."""
