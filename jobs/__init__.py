"""Spark jobs, one file an edge of the flow; each runs under spark-submit."""
