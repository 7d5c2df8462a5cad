// Command asynq is the peer of the throughput bench on hibiken/asynq: it enqueues tasks into a Redis that is empty, then
// runs a worker with an in-process handler over them, and prints what that took as one JSON line.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hibiken/asynq"
)

func main() {
	addr := flag.String("redis", "", "`address` of a Redis server")
	count := flag.Int64("count", 5000, "tasks")
	concurrency := flag.Int("concurrency", 100, "tasks in flight")
	flag.Parse()
	if err := run(*addr, *count, *concurrency); err != nil {
		fmt.Fprintln(os.Stderr, "asynq:", err)
		os.Exit(1)
	}
}

func run(addr string, count int64, concurrency int) error {
	redis := asynq.RedisClientOpt{Addr: addr}
	client := asynq.NewClient(redis)
	payload := []byte(`{"to":"a@example.net","subject":"hello","body":"` + string(make60()) + `"}`)
	for range count {
		// Kept after its end, as a record of ours is.
		if _, err := client.Enqueue(asynq.NewTask("bench:echo", payload), asynq.Retention(time.Hour)); err != nil {
			return err
		}
	}
	if err := client.Close(); err != nil {
		return err
	}
	var done atomic.Int64
	ended := make(chan struct{})
	handle := func(_ context.Context, task *asynq.Task) error {
		if _, err := task.ResultWriter().Write([]byte(`{"ok":true}`)); err != nil {
			return err
		}
		if done.Add(1) == count {
			close(ended)
		}
		return nil
	}
	server := asynq.NewServer(redis, asynq.Config{Concurrency: concurrency, LogLevel: asynq.FatalLevel})
	before := cpu()
	began := time.Now()
	if err := server.Start(asynq.HandlerFunc(handle)); err != nil {
		return err
	}
	<-ended
	seconds := time.Since(began).Seconds()
	used := cpu() - before
	server.Shutdown()
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{"seconds": seconds, "cpu_seconds": used})
}

func make60() []byte {
	body := make([]byte, 60)
	for i := range body {
		body[i] = 'x'
	}
	return body
}

func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(usage.Utime) + seconds(usage.Stime)
}
