"""HBase: two clusters, Prod and Loki, that hold the same rows of a topic's events."""
