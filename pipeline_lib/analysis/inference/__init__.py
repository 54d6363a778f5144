"""Statistical inference on sufficient statistics: no Spark, no visitor's own row."""
