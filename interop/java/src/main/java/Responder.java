import io.nats.client.Connection;
import io.nats.client.ConnectionListener;
import io.nats.client.Dispatcher;
import io.nats.client.ErrorListener;
import io.nats.client.Nats;
import io.nats.client.Options;
import io.nats.client.support.JsonValueUtils;
import io.nats.service.Service;
import io.nats.service.ServiceEndpoint;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * A complete job handler in Java: the official NATS client, a reader of JSON and this folder, nothing else.
 *
 * <p>The bridge sends each task as an ordinary NATS request and takes the reply as its outcome:
 *
 * <pre>
 *   a body, no header     complete; the body is the result, stored byte for byte (it may be empty)
 *   header AJ-Error       failed, to be tried again; people will read the text in the task
 *   header AJ-Terminate   failed for good, no more tries
 *   no reply in time      a failed try as well, but a slow one that tells nobody why
 * </pre>
 *
 * <p>This file is the process: connection, queue group, orderly stop. Call.java is one request: deadline, heartbeats,
 * progress, cancelling, reply headers. Copy both as they are; the job itself is in Work.java.
 */
public final class Responder {
    private static volatile boolean ready;
    private static volatile boolean stopping;

    public static void main(String[] args) throws Exception {
        String type = System.getenv().getOrDefault("AJ_TYPE", "email:new");
        String subject = setting("AJ_SUBJECT", "CHORIA_AJ.H.T." + (type.isEmpty() ? "catchall" : type));

        // Wait for a server that is not there yet, come back for ever to one that went away, notice a dead link in about
        // a minute. Only a login that is refused twice closes the connection; then end, so that somebody sees it.
        Options options = new Options.Builder()
                .server(setting("NATS_URL", Options.DEFAULT_URL))
                .maxReconnects(-1)
                .reconnectWait(Duration.ofMillis(500))
                .pingInterval(Duration.ofSeconds(20))
                .dataPortType(PlainHeadersPort.class.getName())
                .connectionListener(Responder::heed)
                .errorListener(new Complaints(subject))
                .build();
        Connection nc = Nats.connectReconnectOnConnect(options);

        // The client makes this call for one message after another, so it only notes the time and steps aside. 64 are
        // worked on at once.
        ExecutorService slots = Executors.newFixedThreadPool(64);
        AtomicInteger running = new AtomicInteger();
        // One subscription hears of all calls that are not wanted any more; each knows its own subject.
        Dispatcher cancels = nc.createDispatcher(message -> Call.cancel(message.getSubject()));
        cancels.subscribe("CHORIA_AJ.CI.*");
        // A NATS micro service is what `nats micro ls` finds. A service and its endpoints may not
        // be named `email:new`, so the type stands in the metadata.
        Service service = Service.builder()
                .connection(nc)
                .name("aj-handler")
                .version("1.0.0")
                .description("handles tasks")
                .metadata(Map.of("aj.language", "java", "aj.client", "jnats " + Nats.CLIENT_VERSION))
                .addServiceEndpoint(ServiceEndpoint.builder()
                        .endpointName("run")
                        .endpointSubject(subject)
                        // The queue group shares the work: each request goes to one of all the responders in the group.
                        .endpointQueueGroup(setting("AJ_QUEUE_GROUP", "q"))
                        .endpointMetadata(Map.of("aj.type", type))
                        // The service sees how long it took to start a call; what runs is told beside its figures.
                        .statsDataSupplier(() -> JsonValueUtils.mapBuilder().put("in_flight", running.get()).toJsonValue())
                        .handler(request -> {
                            long arrived = System.nanoTime();
                            slots.execute(() -> {
                                running.incrementAndGet();
                                new Call(nc, request, arrived).answer();
                                running.decrementAndGet();
                            });
                        })
                        .build())
                .build();
        // On SIGTERM, stop in order: take nothing new, finish what is in hand, push the replies out.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopping = true;
            if (nc.getStatus() == Connection.Status.CONNECTED) {
                service.stop(true); // returns when all that the server had sent us is in our hands
            }
            slots.shutdown();
            try {
                slots.awaitTermination(1, TimeUnit.DAYS);
                nc.flush(Duration.ofSeconds(1));
            } catch (Exception err) {
                System.err.println("the last replies may not have left: " + err.getMessage());
            }
            Runtime.getRuntime().halt(0); // the exit code of a signal is no success
        }));

        service.startService();
        nc.flush(Duration.ZERO); // if a subscription is refused, that is said before this is answered
        ready = true;
        System.out.println("ready " + subject);
    }

    static String setting(String name, String byDefault) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? byDefault : value;
    }

    private static void heed(Connection nc, ConnectionListener.Events event) {
        if (event == ConnectionListener.Events.CLOSED && !stopping) {
            fail("connection closed: " + nc.getLastError());
        }
    }

    private static void fail(String message) {
        System.err.println(message);
        Runtime.getRuntime().halt(1);
    }

    /** The client would log all of it. */
    private record Complaints(String subject) implements ErrorListener {
        @Override
        public void errorOccurred(Connection nc, String error) {
            if (!ready && error.contains("Permissions Violation")) {
                fail("the server refused the subscription to " + subject + " or one beside it: " + error);
            }
        }
    }
}
