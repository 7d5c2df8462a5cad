package main

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/choria-io/asyncjobs"
	"github.com/nats-io/nats.go"
)

// adminOf gives the library's administration without the side effect of NewClient, which makes the queue DEFAULT.
func adminOf(nc *nats.Conn, opts ...asyncjobs.ClientOpt) (*asyncjobs.Client, asyncjobs.StorageAdmin, error) {
	client, err := asyncjobs.NewClient(append(opts, asyncjobs.NatsConn(nc), asyncjobs.NoStorageInit())...)
	if err != nil {
		return nil, nil, err
	}
	return client, client.StorageAdmin(), nil
}

func initStore(_ context.Context, args []string) error {
	a := newArguments("init")
	retention := a.Duration("retention", 0, "how long tasks are kept; 0: for ever")
	if err := a.read(args); err != nil {
		return err
	}
	nc, err := a.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	_, admin, err := adminOf(nc)
	if err != nil {
		return err
	}
	if err := admin.PrepareTasks(false, 1, *retention); err != nil {
		return err
	}
	if err := admin.PrepareConfigurationStore(false, 1); err != nil {
		return err
	}
	return printLine(map[string]any{"initialized": true})
}

func makeQueue(_ context.Context, args []string) error {
	a := newArguments("queue")
	queue := &asyncjobs.Queue{}
	a.StringVar(&queue.Name, "name", "", "the queue's `name`")
	a.DurationVar(&queue.MaxRunTime, "max-run-time", 0, "the longest time of one try; 0: the library's default")
	a.IntVar(&queue.MaxTries, "max-tries", 0, "deliveries of an item; 0: the library's default")
	a.IntVar(&queue.MaxConcurrent, "max-concurrent", 0, "tasks in work at the same time; 0: the library's default")
	if err := a.read(args, "name"); err != nil {
		return err
	}
	nc, err := a.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	_, admin, err := adminOf(nc)
	if err != nil {
		return err
	}
	if err := admin.PrepareQueue(queue, 1, false); err != nil {
		return err
	}
	return printLine(map[string]any{"queue": queue})
}

func enqueue(ctx context.Context, args []string) error {
	a := newArguments("enqueue")
	queue := a.String("queue", "", "`name` of a queue that is there; without it the library makes and uses DEFAULT")
	taskType := a.String("type", "", "the tasks' `type`")
	payload := a.String("payload", "", "the tasks' payload, `JSON`; without it null")
	id := a.String("id", "", "the task's `id`; without it the library draws one")
	deadline := a.Duration("deadline", 0, "the deadline, from now")
	tries := a.Int("max-tries", 0, "the task's max tries; 0: the library's default")
	depends := a.String("depends", "", "comma separated `ids` of tasks that must be complete before")
	load := a.Bool("load", false, "load the results of these tasks before the handler runs")
	sign := a.String("sign", "", "sign with this `seed`, in hex")
	count := a.Int("count", 1, "how many tasks")
	atOnce := a.Int("at-once", 1, "how many goroutines enqueue")
	quiet := a.Bool("quiet", false, "print one line for all: how many, in how many seconds")
	if err := a.read(args, "type"); err != nil {
		return err
	}
	if *id != "" && *count != 1 {
		return errors.New("--id is for one task")
	}

	var opts []asyncjobs.ClientOpt
	if *queue != "" {
		opts = append(opts, asyncjobs.BindWorkQueue(*queue))
	}
	if *sign != "" {
		seed, err := hex.DecodeString(*sign)
		if err != nil || len(seed) != ed25519.SeedSize {
			return fmt.Errorf("--sign takes %d bytes in hex", ed25519.SeedSize)
		}
		opts = append(opts, asyncjobs.TaskSigningKey(ed25519.NewKeyFromSeed(seed)))
	}

	var body any
	if *payload != "" {
		if !json.Valid([]byte(*payload)) {
			return errors.New("--payload is not JSON")
		}
		body = json.RawMessage(*payload)
	}

	nc, err := a.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	client, err := asyncjobs.NewClient(append(opts, asyncjobs.NatsConn(nc))...)
	if err != nil {
		return err
	}
	one := func() error {
		task, err := asyncjobs.NewTask(*taskType, body, taskOptions(*id, *deadline, *tries, *depends, *load)...)
		if err != nil {
			return err
		}
		if err := client.EnqueueTask(ctx, task); err != nil {
			return fmt.Errorf("%s: %w", task.ID, err)
		}
		if *quiet {
			return nil
		}
		return printLine(map[string]any{"id": task.ID, "state": task.State, "queue": task.Queue})
	}
	began := time.Now()
	if err := repeat(*count, *atOnce, one); err != nil {
		return err
	}
	if *quiet {
		return printLine(map[string]any{"enqueued": *count, "seconds": time.Since(began).Seconds()})
	}
	return nil
}

// repeat does something so often, in so many goroutines; after the first error none of them begins again.
func repeat(count int, atOnce int, do func() error) error {
	left := make(chan struct{}, count)
	for range count {
		left <- struct{}{}
	}
	close(left)
	ended := make(chan error, atOnce)
	for range atOnce {
		go func() {
			for range left {
				if len(ended) > 0 {
					break
				}
				if err := do(); err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		}()
	}
	var first error
	for range atOnce {
		if err := <-ended; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func taskOptions(id string, deadline time.Duration, tries int, depends string, load bool) []asyncjobs.TaskOpt {
	var opts []asyncjobs.TaskOpt
	if id != "" {
		opts = append(opts, func(t *asyncjobs.Task) error {
			t.ID = id
			return nil
		})
	}
	if deadline != 0 {
		opts = append(opts, asyncjobs.TaskDeadline(time.Now().UTC().Add(deadline)))
	}
	if tries != 0 {
		opts = append(opts, asyncjobs.TaskMaxTries(tries))
	}
	if depends != "" {
		opts = append(opts, asyncjobs.TaskDependsOnIDs(strings.Split(depends, ",")...))
	}
	if load {
		opts = append(opts, asyncjobs.TaskRequiresDependencyResults())
	}
	return opts
}

func load(_ context.Context, args []string) error {
	a := newArguments("load")
	id := a.String("id", "", "the task's `id`")
	verify := a.String("verify", "", "accept only tasks signed for this public `key`, in hex")
	if err := a.read(args, "id"); err != nil {
		return err
	}
	nc, err := a.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	client, admin, err := adminOf(nc, asyncjobs.TaskVerificationKeyHexEncoded(*verify))
	if err != nil {
		return err
	}
	// Loading needs the store open, and opening makes it where it is missing.
	if err := admin.PrepareTasks(false, 1, 0); err != nil {
		return err
	}
	task, err := client.LoadTaskByID(*id)
	if err != nil {
		return err
	}
	return printLine(map[string]any{"id": task.ID, "state": task.State, "task": task})
}

func retry(ctx context.Context, args []string) error {
	a := newArguments("retry")
	queue := a.String("queue", "", "`name` of a queue that is there")
	id := a.String("id", "", "the task's `id`")
	if err := a.read(args, "queue", "id"); err != nil {
		return err
	}
	nc, err := a.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	client, err := asyncjobs.NewClient(asyncjobs.NatsConn(nc), asyncjobs.BindWorkQueue(*queue))
	if err != nil {
		return err
	}
	if err := client.RetryTaskByID(ctx, *id); err != nil {
		return err
	}
	return printLine(map[string]any{"retried": *id})
}
