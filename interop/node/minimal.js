// The least that a handler needs: answer requests in the queue group q, with a body or with an error header.
import { connect, headers } from "@nats-io/transport-node";

const nc = await connect({ servers: process.env.NATS_URL ?? "127.0.0.1:4222", maxReconnectAttempts: -1 });
nc.subscribe("CHORIA_AJ.H.T.email:new", { queue: "q", callback: (_, request) => void handle(request) });
await nc.flush();
console.log("ready");

/** @param {import("@nats-io/transport-node").Msg} request */
async function handle(request) {
  try {
    const task = /** @type {import("./types.js").Task} */ (request.json());
    const email = JSON.parse(Buffer.from(task.payload ?? "", "base64").toString()); // the payload is base64
    if (!email.to) throw new Error("no address");
    if (email.to === "nobody@example.net") {
      const failure = headers();
      failure.set("AJ-Error", "no such mailbox"); // to be tried again
      request.respond("", { headers: failure });
      return;
    }
    request.respond(JSON.stringify({ sent: email.to })); // the result
  } catch (err) {
    const failure = headers();
    failure.set("AJ-Terminate", "no address"); // no further try can mend it
    request.respond("", { headers: failure });
  }
}
