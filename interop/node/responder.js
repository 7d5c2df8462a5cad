// A complete job handler in Node: the official NATS client and this folder, nothing else.
//
// The bridge sends each task as an ordinary NATS request and takes the reply as its outcome:
//
//   a body, no header     complete; the body is the result, stored byte for byte (it may be empty)
//   header AJ-Error       failed, to be tried again; people will read the text in the task
//   header AJ-Terminate   failed for good, no more tries
//   no reply in time      a failed try as well, but a slow one that tells nobody why
//
// This file knows the protocol: copy it as it is. The job itself is in work.js.
import { connect, headers } from "@nats-io/transport-node";
import { Terminate, work } from "./work.js";

const env = process.env;
const subject = env.AJ_SUBJECT || `CHORIA_AJ.H.T.${env.AJ_TYPE || "email:new"}`;

// This client takes no login from the URL, so we do.
const urls = (env.NATS_URL || "nats://127.0.0.1:4222")
  .split(",")
  .map((url) => new URL(url.includes("://") ? url : `nats://${url}`));
const [user, pass] = [urls[0].username, urls[0].password].map(decodeURIComponent);

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

// The queue group shares the work: each request goes to one of all the responders in the group.
const requests = nc.subscribe(subject, { queue: env.AJ_QUEUE_GROUP || "q" });
await nc.flush();
if (requests.isClosed()) fail(`the server refused the subscription to ${subject}`);

// Stop in order: take nothing new, finish what is in hand, push the replies out. A second signal kills.
let stopping = false;
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => {
    stopping = true;
    requests.drain(); // ends the loop below, after the last request that the server had sent us
  });
}
console.log(`ready ${subject}`);

const inHand = new Set();
const waiting = []; // what is above 64 at once
let taken = 0;
for await (const request of requests) {
  // Not awaited: the next request must not wait for this one.
  const done = answer(request, Date.now())
    .catch((err) => console.error(`reply not sent, the task will be tried again: ${err.message}`))
    .finally(() => inHand.delete(done));
  inHand.add(done);
}
if (!stopping) fail(`connection closed: ${(await nc.closed())?.message}`);
await Promise.all(inHand);
await nc.flush().catch((err) => console.error(`the last replies may not have left: ${err.message}`));
process.exit(0); // the connection would keep the process alive

async function answer(request, arrived) {
  if (taken++ >= 64) await new Promise((resume) => waiting.push(resume));
  const asked = request.headers ?? headers();
  try {
    const task = read(request);
    const left = timeLeft(asked, arrived);
    // Too late to begin: the bridge has given up, and the next try may be running already.
    if (left <= 0) throw new Error("deadline");
    const result = Buffer.from(await work(task, asked, AbortSignal.timeout(left)));
    // It could not be sent now nor on any later try: say so, once.
    const limit = nc.info?.max_payload;
    if (result.length > limit) throw new Terminate(`result of ${result.length} bytes, but max_payload is ${limit}`);
    request.respond(result);
  } catch (err) {
    const failure = headers();
    // A header is one line; its text is UTF-8.
    failure.set(err instanceof Terminate ? "AJ-Terminate" : "AJ-Error", err.message.replace(/[\r\n]/g, " "));
    // Use our additions only where the request offers them.
    if ("retryAfterMs" in err && asked.has("AJ-Protocol")) failure.set("AJ-Retry-After-Ms", `${err.retryAfterMs}`);
    request.respond("", { headers: failure });
  } finally {
    taken--;
    waiting.shift()?.();
  }
}

// What this handler needs of the request's JSON. Ignore the keys you do not know: there are more of them, and new ones
// will come.
function read(request) {
  try {
    const { id, tries = 0, payload } = request.json(); // tries: counted before the call, so 1 the first time
    const bytes = Buffer.from(payload ?? "", "base64");
    // Buffer passes over what is not base64 without a word.
    if (!id || bytes.toString("base64") !== (payload ?? "")) throw new Error("no id, or payload is not base64");
    return { id, tries, payload: bytes };
  } catch (err) {
    throw new Terminate(`request is not a task in JSON: ${err.message}`);
  }
}

// Milliseconds. Of the two deadlines the relative one is better, as it needs no agreement about the time of day.
function timeLeft(asked, arrived) {
  const relative = asked.get("AJ-Handler-Timeout-Ms");
  const deadline = relative ? arrived + Number(relative) : Date.parse(asked.get("AJ-Handler-Deadline"));
  // A timer holds 31 bits. A caller that sends no deadline is not the bridge.
  return Math.min(Number.isNaN(deadline) ? Infinity : deadline - Date.now(), 2 ** 31 - 1);
}
