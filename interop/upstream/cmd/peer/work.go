package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/choria-io/asyncjobs"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
)

// fast makes retries quick enough for a test; the library's quickest policy waits seconds.
var fast = asyncjobs.RetryPolicy{Intervals: []time.Duration{50 * time.Millisecond}, Jitter: 1}

const settleTimeout = 10 * time.Second

type handled struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Queue   string `json:"queue"`
	Tries   int    `json:"tries"`
	Outcome string `json:"outcome"` // ok, error or terminate
	Error   string `json:"error,omitempty"`
	Result  any    `json:"result,omitempty"`
}

func work(ctx context.Context, args []string) error {
	a := newArguments("work")
	queue := a.String("queue", "", "`name` of a queue that is there")
	concurrency := a.Int("concurrency", 1, "tasks in work at the same time")
	taskType := a.String("type", "", "the route: a `type` or a prefix of types; without it all types")
	mode := a.String("mode", "ok", "what the handler does: ok, fail (the first try), terminate, remote (asks over NATS)")
	verify := a.String("verify", "", "handle only tasks signed for this public `key`, in hex")
	backoff := a.String("backoff", "default", "the library's retry `policy`, or fast (50 to 100 ms)")
	until := a.Int("until", 0, "exit after this many handler calls; 0: at SIGTERM")
	quiet := a.Bool("quiet", false, "do not print how each call ended")
	debug := a.Bool("debug", false, "print all that the library logs")
	if err := a.read(args, "queue"); err != nil {
		return err
	}

	// The inbox prefix tells this worker's pulls from those of others, see announce.
	inbox := nats.NewInbox()
	nc, err := a.connect(nats.CustomInboxPrefix(inbox), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer nc.Close()
	policy := asyncjobs.RetryBackoffPolicyName(*backoff)
	if *backoff == "fast" {
		policy = asyncjobs.RetryBackoffPolicy(fast)
	}
	client, err := asyncjobs.NewClient(
		asyncjobs.NatsConn(nc),
		asyncjobs.BindWorkQueue(*queue),
		asyncjobs.ClientConcurrency(*concurrency),
		asyncjobs.TaskVerificationKeyHexEncoded(*verify),
		asyncjobs.CustomLogger(logger{debug: *debug}),
		policy,
	)
	if err != nil {
		return err
	}

	gate := newGate(*until)
	gate.quiet = *quiet
	router, err := route(client, *taskType, *mode, gate)
	if err != nil {
		return err
	}
	watcher, err := a.connect()
	if err != nil {
		return err
	}
	defer watcher.Close()
	if err := announce(watcher, *queue, inbox); err != nil {
		return err
	}

	// The library ties the handlers' contexts, and even the save of an outcome, to the context that it runs with: when
	// that is cancelled, what is in work is lost until the run time is over. So let it finish first.
	running, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- client.Run(running, router) }()

	select {
	case err := <-stopped:
		return err
	case <-gate.done:
	case <-ctx.Done():
	}
	calls := gate.close()
	settled := awaitSettled(calls)
	cancel()
	if err := <-stopped; err != nil {
		return err
	}
	if err := nc.FlushTimeout(settleTimeout); err != nil { // the last ack
		return err
	}
	if !settled {
		return fmt.Errorf("%d handler calls, and after %s not all are settled", calls, settleTimeout)
	}
	return printLine(map[string]any{"done": true, "handled": calls})
}

func route(client *asyncjobs.Client, taskType string, mode string, gate *gate) (*asyncjobs.Mux, error) {
	router := asyncjobs.NewTaskRouter()
	var err error
	switch mode {
	case "ok":
		err = router.HandleFunc(taskType, succeed)
	case "fail":
		err = router.HandleFunc(taskType, failFirst)
	case "terminate":
		err = router.HandleFunc(taskType, terminate)
	case "remote":
		err = router.RequestReply(taskType, client)
	default:
		err = fmt.Errorf("unknown mode %q", mode)
	}
	if err != nil {
		return nil, err
	}
	return router, router.Use(gate.report)
}

