import { setTimeout as sleep } from "node:timers/promises";
import { RetryAfter, Terminate } from "./call.js";

/**
 * Yours to write. Return the result (a string or bytes) or throw: Terminate, RetryAfter or any other error, which is a
 * failed try. Pass `call.signal` on to whatever takes time: it is raised at the deadline, and when the bridge says that
 * the reply will not be used. This one does what the payload says, so that tests can ask for each outcome (docs/conformance.md has
 * them all): {"do": "fail", "error": "no such mailbox"}. A payload that gives no order it knows is a success.
 *
 * @param {import("./call.js").Call} call
 * @returns {Promise<string | Uint8Array>}
 */
export async function work(call) {
  const order = readOrder(call.payload);
  const text = String(order.error ?? "failed");
  /** @param {string} name */
  const number = (name) => (typeof order[name] === "number" ? Math.min(order[name], 2 ** 31 - 1) : 0); // as a timer's
  const ms = number("ms");
  /** Waits, unless the call ends first. @param {number} ms */
  const rest = (ms) => sleep(ms, null, { signal: call.signal }).catch(() => Promise.reject(call.signal.reason));
  switch (order.do) {
    case "fail":
      throw new Error(text);
    case "fail_once":
      if (call.try === 1) throw new Error(text);
      break;
    case "retry_after":
      if (call.try === 1) throw new RetryAfter(text, ms);
      break;
    case "unicode_error":
      throw new Error("dépassé ☃ 😀");
    case "terminate":
      throw new Terminate(text);
    case "both":
      call.reply.set("AJ-Error", "not this one");
      throw new Terminate(text);
    case "case":
      call.reply.set("aj-error", text);
      return "";
    case "crash":
      process.exit(1);
    case "echo":
      return call.payload;
    case "binary":
      return Uint8Array.from({ length: 256 }, (_, byte) => byte);
    case "empty":
      return "";
    case "big":
      return "x".repeat(number("bytes"));
    case "sleep":
      await rest(ms); // the bridge waits a little longer than it says, so what this throws is still heard
      break;
    case "cancel":
      await rest(2 ** 31 - 1);
      break;
    case "late":
      await rest(2 ** 31 - 1).catch(() => sleep(ms));
      break;
    case "heartbeat":
      for (const end = Date.now() + ms; Date.now() < end; ) {
        call.heartbeat();
        await rest(Math.max(number("every_ms"), 1));
      }
      break;
    case "progress": {
      const steps = Math.max(number("steps"), 1);
      for (let step = 1; step <= steps; step++) {
        await rest(ms);
        call.progress(step / steps, `step ${step} of ${steps}`);
      }
      break;
    }
    case "headers": {
      const seen = Object.fromEntries(call.asked.keys().map((name) => [name, call.asked.get(name)]));
      return JSON.stringify({ headers: seen, id: call.id, type: call.type, tries: call.tries });
    }
    case "deadline":
      return JSON.stringify({
        deadline: call.header("AJ-Handler-Deadline") || null,
        timeout_ms: Number(call.header("AJ-Handler-Timeout-Ms")) || null,
        content_type: call.header("AJ-Content-Type") || null,
        protocol: call.header("AJ-Protocol") || null,
        invocation: call.header("AJ-Invocation") || null,
      });
  }
  return JSON.stringify({ handler: "node", id: call.id, try: call.try });
}

/** @param {Buffer} payload @returns {Record<string, any>} */
function readOrder(payload) {
  try {
    const order = JSON.parse(payload.toString() || "null") ?? {};
    if (typeof order === "object" && !Array.isArray(order)) return order;
  } catch (err) {
    throw new Terminate(`payload is not a JSON object: ${/** @type {Error} */ (err).message}`);
  }
  throw new Terminate("payload is not a JSON object");
}
