import io.nats.client.impl.SocketDataPort;
import java.io.IOException;

/**
 * A connection on which header text that is not ASCII comes as question marks.
 *
 * <p>The client (2.25.1) can't read such a header: its reading thread ends, and nothing more is heard until the pings fail.
 * So one request of a stranger would silence a handler.
 */
public final class PlainHeadersPort extends SocketDataPort {
    private static final int LONGEST_LINE = 8192; // of those that announce a message; the server allows 4096

    private final StringBuilder line = new StringBuilder();
    private long headers; // bytes that are left of a message's headers
    private long payload; // and of its payload, with the line break after it

    @Override
    public int read(byte[] target, int offset, int length) throws IOException {
        int count = super.read(target, offset, length);
        for (int at = offset; at < offset + count; at++) {
            if (headers > 0) {
                headers--;
                target[at] = target[at] < 0 ? (byte) '?' : target[at];
            } else if (payload > 0) {
                long rest = Math.min(payload, offset + count - at);
                payload -= rest;
                at += (int) rest - 1;
            } else if (target[at] == '\n') {
                announced(line.toString().trim().split("[ \t]+"));
                line.setLength(0);
            } else if (line.length() < LONGEST_LINE) {
                line.append((char) (target[at] & 0xff));
            }
        }
        return count;
    }

    private void announced(String[] words) {
        if (words[0].equalsIgnoreCase("HMSG")) { // HMSG subject sid [reply] bytes-of-headers bytes
            headers = Long.parseLong(words[words.length - 2]);
            payload = Long.parseLong(words[words.length - 1]) - headers + 2;
        } else if (words[0].equalsIgnoreCase("MSG")) { // MSG subject sid [reply] bytes
            payload = Long.parseLong(words[words.length - 1]) + 2;
        }
    }
}
