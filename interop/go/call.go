package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// Task is what this handler needs of the request's JSON. Ignore the keys you do not know: there are more of them, and
// new ones will come.
type Task struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Tries   int    `json:"tries"`   // counted before the call, so 1 the first time
	Payload []byte `json:"payload"` // base64 in the JSON (encoding/json undoes it), or null
}

// Terminate is an error that no further try can mend.
type Terminate struct{ Text string }

// RetryAfter is an error after which the handler itself says when to try again.
type RetryAfter struct {
	Text  string
	Delay time.Duration
}

func (e Terminate) Error() string  { return e.Text }
func (e RetryAfter) Error() string { return e.Text }

// Why a call's context ended: context.Cause tells which.
var (
	errDeadline  = errors.New("deadline")
	errCancelled = errors.New("cancelled")
)

// calls are the calls that run.
type calls struct {
	limit   func() int64
	mu      sync.Mutex
	cancels map[string]context.CancelCauseFunc // by their cancel subjects
}

// cancel ends a call whose reply will not be used.
func (c *calls) cancel(subject string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel := c.cancels[subject]; cancel != nil {
		cancel(errCancelled)
	}
}

func (c *calls) remember(subject string, cancel context.CancelCauseFunc) (forget func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancels[subject] = cancel
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.cancels, subject)
	}
}

// Call is one call of the handler.
type Call struct {
	Task
	Try     int
	Asked   nats.Header // the request's headers
	Reply   nats.Header // headers of the reply beside those that work's error makes; you will hardly need it
	request micro.Request
	timeout time.Duration // how far a sign of progress moves the deadline; 0: the request offers no interim replies
	timer   *time.Timer
	mu      sync.Mutex // one reply at a time, and none after the last
	over    bool
}

// Header is a header of the request, whatever the case of its name; empty when there is none.
func (c *Call) Header(name string) string {
	for key, values := range c.Asked {
		if strings.EqualFold(key, name) && len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

// Progress tells how much is done, 0 to 1, and moves the deadline: there is the whole time again. The note may be empty.
// A caller that takes no interim replies is told nothing.
func (c *Call) Progress(done float64, note string) {
	if c.timeout == 0 {
		return
	}
	var body []byte
	if note != "" {
		body, _ = json.Marshal(map[string]string{"note": note})
	}
	c.timer.Reset(c.timeout)
	c.interim(strconv.FormatFloat(min(max(done, 0), 1), 'f', -1, 64), body)
}

// Heartbeat proves that we live, beside the heartbeats that are sent anyway.
func (c *Call) Heartbeat() {
	if c.timeout > 0 {
		c.interim("", nil)
	}
}

// interim sends a reply that is not the last one: an empty share only proves that we live.
func (c *Call) interim(share string, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.send(body, nats.Header{"AJ-Progress": {share}})
	}
}

func (c *Call) send(body []byte, header nats.Header) {
	if err := c.request.Respond(body, micro.WithHeaders(micro.Headers(header))); err != nil {
		log.Println("reply not sent, the task will be tried again:", err)
	}
}

// answer lets work handle a request, and replies.
func (c *calls) answer(request micro.Request, arrived time.Time) {
	ctx, cancel := context.WithCancelCause(context.Background())
	call := &Call{Asked: nats.Header(request.Headers()), Reply: nats.Header{}, request: request}
	if call.Asked == nil {
		call.Asked = nats.Header{}
	}
	// Of the two deadlines the relative one is better, as it needs no agreement about the time of day. A caller that
	// sends none is not the bridge.
	deadline := arrived.Add(24 * time.Hour)
	if ms, err := strconv.Atoi(call.Header("AJ-Handler-Timeout-Ms")); err == nil {
		call.timeout = time.Duration(ms) * time.Millisecond
		deadline = arrived.Add(call.timeout)
	} else if at, err := time.Parse(time.RFC3339, call.Header("AJ-Handler-Deadline")); err == nil {
		deadline = at
	}
	call.timer = time.AfterFunc(time.Until(deadline), func() { cancel(errDeadline) })
	defer call.timer.Stop()
	if subject := call.Header("AJ-Cancel-Subject"); subject != "" {
		defer c.remember(subject, cancel)()
	}
	if ms, err := strconv.Atoi(call.Header("AJ-Heartbeat-Ms")); err == nil && ms > 0 {
		// Twice as often as it is wanted. Only from then on, so that a short task costs no message more.
		beat := time.NewTicker(time.Duration(ms) * time.Millisecond / 2)
		defer beat.Stop()
		go func() {
			for {
				select {
				case <-beat.C:
					call.interim("", nil)
				case <-ctx.Done():
					return
				}
			}
		}()
	} else {
		call.timeout = 0
	}

	result, err := call.result(ctx, time.Now().After(deadline))
	if size := int64(len(result)); err == nil && size > c.limit() { // nor could it be on any later try: say so, once
		err = Terminate{fmt.Sprintf("result of %d bytes, but max_payload is %d", size, c.limit())}
	}
	header := nats.Header{}
	maps.Copy(header, call.Reply)
	if err != nil {
		result = nil
		call.fail(err, header)
	}
	call.mu.Lock()
	call.over = true
	call.mu.Unlock()
	cancel(nil)
	call.send(result, header)
}

// result reads the request and does the work.
func (c *Call) result(ctx context.Context, late bool) (result []byte, err error) {
	defer func() { // one broken task must not end the process, with all the others in hand
		if broken := recover(); broken != nil {
			err = fmt.Errorf("panic: %v", broken)
		}
	}()
	if err := json.Unmarshal(c.request.Data(), &c.Task); err != nil || c.ID == "" {
		return nil, Terminate{fmt.Sprintf("request is not a task in JSON: %.60q", c.request.Data())}
	}
	if late { // to begin: the bridge has given up, the next try may be running already
		return nil, errDeadline
	}
	if c.Try, err = strconv.Atoi(c.Header("AJ-Task-Try")); err != nil {
		c.Try = c.Tries // a Go worker does not send that header
	}
	return work(ctx, c)
}

// fail sets the headers that tell of an error.
func (c *Call) fail(err error, header nats.Header) {
	text := strings.NewReplacer("\r", " ", "\n", " ", "\x00", " ").Replace(err.Error()) // a header is one line
	text = cmp.Or(strings.ToValidUTF8(text[:min(len(text), 4000)], ""), "failed")       // a Go worker misreads an empty one
	name := "AJ-Error"
	if errors.As(err, &Terminate{}) {
		name = "AJ-Terminate"
	}
	header.Set(name, text)
	var later RetryAfter
	if errors.As(err, &later) && c.Header("AJ-Protocol") != "" { // use our additions only where they are offered
		header.Set("AJ-Retry-After-Ms", strconv.FormatInt(later.Delay.Milliseconds(), 10))
	}
}
