package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// work is yours to write. Return the result, or an error: Terminate, RetryAfter or any other, which is a failed try.
// Pass ctx on to whatever takes time: it ends at the deadline, and when the bridge says that the reply will not be used.
// This one does what the payload says, so that tests can ask for each outcome (docs/conformance.md has them all):
// {"do": "fail", "error": "no such mailbox"}. A payload that gives no order it knows is a success.
func work(ctx context.Context, call *Call) ([]byte, error) {
	order := map[string]any{"error": "failed"}
	if err := json.Unmarshal(call.Payload, &order); err != nil && len(call.Payload) > 0 {
		return nil, Terminate{"payload is not a JSON object: " + err.Error()}
	}
	text := fmt.Sprint(order["error"])
	number := func(name string) int {
		value, _ := order[name].(float64)
		return int(min(value, 1<<31-1)) // as long as a timer of any language can be
	}
	pause := time.Duration(number("ms")) * time.Millisecond
	switch do := order["do"]; {
	case do == "fail", do == "fail_once" && call.Try == 1:
		return nil, errors.New(text)
	case do == "retry_after" && call.Try == 1:
		return nil, RetryAfter{text, pause}
	case do == "unicode_error":
		return nil, errors.New("dépassé ☃ 😀") // header text is UTF-8
	case do == "terminate":
		return nil, Terminate{text}
	case do == "both":
		call.Reply.Set("AJ-Error", "not this one")
		return nil, Terminate{text}
	case do == "case":
		call.Reply["aj-error"] = []string{text}
		return nil, nil
	case do == "crash":
		os.Exit(1)
	case do == "echo":
		return call.Payload, nil
	case do == "empty":
		return nil, nil
	case do == "big":
		return bytes.Repeat([]byte("x"), number("bytes")), nil
	case do == "binary":
		data := make([]byte, 256)
		for b := range data {
			data[b] = byte(b)
		}
		return data, nil
	case do == "sleep":
		if err := rest(ctx, pause); err != nil {
			return nil, err // still heard: the bridge waits a little longer than it says
		}
	case do == "cancel":
		<-ctx.Done()
		return nil, context.Cause(ctx)
	case do == "late":
		<-ctx.Done()
		time.Sleep(pause)
	case do == "heartbeat":
		every := time.Duration(max(number("every_ms"), 1)) * time.Millisecond
		for end := time.Now().Add(pause); time.Now().Before(end); {
			call.Heartbeat()
			if err := rest(ctx, every); err != nil {
				return nil, err
			}
		}
	case do == "progress":
		steps := max(number("steps"), 1)
		for step := range steps {
			if err := rest(ctx, pause); err != nil {
				return nil, err
			}
			call.Progress(float64(step+1)/float64(steps), fmt.Sprintf("step %d of %d", step+1, steps))
		}
	case do == "headers":
		seen := map[string]string{}
		for name := range call.Asked {
			seen[name] = call.Asked.Get(name)
		}
		return json.Marshal(map[string]any{"headers": seen, "id": call.ID, "type": call.Type, "tries": call.Tries})
	case do == "deadline":
		seen := map[string]any{"timeout_ms": nil}
		if ms, err := strconv.Atoi(call.Header("AJ-Handler-Timeout-Ms")); err == nil {
			seen["timeout_ms"] = ms
		}
		for key, name := range map[string]string{"deadline": "AJ-Handler-Deadline", "invocation": "AJ-Invocation",
			"content_type": "AJ-Content-Type", "protocol": "AJ-Protocol"} {
			seen[key] = nil
			if text := call.Header(name); text != "" {
				seen[key] = text
			}
		}
		return json.Marshal(seen)
	}
	return json.Marshal(map[string]any{"handler": "go", "id": call.ID, "try": call.Try})
}

// rest waits, unless the call ends first.
func rest(ctx context.Context, pause time.Duration) error {
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
