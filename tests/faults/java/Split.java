import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hbase.HBaseConfiguration;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Admin;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.ConnectionFactory;
import org.apache.hadoop.hbase.util.Bytes;

/** Says "ready", waits for a line, splits a table at each of the given keys (hexadecimal), prints its regions. */
public class Split {
    public static void main(String[] args) throws Exception {
        Configuration conf = HBaseConfiguration.create();
        conf.set("hbase.zookeeper.quorum", args[0]);
        conf.set("hbase.zookeeper.property.clientPort", args[1]);
        Connection connection = ConnectionFactory.createConnection(conf);
        Admin admin = connection.getAdmin();
        TableName table = TableName.valueOf(args[2]);
        int regions = admin.getRegions(table).size();
        System.out.println("ready " + regions);
        System.in.read();
        for (int i = 3; i < args.length; i++) {
            admin.split(table, Bytes.fromHex(args[i]));
            regions++;
            // a region in transition shows as none or as two: whole again is when all are there
            while (admin.getRegions(table).size() != regions) {
                Thread.sleep(50);
            }
        }
        System.out.println("split " + admin.getRegions(table).size());
        connection.close();
    }
}
