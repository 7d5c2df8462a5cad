// A complete job handler in Node: the official NATS client and this folder, nothing else.
//
// The bridge sends each task as an ordinary NATS request and takes the reply as its outcome:
//
//   a body, no header     complete; the body is the result, stored byte for byte (it may be empty)
//   header AJ-Error       failed, to be tried again; people will read the text in the task
//   header AJ-Terminate   failed for good, no more tries
//   no reply in time      a failed try as well, but a slow one that tells nobody why
//
// This file is the process: connection, queue group, orderly stop. call.js is one request: deadline, heartbeats,
// progress, cancelling, reply headers. Copy both as they are; the job itself is in work.js.
import { Svcm } from "@nats-io/services";
import { connect } from "@nats-io/transport-node";
import { answer, cancel } from "./call.js";

const env = process.env;
const type = env.AJ_TYPE ?? "email:new";
const subject = env.AJ_SUBJECT || `CHORIA_AJ.H.T.${type || "catchall"}`;

// This client takes no login from the URL, so we do.
const urls = (env.NATS_URL || "nats://127.0.0.1:4222")
  .split(",")
  .map((url) => new URL(url.includes("://") ? url : `nats://${url}`));
const [user, pass] = [urls[0].username, urls[0].password].map(decodeURIComponent);

/** @param {string} message @returns {never} */
const fail = (message) => {
  console.error(message);
  process.exit(1);
};

// Wait for a server that is not there yet, come back for ever to one that went away, notice a dead link in about a
// minute. Only a login that is refused twice closes the connection; then end, so that somebody sees it.
const nc = await connect({
  servers: urls.map((url) => url.host),
  ...(pass ? { user, pass } : { token: user }),
  waitOnFirstConnect: true,
  maxReconnectAttempts: -1,
  reconnectTimeWait: 500,
  pingInterval: 20_000,
}).catch((err) => fail(`not connected: ${err.message}`));

/** @type {import("@nats-io/services").Service | undefined} */
let service;
const inHand = new Set();
let stopping = false;
// Stop in order: take nothing new, finish what is in hand, push the replies out. A second signal kills.
for (const signal of /** @type {const} */ (["SIGTERM", "SIGINT"])) {
  process.once(signal, async () => {
    stopping = true;
    if (!service) process.exit(0);
    // Done when all that the server had sent us is with the handler; without a server nothing comes in either.
    await Promise.race([service.stop(), new Promise((resume) => setTimeout(resume, 5000))]);
    await Promise.all(inHand);
    const away = new Promise((_, refuse) => setTimeout(() => refuse(new Error("no server")), 1000));
    await Promise.race([nc.flush(), away]).catch((err) =>
      console.error(`the last replies may not have left: ${err.message}`),
    );
    process.exit(0); // the connection would keep the process alive
  });
}
nc.closed().then((err) => stopping || fail(`connection closed: ${err?.message}`));

// One subscription hears of all calls that are not wanted any more; each knows its own subject.
nc.subscribe("CHORIA_AJ.CI.*", { callback: (err, msg) => void (err || cancel(msg.subject)) });

// A NATS micro service is what `nats micro ls` finds. A service and its endpoints may not be
// named `email:new`, so the type stands in the metadata.
service = await new Svcm(nc).add({
  name: "aj-handler",
  version: "1.0.0",
  description: "handles tasks",
  metadata: { "aj.language": "node", "aj.client": "@nats-io/transport-node" },
  // The service sees how long it took to start a call; what runs is told beside its figures.
  statsHandler: async () => ({ in_flight: inHand.size }),
});
// The queue group shares the work: each request goes to one of all the responders in the group.
service.addEndpoint("run", {
  subject,
  queue: env.AJ_QUEUE_GROUP || "q",
  metadata: { "aj.type": type },
  handler: (err, request) => {
    if (err) return;
    // Not awaited: the next request must not wait for this one.
    const done = answer(request, nc.info?.max_payload ?? Infinity)
      .catch((err) => console.error(`reply not sent, the task will be tried again: ${err.message}`))
      .finally(() => inHand.delete(done));
    inHand.add(done);
  },
});
await nc.flush();
if (service.isStopped) fail(`the server refused the subscription to ${subject}, or those of a NATS micro service`);

console.log(`ready ${subject}`);
