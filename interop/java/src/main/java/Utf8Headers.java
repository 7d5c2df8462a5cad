import io.nats.client.impl.Headers;
import io.nats.client.support.ByteArrayBuilder;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** Headers of a reply with any text in them: the client's own refuse all that is not ASCII, the protocol is UTF-8. */
final class Utf8Headers extends Headers {
    private final byte[] serialized;

    Utf8Headers(Map<String, String> headers) {
        StringBuilder text = new StringBuilder("NATS/1.0\r\n");
        headers.forEach((name, value) -> text.append(name).append(':').append(value).append("\r\n"));
        serialized = text.append("\r\n").toString().getBytes(StandardCharsets.UTF_8);
    }

    @Override
    public boolean isEmpty() {
        return false;
    }

    /** So that the client takes these as they are. */
    @Override
    public boolean isReadOnly() {
        return true;
    }

    @Override
    public int serializedLength() {
        return serialized.length;
    }

    @Override
    public byte[] getSerialized() {
        return serialized.clone();
    }

    @Override
    public ByteArrayBuilder appendSerialized(ByteArrayBuilder builder) {
        return builder.append(serialized);
    }

    @Override
    public int serializeToArray(int position, byte[] target) {
        System.arraycopy(serialized, 0, target, position, serialized.length);
        return serialized.length;
    }
}
