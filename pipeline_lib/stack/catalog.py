"""Every server of the stack, by name."""

from pipeline_lib.stack.druid import BROKER, COORDINATOR, HISTORICAL, INDEXER, ZOOKEEPER
from pipeline_lib.stack.hbase import LOKI, PROD, THRIFT_LOKI, THRIFT_PROD
from pipeline_lib.stack.hdfs import DATANODE, NAMENODE
from pipeline_lib.stack.kafka import KAFKA
from pipeline_lib.stack.s3 import S3PROXY
from pipeline_lib.stack.server import Server

SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        KAFKA,
        NAMENODE,
        DATANODE,
        S3PROXY,
        PROD,
        THRIFT_PROD,
        LOKI,
        THRIFT_LOKI,
        ZOOKEEPER,
        COORDINATOR,
        BROKER,
        HISTORICAL,
        INDEXER,
    )
}
