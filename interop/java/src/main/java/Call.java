import com.google.gson.Gson;
import com.google.gson.JsonSyntaxException;
import io.nats.client.Connection;
import io.nats.client.impl.Headers;
import io.nats.service.ServiceMessage;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.format.DateTimeParseException;
import java.time.temporal.ChronoUnit;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;

/** One call of the handler, from the request to the reply. */
public final class Call {
    /** Thrown for what no further try can mend. Any other exception is a failed try. */
    public static final class Terminate extends Exception {
        private static final long serialVersionUID = 1L;

        public Terminate(String text) {
            super(text);
        }
    }

    /** Thrown when the handler itself says when to try again. */
    public static final class RetryAfter extends Exception {
        private static final long serialVersionUID = 1L;
        private final Duration delay;

        public RetryAfter(String text, Duration delay) {
            super(text);
            this.delay = delay;
        }
    }

    /** What this handler needs of the request's JSON: there are more keys, and new ones will come. */
    private static final class Task {
        String id;
        String type;
        int tries; // counted before the call, so 1 the first time
        String payload;
    }

    private static final Gson GSON = new Gson();
    private static final byte[] EMPTY = {};
    private static final Map<String, Call> RUNNING = new ConcurrentHashMap<>(); // by their cancel subjects
    private static final ScheduledExecutorService TIMER = Executors.newSingleThreadScheduledExecutor(work -> {
        Thread thread = new Thread(work, "timer");
        thread.setDaemon(true);
        return thread;
    });

    private final Connection nc;
    private final ServiceMessage request;
    private final Headers asked;
    private final Map<String, String> reply = new LinkedHashMap<>();
    private final Thread thread = Thread.currentThread(); // a call is made where it runs
    private final Long timeout; // milliseconds; null where the request does not say
    private long deadline; // of System.nanoTime
    private ScheduledFuture<?> alarm;
    private String reason; // why the work was interrupted
    private boolean over;
    private Task task = new Task();
    private byte[] payload = EMPTY;

    Call(Connection nc, ServiceMessage request, long arrived) {
        this.nc = nc;
        this.request = request;
        this.asked = request.hasHeaders() ? request.getHeaders() : new Headers();
        // Of the two deadlines the relative one is better, as it needs no agreement about the time of day. A caller that
        // sends none is not the bridge.
        this.timeout = number("AJ-Handler-Timeout-Ms");
        this.deadline = arrived + TimeUnit.MILLISECONDS.toNanos(timeout != null ? timeout : untilDeadline());
    }

    public String id() {
        return task.id;
    }

    public String type() {
        return task.type;
    }

    /** The payload, empty when there is none. */
    public byte[] payload() {
        return payload;
    }

    /** The number of this try, 1 for the first. */
    public long attempt() {
        Long told = number("AJ-Task-Try");
        return told == null ? task.tries : told; // a Go worker does not send that header
    }

    /** How often the task was tried, this time too, as its record says. */
    public int tries() {
        return task.tries;
    }

    /** All headers of the request. */
    public Map<String, String> asked() {
        Map<String, String> all = new LinkedHashMap<>();
        asked.forEach((name, values) -> all.put(name, values.get(0)));
        return all;
    }

    /** A header of the request, whatever the case of its name; null when it has none. */
    public String asked(String name) {
        List<String> values = asked.getIgnoreCase(name);
        return values == null || values.isEmpty() || values.get(0).isEmpty() ? null : values.get(0);
    }

    /** Headers of the reply beside those that an exception makes; you will hardly need it. */
    public Map<String, String> reply() {
        return reply;
    }

    /**
     * Tells how much is done, 0 to 1, and moves the deadline: there is the whole time again. The note may be empty. A
     * caller that takes no interim replies is told nothing.
     */
    public synchronized void progress(double share, String note) {
        if (timeout == null || number("AJ-Heartbeat-Ms") == null || over) {
            return;
        }
        deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(timeout);
        setAlarm();
        byte[] body = note.isEmpty() ? EMPTY : GSON.toJson(Map.of("note", note)).getBytes(StandardCharsets.UTF_8);
        interim(String.format(Locale.ROOT, "%.6f", Math.min(Math.max(share, 0), 1)), body);
    }

    /** Proves that we live, beside the heartbeats that are sent anyway. */
    public void heartbeat() {
        if (number("AJ-Heartbeat-Ms") != null) {
            interim("", EMPTY);
        }
    }

