"""Kafka's record batches, decoded in bulk into Arrow."""
