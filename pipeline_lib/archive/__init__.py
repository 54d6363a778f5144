"""Kafka -> S3: a topic's archive table, its segments, commits and verification."""
