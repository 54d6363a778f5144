"""Every server of the stack, by name."""

from pipeline_lib.stack.hdfs import DATANODE, NAMENODE
from pipeline_lib.stack.kafka import KAFKA
from pipeline_lib.stack.s3 import S3PROXY
from pipeline_lib.stack.server import Server

SERVERS: dict[str, Server] = {server.name: server for server in (KAFKA, NAMENODE, DATANODE, S3PROXY)}
