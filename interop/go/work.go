package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// work is yours to write. Set reply.Data, or one of the failure headers; pass ctx on to whatever takes time, it ends
// at the deadline. This one does what the payload says, so that tests can ask for each outcome:
// {"do": "fail", "error": "no such mailbox"}. A payload that gives no order it knows is a success.
func work(ctx context.Context, task Task, asked nats.Header, reply *nats.Msg) {
	order := map[string]any{"error": "failed"}
	if err := json.Unmarshal(task.Payload, &order); err != nil && len(task.Payload) > 0 {
		reply.Header.Set("AJ-Terminate", "payload is not a JSON object: "+err.Error())
		return
	}
	try, err := strconv.Atoi(asked.Get("AJ-Task-Try"))
	if err != nil {
		try = task.Tries // a Go worker does not send that header
	}
	ms, _ := order["ms"].(float64)
	ms = min(ms, 1<<31-1) // as long as a timer of any language can be
	result := map[string]any{"handler": "go", "id": task.ID, "try": try}
	switch do := order["do"]; {
	case do == "fail", do == "fail_once" && try == 1, do == "retry_after" && try == 1:
		reply.Header.Set("AJ-Error", fmt.Sprint(order["error"]))
		if do == "retry_after" && asked.Get("AJ-Protocol") != "" { // use our additions only where they are offered
			reply.Header.Set("AJ-Retry-After-Ms", strconv.Itoa(int(ms)))
		}
		return
	case do == "unicode_error":
		reply.Header.Set("AJ-Error", "dépassé ☃ 😀") // header text is UTF-8
		return
	case do == "terminate":
		reply.Header.Set("AJ-Terminate", fmt.Sprint(order["error"]))
		return
	case do == "echo":
		reply.Data = task.Payload
		return
	case do == "binary":
		for b := range 256 {
			reply.Data = append(reply.Data, byte(b))
		}
		return
	case do == "sleep":
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
		case <-ctx.Done():
			reply.Header.Set("AJ-Error", "deadline") // still heard: the bridge waits a little longer than it says
			return
		}
	case do == "deadline":
		result = map[string]any{"timeout_ms": nil}
		if ms, err := strconv.Atoi(asked.Get("AJ-Handler-Timeout-Ms")); err == nil {
			result["timeout_ms"] = ms
		}
		for key, name := range map[string]string{"deadline": "AJ-Handler-Deadline", "invocation": "AJ-Invocation",
			"content_type": "AJ-Content-Type", "protocol": "AJ-Protocol"} {
			result[key] = nil
			if text := asked.Get(name); text != "" {
				result[key] = text
			}
		}
	}
	reply.Data, _ = json.Marshal(result)
}
