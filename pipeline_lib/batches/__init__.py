"""The batch protocol, shared by every job that follows Kafka: what a batch reads, and the loop from plan to commit."""
