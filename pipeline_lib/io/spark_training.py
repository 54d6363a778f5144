"""A small job that loads what Lode's jobs load: Delta, Parquet, shuffles, windows, Python workers on Arrow."""

import sys
from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F


def main(folder: str) -> None:
    spark = SparkSession.builder.appName("training").getOrCreate()
    frame = spark.range(1000).select(
        "id", (F.col("id") % 7).cast("string").alias("part"), F.current_timestamp().alias("at")
    )
    for _ in range(2):
        frame.write.format("delta").mode("overwrite").partitionBy("part").save(f"file://{folder}/table")
    rows = spark.read.format("delta").load(f"file://{folder}/table").where("part = '3'")
    nth = F.row_number().over(Window.partitionBy("part").orderBy("id"))
    rows.withColumn("nth", nth).groupBy("part").agg(F.count("*"), F.countDistinct("id"), F.max("nth")).collect()
    rows.join(frame.groupBy("part").agg(F.sum("id")), "part").collect()
    frame.select("id").mapInArrow(same, "id bigint").count()
    spark.sparkContext.parallelize([1, 2], 2).map(str).collect()
    spark.stop()


def same(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from batches


if __name__ == "__main__":
    main(sys.argv[1])
