// A complete job handler in Go: the official NATS client and this folder, nothing else.
//
// The bridge sends each task as an ordinary NATS request and takes the reply as its outcome:
//
//	a body, no header     complete; the body is the result, stored byte for byte (it may be empty)
//	header AJ-Error       failed, to be tried again; people will read the text in the task
//	header AJ-Terminate   failed for good, no more tries
//	no reply in time      a failed try as well, but a slow one that tells nobody why
//
// This file knows the protocol: copy it as it is. The job itself is in work.go.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

// Task is what this handler needs of the request's JSON. Ignore the keys you do not know: there are more of them, and
// new ones will come.
type Task struct {
	ID      string `json:"id"`
	Tries   int    `json:"tries"`   // counted before the call, so 1 the first time
	Payload []byte `json:"payload"` // base64 in the JSON (encoding/json undoes it), or null
}

func main() {
	subject := cmp.Or(os.Getenv("AJ_SUBJECT"), "CHORIA_AJ.H.T."+cmp.Or(os.Getenv("AJ_TYPE"), "email:new"))
	// Wait for a server that is not there yet, come back for ever to one that went away, notice a dead link in about a
	// minute. Only a login that is refused twice closes the connection; then end, so that somebody sees it.
	nc, err := nats.Connect(cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL), nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1), nats.ReconnectWait(500*time.Millisecond), nats.PingInterval(20*time.Second),
		nats.ClosedHandler(func(nc *nats.Conn) { log.Fatalln("connection closed:", nc.LastError()) }))
	must(err)

	// The queue group shares the work: each request goes to one of all the responders in the group. The client makes
	// this call for one message after another, so it only notes the time and steps aside. 64 are worked on at once.
	slots, inHand := make(chan struct{}, 64), sync.WaitGroup{}
	sub, err := nc.QueueSubscribe(subject, cmp.Or(os.Getenv("AJ_QUEUE_GROUP"), "q"), func(request *nats.Msg) {
		arrived := time.Now()
		inHand.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			send(request, answer(request, arrived), nc.MaxPayload())
		})
	})
	must(err)
	for nc.FlushTimeout(time.Second) != nil { // there is no server yet
	}
	must(nc.LastError()) // if the subscription is refused, that is said before the flush is answered
	stop, restore := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	fmt.Println("ready", subject)

	// Stop in order: take nothing new, finish what is in hand, push the replies out. A second signal kills.
	<-stop.Done()
	restore()
	drained := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(drained) })
	must(sub.Drain())
	select {
	case <-drained:
	case <-time.After(5 * time.Second): // there is no server now, so nothing comes in either
	}
	inHand.Wait()
	if err := nc.FlushTimeout(time.Second); err != nil {
		log.Println("the last replies may not have left:", err)
	}
}

func must(err error) {
	if err != nil {
		log.Fatalln(err)
	}
}

// answer reads the request and lets work fill the reply.
func answer(request *nats.Msg, arrived time.Time) (reply *nats.Msg) {
	reply = nats.NewMsg("")
	defer func() { // one broken task must not end the process, with all the others in hand
		if broken := recover(); broken != nil {
			reply.Header.Set("AJ-Error", fmt.Sprint("panic: ", broken))
		}
	}()
	// Of the two deadlines the relative one is better, as it needs no agreement about the time of day. A caller that
	// sends none is not the bridge.
	deadline := arrived.Add(24 * time.Hour)
	if ms, err := strconv.Atoi(request.Header.Get("AJ-Handler-Timeout-Ms")); err == nil {
		deadline = arrived.Add(time.Duration(ms) * time.Millisecond)
	} else if at, err := time.Parse(time.RFC3339, request.Header.Get("AJ-Handler-Deadline")); err == nil {
		deadline = at
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()

	var task Task
	if err := json.Unmarshal(request.Data, &task); err != nil || task.ID == "" {
		reply.Header.Set("AJ-Terminate", fmt.Sprintf("request is not a task in JSON: %.60q", request.Data))
	} else if ctx.Err() != nil { // too late to begin: the bridge has given up, the next try may be running already
		reply.Header.Set("AJ-Error", "deadline")
	} else {
		work(ctx, task, request.Header, reply)
	}
	return reply
}

// send sees to it that the reply is one that can be sent.
func send(request, reply *nats.Msg, limit int64) {
	if size := int64(len(reply.Data)); size > limit { // nor could it be on any later try: say so, once
		reply.Data = nil
		reply.Header.Set("AJ-Terminate", fmt.Sprintf("result of %d bytes, but max_payload is %d", size, limit))
	}
	for name := range reply.Header { // a header is one line
		reply.Header.Set(name, strings.NewReplacer("\r", " ", "\n", " ").Replace(reply.Header.Get(name)))
	}
	if err := request.RespondMsg(reply); err != nil {
		log.Println("reply not sent, the task will be tried again:", err)
	}
}
