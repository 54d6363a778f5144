import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hbase.HBaseConfiguration;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.BufferedMutator;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.ConnectionFactory;
import org.apache.hadoop.hbase.client.Put;

/** Puts the rows of bench/hbase.py with the Java client's buffered mutator; prints the seconds without its own start. */
public class HBaseLoad {
    public static void main(String[] args) throws Exception {
        Configuration conf = HBaseConfiguration.create();
        conf.set("hbase.zookeeper.quorum", args[0]);
        conf.set("hbase.zookeeper.property.clientPort", args[1]);
        int buckets = Integer.parseInt(args[4]);
        int rows = Integer.parseInt(args[5]);
        int columns = Integer.parseInt(args[6]);
        long start = Long.parseLong(args[7]);
        byte[] family = bytes(args[3]);
        byte[][] names = new byte[columns][];
        for (int i = 0; i < columns; i++) {
            names[i] = bytes("field_" + i);
        }
        Connection connection = ConnectionFactory.createConnection(conf);
        BufferedMutator mutator = connection.getBufferedMutator(TableName.valueOf(args[2]));
        long began = System.nanoTime();
        for (int n = 0; n < rows; n++) {
            byte[] id = bytes("event-" + String.format("%09d", new Object[] {Integer.valueOf(n)}));
            ByteBuffer key = ByteBuffer.allocate(9 + id.length);
            key.put((byte) (n % buckets * 256 / buckets)).putLong(start + n).put(id);
            Put put = new Put(key.array(), start);
            for (int i = 0; i < columns; i++) {
                put.addColumn(family, names[i], bytes("field_" + i + " of " + n % 997));
            }
            mutator.mutate(put);
        }
        mutator.close();
        System.out.println((System.nanoTime() - began) / 1e9);
        connection.close();
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
