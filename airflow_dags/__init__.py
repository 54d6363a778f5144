"""When Lode's jobs run: one module a DAG, each a few lines. Nothing here imports Spark or a client of a server."""