func succeed(_ context.Context, _ asyncjobs.Logger, t *asyncjobs.Task) (any, error) {
	return map[string]any{"handled_by": "go", "id": t.ID}, nil
}

func failFirst(ctx context.Context, log asyncjobs.Logger, t *asyncjobs.Task) (any, error) {
	if t.Tries == 1 { // counted before the handler is called
		return nil, errors.New("failed on purpose at try 1")
	}
	return succeed(ctx, log, t)
}

func terminate(context.Context, asyncjobs.Logger, *asyncjobs.Task) (any, error) {
	return nil, fmt.Errorf("terminated on purpose: %w", asyncjobs.ErrTerminateTask)
}

// gate counts the handler calls and holds back those beyond the limit: the library polls on as long as it runs.
type gate struct {
	mu       sync.Mutex
	limit    int // 0: none
	started  int
	finished int
	closed   bool
	quiet    bool
	done     chan struct{} // closed when the limit is reached
}

func newGate(limit int) *gate {
	return &gate{limit: limit, done: make(chan struct{})}
}

// enter says whether one more call may begin.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || (g.limit > 0 && g.started == g.limit) {
		return false
	}
	g.started++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.finished++
	if g.finished == g.limit {
		close(g.done)
	}
}

// close lets no more calls begin and says how many there were.
func (g *gate) close() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	return g.started
}

// report is a middleware that prints how each call of the handler ended.
func (g *gate) report(next asyncjobs.HandlerFunc) asyncjobs.HandlerFunc {
	return func(ctx context.Context, log asyncjobs.Logger, t *asyncjobs.Task) (any, error) {
		if !g.enter() {
			// Not ours any more. As after a crash of a worker, the task stays active until its run time is over.
			<-ctx.Done()
			return nil, ctx.Err()
		}
		defer g.leave()
		result, err := next(ctx, log, t)
		if g.quiet {
			return result, err
		}
		line := handled{ID: t.ID, Type: t.Type, Queue: t.Queue, Tries: t.Tries, Outcome: "ok", Result: result}
		if err != nil {
			line.Outcome, line.Error = "error", err.Error()
		}
		if errors.Is(err, asyncjobs.ErrTerminateTask) {
			line.Outcome = "terminate"
		}
		if perr := printLine(map[string]any{"handled": line}); perr != nil {
			return nil, perr
		}
		return result, err
	}
}

// announce prints that the worker is ready when the server sees its first pull. The library says nothing, but a pull is
// a message like any other.
func announce(nc *nats.Conn, queue string, inbox string) error {
	var once sync.Once
	stream := fmt.Sprintf(asyncjobs.WorkStreamNamePattern, queue)
	_, err := nc.Subscribe("$JS.API.CONSUMER.MSG.NEXT."+stream+".WORKERS", func(msg *nats.Msg) {
		if strings.HasPrefix(msg.Reply, inbox) {
			once.Do(func() {
				_ = printLine(map[string]any{"ready": true})
				_ = msg.Sub.Unsubscribe()
			})
		}
	})
	if err != nil {
		return err
	}
	return nc.Flush()
}

// awaitSettled waits until the library has saved the outcomes of this many calls and acknowledged their items. It tells
// only by its metrics: a handler's run time is observed when all of that is done.
func awaitSettled(calls int) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(settleTimeout)
	defer limit.Stop()
	for settledCalls() < calls {
		select {
		case <-tick.C:
		case <-limit.C:
			return false
		}
	}
	return true
}

func settledCalls() int {
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		return 0
	}
	total := 0
	for _, family := range families {
		if family.GetName() != "choria_asyncjobs_handler_runtime" {
			continue
		}
		for _, metric := range family.GetMetric() {
			total += int(metric.GetSummary().GetSampleCount())
		}
	}
	return total
}
