import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;

/** Yours to write. */
final class Work {
    private static final Gson GSON = new Gson().newBuilder().serializeNulls().create();
    private static final byte[] EMPTY = {};

    /**
     * Returns the result or throws: Terminate, RetryAfter or any other exception, which is a failed try. The thread is
     * interrupted at the deadline, and when the bridge says that the reply will not be used. This one does what the
     * payload says, so that tests can ask for each outcome (docs/conformance.md has them all): {"do": "fail", "error": "no
     * such mailbox"}. A payload that gives no order it knows is a success.
     */
    static byte[] work(Call call) throws Exception {
        JsonObject order = readOrder(call.payload());
        String text = order.has("error") ? string(order.get("error")) : "failed";
        Duration pause = Duration.ofMillis(number(order, "ms"));
        switch (order.has("do") ? string(order.get("do")) : "") {
            case "fail":
                throw new Exception(text);
            case "fail_once":
                if (call.attempt() == 1) {
                    throw new Exception(text);
                }
                break;
            case "retry_after":
                if (call.attempt() == 1) {
                    throw new Call.RetryAfter(text, pause);
                }
                break;
            case "unicode_error":
                throw new Exception("dépassé ☃ 😀"); // header text is UTF-8
            case "terminate":
                throw new Call.Terminate(text);
            case "both":
                call.reply().put("AJ-Error", "not this one");
                throw new Call.Terminate(text);
            case "case":
                call.reply().put("aj-error", text);
                return EMPTY;
            case "crash":
                Runtime.getRuntime().halt(1);
                break;
            case "empty":
                return EMPTY;
            case "big":
                byte[] big = new byte[number(order, "bytes")];
                Arrays.fill(big, (byte) 'x');
                return big;
            case "echo":
                return call.payload();
            case "binary":
                byte[] all = new byte[256];
                for (int each = 0; each < all.length; each++) {
                    all[each] = (byte) each;
                }
                return all;
            case "sleep":
                Thread.sleep(pause.toMillis()); // interrupted at the deadline; the bridge waits a little longer than it says
                break;
            case "cancel":
                Thread.sleep(Integer.MAX_VALUE);
                break;
            case "late":
                try {
                    Thread.sleep(Integer.MAX_VALUE);
                } catch (InterruptedException err) {
                    Thread.sleep(pause.toMillis());
                }
                break;
            case "heartbeat":
                for (long end = System.nanoTime() + pause.toNanos(); System.nanoTime() - end < 0;) {
                    call.heartbeat();
                    Thread.sleep(Math.max(number(order, "every_ms"), 1));
                }
                break;
            case "progress":
                int steps = Math.max(number(order, "steps"), 1);
                for (int step = 1; step <= steps; step++) {
                    Thread.sleep(pause.toMillis());
                    call.progress((double) step / steps, "step " + step + " of " + steps);
                }
                break;
            case "headers":
                JsonObject task = new JsonObject();
                task.add("headers", GSON.toJsonTree(call.asked()));
                task.addProperty("id", call.id());
                task.addProperty("type", call.type());
                task.addProperty("tries", call.tries());
                return bytes(task);
            case "deadline":
                JsonObject seen = new JsonObject();
                seen.addProperty("deadline", call.asked("AJ-Handler-Deadline"));
                String timeout = call.asked("AJ-Handler-Timeout-Ms");
                seen.addProperty("timeout_ms", timeout == null ? null : Long.valueOf(timeout));
                seen.addProperty("content_type", call.asked("AJ-Content-Type"));
                seen.addProperty("protocol", call.asked("AJ-Protocol"));
                seen.addProperty("invocation", call.asked("AJ-Invocation"));
                return bytes(seen);
            default:
        }
        JsonObject result = new JsonObject();
        result.addProperty("handler", "java");
        result.addProperty("id", call.id());
        result.addProperty("try", call.attempt());
        return bytes(result);
    }

    private static JsonObject readOrder(byte[] payload) throws Call.Terminate {
        if (payload.length == 0) {
            return new JsonObject();
        }
        try {
            String text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(payload)).toString();
            JsonElement order = JsonParser.parseString(text);
            if (order.isJsonNull()) {
                return new JsonObject();
            }
            if (order.isJsonObject()) {
                return order.getAsJsonObject();
            }
            throw new Call.Terminate("payload is not a JSON object");
        } catch (JsonParseException | CharacterCodingException err) {
            throw new Call.Terminate("payload is not a JSON object: " + err.getMessage());
        }
    }

    /** As large as a timer of any language can be; 0 where there is no number. */
    private static int number(JsonObject order, String name) {
        JsonElement value = order.get(name);
        boolean there = value != null && value.isJsonPrimitive() && value.getAsJsonPrimitive().isNumber();
        return there ? (int) Math.min(value.getAsLong(), Integer.MAX_VALUE) : 0;
    }

    private static String string(JsonElement value) {
        return value.isJsonPrimitive() ? value.getAsString() : value.toString();
    }

    private static byte[] bytes(JsonObject value) {
        return GSON.toJson(value).getBytes(StandardCharsets.UTF_8);
    }
}
