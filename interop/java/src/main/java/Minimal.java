import com.google.gson.Gson;
import io.nats.client.Connection;
import io.nats.client.Message;
import io.nats.client.Nats;
import io.nats.client.Options;
import io.nats.client.impl.Headers;
import java.time.Duration;
import java.util.Base64;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** The least that a handler needs: answer requests in the queue group q, with a body or with an error header. */
public final class Minimal {
    private record Task(String payload) {}

    private record Email(String to) {}

    public static void main(String[] args) throws Exception {
        String url = System.getenv().getOrDefault("NATS_URL", Options.DEFAULT_URL);
        Connection nc = Nats.connect(new Options.Builder().server(url).maxReconnects(-1).build());
        ExecutorService threads = Executors.newFixedThreadPool(16); // the client calls for one message after another
        nc.createDispatcher(request -> threads.execute(() -> handle(nc, request)))
                .subscribe("CHORIA_AJ.H.T.email:new", "q");
        nc.flush(Duration.ofSeconds(5));
        System.out.println("ready");
    }

    private static void handle(Connection nc, Message request) {
        try {
            Task task = new Gson().fromJson(new String(request.getData()), Task.class);
            Email email = new Gson().fromJson(new String(Base64.getDecoder().decode(task.payload())), Email.class);
            if (email.to().equals("nobody@example.net")) { // to be tried again
                nc.publish(request.getReplyTo(), new Headers().add("AJ-Error", "no such mailbox"), null);
            } else { // the result
                nc.publish(request.getReplyTo(), new Gson().toJson(Map.of("sent", email.to())).getBytes());
            }
        } catch (RuntimeException err) { // no further try can mend it
            nc.publish(request.getReplyTo(), new Headers().add("AJ-Terminate", "no address"), null);
        }
    }
}
