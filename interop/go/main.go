// A complete job handler in Go: the official NATS client and this folder, nothing else.
//
// The bridge sends each task as an ordinary NATS request and takes the reply as its outcome:
//
//	a body, no header     complete; the body is the result, stored byte for byte (it may be empty)
//	header AJ-Error       failed, to be tried again; people will read the text in the task
//	header AJ-Terminate   failed for good, no more tries
//	no reply in time      a failed try as well, but a slow one that tells nobody why
//
// This file is the process: connection, queue group, orderly stop. call.go is one request: deadline, heartbeats,
// progress, cancelling, reply headers. Copy both as they are; the job itself is in work.go.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

func main() {
	taskType, given := os.LookupEnv("AJ_TYPE")
	if !given {
		taskType = "email:new"
	}
	subject := cmp.Or(os.Getenv("AJ_SUBJECT"), "CHORIA_AJ.H.T."+cmp.Or(taskType, "catchall"))
	// Wait for a server that is not there yet, come back for ever to one that went away, notice a dead link in about a
	// minute. Only a login that is refused twice closes the connection; then end, so that somebody sees it.
	nc, err := nats.Connect(cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL), nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1), nats.ReconnectWait(500*time.Millisecond), nats.PingInterval(20*time.Second),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // what matters of them is looked at below
		nats.ClosedHandler(func(nc *nats.Conn) { log.Fatalln("connection closed:", nc.LastError()) }))
	must(err)

	stop, restore := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)

	// One subscription hears of all calls that are not wanted any more; each knows its own subject.
	running := calls{limit: nc.MaxPayload, cancels: map[string]context.CancelCauseFunc{}}
	_, err = nc.Subscribe("CHORIA_AJ.CI.*", func(msg *nats.Msg) { running.cancel(msg.Subject) })
	must(err)
	others := nc.NumSubscriptions()

	// A NATS micro service is what `nats micro ls` finds. A service and its endpoints may not be
	// named `email:new`, so the type stands in the metadata.
	inHand, count := sync.WaitGroup{}, atomic.Int64{}
	service, err := micro.AddService(nc, micro.Config{
		Name: "aj-handler", Version: "1.0.0", Description: "handles tasks",
		Metadata: map[string]string{"aj.language": "go", "aj.client": "nats.go " + nats.Version},
		// The service sees how long it took to start a call; what runs is told beside its figures.
		StatsHandler: func(*micro.Endpoint) any { return map[string]int64{"in_flight": count.Load()} },
	})
	must(err)
	// The queue group shares the work: each request goes to one of all the responders in the group. The client makes
	// this call for one message after another, so it only notes the time and steps aside. 64 are worked on at once.
	slots := make(chan struct{}, 64)
	must(service.AddEndpoint("run", micro.HandlerFunc(func(request micro.Request) {
		arrived := time.Now()
		inHand.Go(func() {
			slots <- struct{}{}
			count.Add(1)
			defer func() { count.Add(-1); <-slots }()
			running.answer(request, arrived)
		})
	}), micro.WithEndpointSubject(subject), micro.WithEndpointQueueGroup(cmp.Or(os.Getenv("AJ_QUEUE_GROUP"), "q")),
		micro.WithEndpointMetadata(map[string]string{"aj.type": taskType})))
	for nc.FlushTimeout(time.Second) != nil { // there is no server yet
		if stop.Err() != nil {
			return
		}
	}
	must(nc.LastError()) // if the subscription is refused, that is said before the flush is answered
	fmt.Println("ready", subject)

	// Stop in order: take nothing new, finish what is in hand, push the replies out. A second signal kills.
	<-stop.Done()
	restore()
	must(service.Stop())
	// Drained is what the server had sent us before it heard of that; without a server nothing comes in either.
	for patience := 500; nc.NumSubscriptions() > others && patience > 0 && nc.IsConnected(); patience-- {
		time.Sleep(10 * time.Millisecond)
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
