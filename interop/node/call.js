// One call of the handler, from the request to the reply.
import { headers, Match } from "@nats-io/transport-node";
import { work } from "./work.js";

/** Thrown for what no further try can mend. Any other error is a failed try. */
export class Terminate extends Error {}

/** Thrown when the handler itself says when to try again. */
export class RetryAfter extends Error {
  /** @param {string} message @param {number} ms */
  constructor(message, ms) {
    super(message);
    this.ms = ms;
  }
}

const AT_ONCE = 64;
const MAX_TIMER_MS = 2 ** 31 - 1; // a timer holds 31 bits

/** @type {Map<string, AbortController>} the calls that run, by their cancel subjects */
const running = new Map();

/** @type {(() => void)[]} what is above 64 at once */
const waiting = [];
let taken = 0;

/** Ends a call whose reply will not be used. @param {string} subject */
export function cancel(subject) {
  running.get(subject)?.abort(new Error("cancelled"));
}

/** One call, as `work` sees it. */
export class Call {
  /** @param {import("@nats-io/services").ServiceMsg} request @param {number} arrived */
  constructor(request, arrived) {
    this.request = request;
    /** The request's headers. */
    this.asked = /** @type {import("@nats-io/transport-node").MsgHdrs} */ (request.headers ?? headers());
    /** Headers of the reply beside those that an error makes; you will hardly need it. */
    this.reply = headers();
    this.id = "";
    this.type = "";
    this.tries = 0;
    this.try = 0;
    this.payload = Buffer.alloc(0);
    this.over = false;
    this.abort = new AbortController();
    /** Raised at the deadline, and when the bridge says that the reply will not be used: hand it to what takes time. */
    this.signal = this.abort.signal;
    // Of the two deadlines the relative one is better, as it needs no agreement about the time of day. A caller that
    // sends none is not the bridge.
    this.timeout = Number(this.header("AJ-Handler-Timeout-Ms") || NaN);
    this.deadline = Number.isNaN(this.timeout)
      ? Date.parse(this.header("AJ-Handler-Deadline"))
      : arrived + this.timeout;
    this.every = Number(this.header("AJ-Heartbeat-Ms") || 0); // 0: the request offers no interim replies
    /** @type {NodeJS.Timeout | undefined} */
    this.timer = undefined;
  }

  /** A header of the request, whatever the case of its name; empty when there is none. @param {string} name */
  header(name) {
    return this.asked.get(name, Match.IgnoreCase);
  }

  /** Milliseconds until the reply must be in. */
  get left() {
    return Math.min(Number.isNaN(this.deadline) ? Infinity : this.deadline - Date.now(), MAX_TIMER_MS);
  }

  startTimer() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.abort.abort(new Error("deadline")), this.left);
  }

  /**
   * Tells how much is done, 0 to 1, and moves the deadline: there is the whole time again. A caller that takes no
   * interim replies is told nothing.
   * @param {number} share
   * @param {string} [note]
   */
  progress(share, note) {
    if (!(this.every > 0) || this.over || Number.isNaN(this.timeout)) return;
    this.deadline = Date.now() + this.timeout;
    this.startTimer();
    this.interim(Math.min(Math.max(share, 0), 1).toFixed(6), note === undefined ? "" : JSON.stringify({ note }));
  }

  /** Proves that we live, beside the heartbeats that are sent anyway. */
  heartbeat() {
    if (this.every > 0) this.interim("");
  }

  /** An empty share only proves that we live. @param {string} share @param {string} [body] */
  interim(share, body = "") {
    if (this.over) return;
    const header = headers();
    header.append("AJ-Progress", share);
    this.request.respond(body, { headers: header });
  }

  /** Sends the last reply. @param {Uint8Array | string} body */
  finish(body) {
    this.over = true;
    this.request.respond(body, this.reply.keys().length > 0 ? { headers: this.reply } : {});
  }

  /** @param {any} err */
  fail(err) {
    const text = String(err?.message || err || "failed"); // a Go worker misreads an empty one
    // A header is one line, and not too long; its text is UTF-8.
    const line = text.replace(/[\r\n\0]/g, " ").slice(0, 4000).replace(/[\ud800-\udbff]$/, "");
    this.reply.set(err instanceof Terminate ? "AJ-Terminate" : "AJ-Error", line);
    // Use our additions only where the request offers them.
    if (err instanceof RetryAfter && this.header("AJ-Protocol")) {
      this.reply.set("AJ-Retry-After-Ms", `${Math.trunc(err.ms)}`);
    }
    this.finish("");
  }

  /** Takes what this handler needs of the request's JSON: there are more keys, and new ones will come. */
  read() {
    try {
      const { id, type, tries = 0, payload } = /** @type {import("./types.js").Task} */ (this.request.json());
      const bytes = Buffer.from(payload ?? "", "base64");
      // Buffer passes over what is not base64 without a word.
      if (!id || bytes.toString("base64") !== (payload ?? "")) throw new Error("no id, or payload is not base64");
      // A Go worker does not send that header; tries are counted before the call, so it is 1 the first time.
      const attempt = Number(this.header("AJ-Task-Try")) || tries;
      Object.assign(this, { id, type, tries, try: attempt, payload: bytes });
    } catch (err) {
      throw new Terminate(`request is not a task in JSON: ${/** @type {Error} */ (err).message}`);
    }
  }
}

/**
 * Lets `work` handle a request, and replies.
 * @param {import("@nats-io/services").ServiceMsg} request
 * @param {number} limit max_payload of the server
 */
export async function answer(request, limit) {
  const call = new Call(request, Date.now());
  const cancelSubject = call.header("AJ-Cancel-Subject");
  if (cancelSubject) running.set(cancelSubject, call.abort);
  if (taken++ >= AT_ONCE) await new Promise((resume) => waiting.push(() => resume(undefined)));
  // Twice as often as it is wanted. Only from then on, so that a short task costs no message more.
  const beat = call.every > 0 ? setInterval(() => call.interim(""), call.every / 2) : undefined;
  try {
    call.read();
    // Too late to begin: the bridge has given up, and the next try may be running already.
    if (call.left <= 0) throw new Error("deadline");
    call.startTimer();
    const result = Buffer.from(await work(call));
    // It could not be sent now nor on any later try: say so, once.
    if (result.length > limit) throw new Terminate(`result of ${result.length} bytes, but max_payload is ${limit}`);
    call.finish(result);
  } catch (err) {
    call.fail(err);
  } finally {
    clearInterval(beat);
    clearTimeout(call.timer);
    running.delete(cancelSubject);
    taken--;
    waiting.shift()?.();
  }
}
