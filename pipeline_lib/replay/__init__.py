"""S3 -> a sink: archived records of a span are emitted again. One module a sink."""
