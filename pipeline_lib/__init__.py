"""Lode: land Kafka topics on HDFS, archive them on S3, replay date ranges when a store is lost."""
