import { setTimeout as sleep } from "node:timers/promises";

/** Thrown for what no further try can mend. Any other error is a failed try. */
export class Terminate extends Error {}

/**
 * Yours to write. Return the result (a string or bytes) or throw; pass the signal on to whatever takes time, it is
 * raised at the deadline. This one does what the payload says, so that tests can ask for each outcome:
 * {"do": "fail", "error": "no such mailbox"}. A payload that gives no order it knows is a success.
 */
export async function work(task, asked, signal) {
  const order = readOrder(task.payload);
  const text = String(order.error ?? "failed");
  const ms = typeof order.ms === "number" ? Math.min(order.ms, 2 ** 31 - 1) : 0; // as long as a timer can be
  // A Go worker does not send that header.
  const attempt = Number(asked.get("AJ-Task-Try")) || task.tries;
  switch (order.do) {
    case "fail":
      throw new Error(text);
    case "fail_once":
      if (attempt === 1) throw new Error(text);
      break;
    case "retry_after":
      if (attempt === 1) throw Object.assign(new Error(text), { retryAfterMs: Math.trunc(ms) });
      break;
    case "unicode_error":
      throw new Error("dépassé ☃ 😀");
    case "terminate":
      throw new Terminate(text);
    case "echo":
      return task.payload;
    case "binary":
      return Uint8Array.from({ length: 256 }, (_, byte) => byte);
    case "sleep":
      // The bridge waits a little longer than it says, so this answer is still heard.
      await sleep(ms, null, { signal }).catch(() => { throw new Error("deadline"); });
      break;
    case "deadline":
      return JSON.stringify({
        deadline: asked.get("AJ-Handler-Deadline") || null,
        timeout_ms: Number(asked.get("AJ-Handler-Timeout-Ms")) || null,
        content_type: asked.get("AJ-Content-Type") || null,
        protocol: asked.get("AJ-Protocol") || null,
        invocation: asked.get("AJ-Invocation") || null,
      });
  }
  return JSON.stringify({ handler: "node", id: task.id, try: attempt });
}

function readOrder(payload) {
  try {
    const order = JSON.parse(payload.toString() || "null") ?? {};
    if (typeof order === "object" && !Array.isArray(order)) return order;
  } catch (err) {
    throw new Terminate(`payload is not a JSON object: ${err.message}`);
  }
  throw new Terminate("payload is not a JSON object");
}