    /** Sends a reply that is not the last one: an empty share only proves that we live. */
    private synchronized void interim(String share, byte[] body) {
        if (!over) {
            request.respond(nc, body, new Headers().add("AJ-Progress", share));
        }
    }

    /** Ends a call whose reply will not be used. */
    static void cancel(String subject) {
        Call call = RUNNING.get(subject);
        if (call != null) {
            call.interrupt("cancelled");
        }
    }

    private synchronized void interrupt(String why) {
        if (!over && reason == null) {
            reason = why;
            thread.interrupt();
        }
    }

    private synchronized void setAlarm() {
        if (alarm != null) {
            alarm.cancel(false);
        }
        alarm = TIMER.schedule(() -> interrupt("deadline"), deadline - System.nanoTime(), TimeUnit.NANOSECONDS);
    }

    /** Lets the work be done, and replies. */
    void answer() {
        String cancelSubject = asked("AJ-Cancel-Subject");
        if (cancelSubject != null) {
            RUNNING.put(cancelSubject, this);
        }
        Long every = number("AJ-Heartbeat-Ms");
        ScheduledFuture<?> beat = null;
        if (every != null && every > 0) {
            // Twice as often as it is wanted. Only from then on, so that a short task costs no message more.
            long half = TimeUnit.MILLISECONDS.toMicros(every) / 2;
            beat = TIMER.scheduleAtFixedRate(() -> interim("", EMPTY), half, half, TimeUnit.MICROSECONDS);
        }
        byte[] result = EMPTY;
        try {
            result = result();
            long limit = nc.getMaxPayload();
            if (result.length > limit) { // it could not be sent now nor on any later try: say so, once
                throw new Terminate("result of " + result.length + " bytes, but max_payload is " + limit);
            }
        } catch (Throwable err) { // one broken task must not end the process, with all the others in hand
            result = EMPTY;
            fail(err);
        }
        synchronized (this) {
            over = true;
            alarm = alarm == null || alarm.cancel(false) ? null : alarm;
        }
        Thread.interrupted(); // it was for this call only
        if (beat != null) {
            beat.cancel(false);
        }
        if (cancelSubject != null) {
            RUNNING.remove(cancelSubject);
        }
        try {
            request.respond(nc, result, reply.isEmpty() ? null : new Utf8Headers(reply));
        } catch (RuntimeException err) {
            System.err.println("reply not sent, the task will be tried again: " + err.getMessage());
        }
    }

    private byte[] result() throws Exception {
        try {
            task = GSON.fromJson(new String(request.getData(), StandardCharsets.UTF_8), Task.class);
            if (task == null || task.id == null || task.id.isEmpty()) {
                throw new IllegalArgumentException("no id");
            }
            payload = task.payload == null ? EMPTY : Base64.getDecoder().decode(task.payload);
        } catch (JsonSyntaxException | IllegalArgumentException err) {
            throw new Terminate("request is not a task in JSON: " + err.getMessage());
        }
        if (deadline - System.nanoTime() <= 0) { // too late to begin: the next try may be running already
            throw new Exception("deadline");
        }
        setAlarm();
        return Work.work(this);
    }

    /** Sets the headers that tell of a failure. */
    private synchronized void fail(Throwable err) {
        String text = err instanceof InterruptedException && reason != null ? reason : String.valueOf(err.getMessage());
        text = text.replaceAll("[\r\n\0]", " "); // a header is one line, and not too long
        text = text.substring(0, text.offsetByCodePoints(0, Math.min(text.codePointCount(0, text.length()), 4000)));
        text = text.isEmpty() ? "failed" : text; // a Go worker misreads an empty one
        reply.put(err instanceof Terminate ? "AJ-Terminate" : "AJ-Error", text);
        // Use our additions only where the request offers them.
        if (err instanceof RetryAfter later && asked("AJ-Protocol") != null) {
            reply.put("AJ-Retry-After-Ms", String.valueOf(later.delay.toMillis()));
        }
    }

    private Long number(String header) {
        try {
            String text = asked(header);
            return text == null ? null : Long.valueOf(text);
        } catch (NumberFormatException err) {
            return null;
        }
    }

    private long untilDeadline() {
        try {
            String text = asked("AJ-Handler-Deadline");
            return text == null ? TimeUnit.DAYS.toMillis(1) : Instant.now().until(Instant.parse(text), ChronoUnit.MILLIS);
        } catch (DateTimeParseException err) {
            return TimeUnit.DAYS.toMillis(1);
        }
    }
}
