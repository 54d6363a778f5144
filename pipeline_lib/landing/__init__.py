"""Kafka -> HDFS: a topic's events table."""
