package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/choria-io/asyncjobs"
	"github.com/segmentio/ksuid"
)

const (
	queueName = "EMAIL"
	taskType  = "email:new"
)

var (
	created   = time.Date(2024, 2, 29, 16, 5, 6, 123456789, time.UTC)
	tried     = time.Date(2024, 2, 29, 16, 5, 7, 987654321, time.UTC)
	completed = time.Date(2024, 2, 29, 16, 5, 8, 42, time.UTC)
	deadline  = time.Date(2024, 2, 29, 17, 5, 6, 500000000, time.UTC)
	payload   = []byte(`{"to":"a@example.net"}`)
	allBytes  = everyByte()
)

func everyByte() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func source(what string) string {
	return fmt.Sprintf("%s %s, %s", libraryPath, libraryVersion, what)
}

// id is a KSUID that follows from a name, because the library's own are random.
func id(name string) string {
	sum := sha256.Sum256([]byte(name))
	k, err := ksuid.FromParts(created, sum[:16])
	if err != nil {
		panic(err) // 16 bytes are what it wants
	}
	return k.String()
}

func allVectors(s *store) ([]*vector, error) {
	var all []*vector
	for _, part := range []func(*store) ([]*vector, error){
		enqueued, savedTasks, signatures, schedules, events, documented,
	} {
		vectors, err := part(s)
		if err != nil {
			return nil, err
		}
		all = append(all, vectors...)
	}
	return all, nil
}

func (v *vector) from(m *stored) *vector {
	v.Subject = m.subject
	v.Headers = m.headers
	v.setBytes(m.body)
	return v
}

// newTask makes a task with the library's constructor and replaces what it draws at random or from the clock.
func newTask(name string, body []byte, opts ...asyncjobs.TaskOpt) (*asyncjobs.Task, error) {
	task, err := asyncjobs.NewTask(taskType, body, append([]asyncjobs.TaskOpt{rawPayload}, opts...)...)
	if err != nil {
		return nil, err
	}
	task.ID = id(name)
	task.CreatedAt = created
	return task, nil
}

// rawPayload passes payload bytes through: the vectors choose bytes, not values.
func rawPayload(t *asyncjobs.Task) error {
	return asyncjobs.TaskPayloadEncoder(func(value any) ([]byte, error) { return value.([]byte), nil })(t)
}

type taskCase struct {
	name        string
	description string
	change      func(*asyncjobs.Task)
}

func taskCases() []taskCase {
	cases := []taskCase{
		{"task-state-active", "a task that is with a handler for the third time: two tries are counted, the third only when its outcome is saved", func(t *asyncjobs.Task) {
			t.State, t.LastTriedAt, t.Tries = asyncjobs.TaskStateActive, &tried, 2
		}},
		{"task-state-retry", "a task that failed and waits for another try", func(t *asyncjobs.Task) {
			t.State, t.LastTriedAt, t.Tries, t.LastErr = asyncjobs.TaskStateRetry, &tried, 1, "mailbox full"
		}},
		{"task-state-expired", "a task whose tries are used up; the last error is kept", func(t *asyncjobs.Task) {
			t.State, t.LastTriedAt, t.Tries, t.LastErr = asyncjobs.TaskStateExpired, &tried, 10, "mailbox full"
		}},
		{"task-state-expired-deadline", "a task that was never tried before its deadline", func(t *asyncjobs.Task) {
			t.State, t.Deadline = asyncjobs.TaskStateExpired, &deadline
		}},
		{"task-state-terminated", "a task that a handler gave up; the library puts its own words behind the handler's", func(t *asyncjobs.Task) {
			t.State, t.LastTriedAt, t.Tries = asyncjobs.TaskStateTerminated, &tried, 1
			t.LastErr = fmt.Errorf("no such user: %w", asyncjobs.ErrTerminateTask).Error()
		}},
		{"task-state-complete", "a task that succeeded at the first try, in a remote handler: its reply's bytes became a base64 string", func(t *asyncjobs.Task) {
			complete(t, []byte("done"))
		}},
		{"task-state-unreachable", "a task whose dependency failed", func(t *asyncjobs.Task) {
			t.State, t.LastTriedAt = asyncjobs.TaskStateUnreachable, &tried
			t.Dependencies = []string{id("parent")}
			t.LastErr = fmt.Errorf("%w: %v", asyncjobs.ErrTaskDependenciesFailed, error(nil)).Error()
		}},
		{"task-state-unknown", "a task without a state", func(t *asyncjobs.Task) { t.State = asyncjobs.TaskStateUnknown }},

		{"task-time-offset", "times that were given with offsets: the library writes the offset, the instant counts", func(t *asyncjobs.Task) {
			t.CreatedAt = created.In(time.FixedZone("", 5*3600+30*60))
			until := deadline.In(time.FixedZone("", -8*3600))
			t.Deadline = &until
			at := tried.In(time.FixedZone("", 14*3600))
			t.State, t.LastTriedAt, t.Tries = asyncjobs.TaskStateActive, &at, 1
		}},
		{"task-time-zero-offset", "a time in a zone that is not UTC but has no offset is written with Z", func(t *asyncjobs.Task) {
			t.CreatedAt = created.In(time.FixedZone("GMT", 0))
		}},
		{"task-time-before-epoch", "the last nanosecond before 1970", func(t *asyncjobs.Task) { t.CreatedAt = time.Unix(0, -1).UTC() }},

		{"task-payload-null", "no payload", func(t *asyncjobs.Task) { t.Payload = nil }},
		{"task-payload-empty", "a payload of no bytes, which is not the same as none", func(t *asyncjobs.Task) { t.Payload = []byte{} }},
		{"task-payload-not-utf8", "every byte once, in order", func(t *asyncjobs.Task) { t.Payload = allBytes }},
		{"task-payload-unicode", "JSON with characters beyond ASCII", func(t *asyncjobs.Task) { t.Payload = []byte(`{"name":"Żółw 🐢"}`) }},
		{"task-payload-one-byte", "base64 with two padding characters", func(t *asyncjobs.Task) { t.Payload = []byte("0") }},

		{"task-dependencies-results", "the results of the dependencies, one from a remote handler (base64) and one from a Go handler (plain JSON)", func(t *asyncjobs.Task) {
			t.State, t.LastTriedAt, t.LoadDependencies = asyncjobs.TaskStateActive, &tried, true
			t.Dependencies = []string{id("parent"), id("other parent")}
			t.DependencyResults = map[string]*asyncjobs.TaskResult{
				id("parent"):       {Payload: []byte("done"), CompletedAt: completed},
				id("other parent"): {Payload: map[string]any{"rows": 3}, CompletedAt: tried},
			}
		}},

		{"task-last-err-unicode", "an error with characters beyond ASCII", func(t *asyncjobs.Task) { failed(t, "Żółw 🐢 überfordert") }},
		{"task-last-err-control", "an error with line breaks, a tab, quotes, a backslash and control characters", func(t *asyncjobs.Task) {
			failed(t, "line one\nline two\r\n\t\"quoted\" \\ \x00\x01\x07\b\f\x1b\x7f")
		}},
		{"task-last-err-html", "<, > and & are written as escapes", func(t *asyncjobs.Task) { failed(t, "<b>a && b</b>") }},
		{"task-last-err-line-separator", "U+2028 and U+2029 are written as escapes", func(t *asyncjobs.Task) { failed(t, "a\u2028b\u2029c") }},
		{"task-last-err-not-utf8", "bytes that are no UTF-8 become U+FFFD", func(t *asyncjobs.Task) { failed(t, "a\xff\xfeb") }},

		{"task-deadline", "a deadline", func(t *asyncjobs.Task) { t.Deadline = &deadline }},
		{"task-deadline-far", "the last instant that fits 64 bits of nanoseconds", func(t *asyncjobs.Task) {
			far := time.Unix(0, math.MaxInt64).UTC()
			t.Deadline = &far
		}},

		{"task-max-tries-zero", "no limit to the tries", func(t *asyncjobs.Task) { t.MaxTries = 0 }},
		{"task-max-tries-negative", "no limit to the tries, as a queue writes it", func(t *asyncjobs.Task) { t.MaxTries = -1 }},
		{"task-max-tries-above-32-bits", "more tries than 32 bits hold", func(t *asyncjobs.Task) { t.MaxTries = 1 << 32 }},
		{"task-max-tries-huge", "the most tries that there can be", func(t *asyncjobs.Task) { t.MaxTries = math.MaxInt64 }},

		{"task-name-characters", "every kind of character that a name may have, in the id and in the type", func(t *asyncjobs.Task) {
			t.ID, t.Type = "Order_2024-02-29:0001", "_-:Az09:-_"
		}},
	}

	for digits := range 10 {
		unit := int(math.Pow10(9 - digits))
		ns := created.Nanosecond() / unit * unit
		cases = append(cases, taskCase{
			fmt.Sprintf("task-time-fraction-%d", digits),
			fmt.Sprintf("times with %d fractional digits", digits),
			func(t *asyncjobs.Task) {
				t.CreatedAt = created.Truncate(time.Second).Add(time.Duration(ns))
				t.LastTriedAt = &t.CreatedAt
				until := t.CreatedAt.Add(time.Hour)
				t.Deadline = &until
				complete(t, nil)
				t.LastTriedAt = &t.CreatedAt
				t.Result.CompletedAt = t.CreatedAt
			},
		})
	}

	for _, result := range []struct {
		name        string
		description string
		value       any
	}{
		{"bytes-empty", "the empty reply of a remote handler", []byte{}},
		{"bytes-not-utf8", "every byte once, in order, from a remote handler", allBytes},
		{"null", "nothing, from a Go handler", nil},
		{"bool", "a boolean", true},
		{"int", "an integer", -7},
		{"int-above-53-bits", "an integer that a float does not hold; the library itself would round it at its next save", int64(9007199254740993)},
		{"float", "a number with a fraction", 2.5},
		{"float-exponents", "numbers that Go writes with exponents", []float64{1e21, 1e-7, -1.5e300, 1e20, 1e-6}},
		{"string", "a string, as an external command gives it; whether it is base64 cannot be told", "done"},
		{"string-escapes", "a string that Go writes with escapes", "<p>a & b</p>\u2028\n\"🐢\""},
		{"list", "a list", []any{1, "two", nil, []any{false}}},
		{"map", "a map; Go writes its keys sorted", map[string]any{"rows": 3, "a<b": map[string]any{}, "ż": "🐢", "list": []int{}}},
	} {
		cases = append(cases, taskCase{
			"task-result-" + result.name,
			"a result: " + result.description,
			func(t *asyncjobs.Task) { complete(t, result.value) },
		})
	}
	return cases
}

func complete(t *asyncjobs.Task, result any) {
	t.State, t.LastTriedAt, t.Tries = asyncjobs.TaskStateCompleted, &tried, 1
	t.Result = &asyncjobs.TaskResult{Payload: result, CompletedAt: completed}
}

func failed(t *asyncjobs.Task, text string) {
	t.State, t.LastTriedAt, t.Tries, t.LastErr = asyncjobs.TaskStateRetry, &tried, 1, text
}

// savedTasks are records in every state, saved by the function with which the worker saves them.
func savedTasks(s *store) ([]*vector, error) {
	var vectors []*vector
	for _, c := range taskCases() {
		task, err := newTask(c.name, payload)
		if err != nil {
			return nil, err
		}
		task.Queue = queueName
		c.change(task)
		m, err := s.save(task)
		if err != nil {
			return nil, err
		}
		v := &vector{Name: c.name, Kind: kindTask, Description: c.description, Source: source("Storage.SaveTaskState"), Decoded: decodeTask(task)}
		vectors = append(vectors, v.from(m))
	}
	return vectors, nil
}

// enqueued are the records and the work items of tasks that went through a client.
func enqueued(s *store) ([]*vector, error) {
	var vectors []*vector
	ctx := context.Background()
	client, err := asyncjobs.NewClient(asyncjobs.NatsConn(s.nc), asyncjobs.BindWorkQueue(queueName))
	if err != nil {
		return nil, err
	}

	addTask := func(name string, description string, what string, task *asyncjobs.Task) error {
		if err := s.readsBack(s.client, task); err != nil {
			return err
		}
		m, err := s.task(task.ID)
		if err != nil {
			return err
		}
		v := &vector{Name: name, Kind: kindTask, Description: description, Source: source(what), Decoded: decodeTask(task)}
		vectors = append(vectors, v.from(m))
		return nil
	}
	addItem := func(name string, description string, what string, taskID string) error {
		m, err := s.item(queueName, taskID)
		if err != nil {
			return err
		}
		v := &vector{Name: name, Kind: kindWorkItem, Description: description, Source: source(what)}
		v.Decoded = decodedItem{Kind: int(asyncjobs.TaskItem), Job: taskID}
		vectors = append(vectors, v.from(m))
		return nil
	}

	task, err := newTask("task-state-new", payload)
	if err != nil {
		return nil, err
	}
	if err := client.EnqueueTask(ctx, task); err != nil {
		return nil, err
	}
	if err := addTask("task-state-new", "a new task with what the library fills in", "Client.EnqueueTask", task); err != nil {
		return nil, err
	}
	if err := addItem("work-item-new", "the work item of a new task; it is deduplicated by the task's id", "Client.EnqueueTask", task.ID); err != nil {
		return nil, err
	}

	task, err = newTask("task-id-custom", nil, asyncjobs.TaskDependsOnIDs(id("parent"), id("other parent")), asyncjobs.TaskMaxTries(3))
	if err != nil {
		return nil, err
	}
	task.ID = "report:2024-02_1"
	if err := client.EnqueueTask(ctx, task); err != nil {
		return nil, err
	}
	if err := addTask("task-state-blocked", "a task that waits for two others, under an id of its own", "Client.EnqueueTask", task); err != nil {
		return nil, err
	}
	if err := addItem("work-item-blocked", "the work item of a blocked task looks like any other", "Client.EnqueueTask", task.ID); err != nil {
		return nil, err
	}

	task, err = newTask("task-dependencies-load", payload, asyncjobs.TaskDependsOnIDs(id("parent")), asyncjobs.TaskRequiresDependencyResults())
	if err != nil {
		return nil, err
	}
	if err := client.EnqueueTask(ctx, task); err != nil {
		return nil, err
	}
	if err := addTask("task-dependencies-load", "a task that wants the results of its dependency", "Client.EnqueueTask", task); err != nil {
		return nil, err
	}

	// The scheduler gives the bytes of a schedule's payload to NewTask, which marshals them: []byte becomes a string.
	fired, err := asyncjobs.NewTask(taskType, payload)
	if err != nil {
		return nil, err
	}
	fired.ID, fired.CreatedAt = id("task-payload-encoded-twice"), created
	if err := client.EnqueueTask(ctx, fired); err != nil {
		return nil, err
	}
	if err := addTask("task-payload-encoded-twice", "a task as the Go project's scheduler makes it: the payload is a JSON string that holds the schedule's payload in base64", "NewTask with []byte, Client.EnqueueTask", fired); err != nil {
		return nil, err
	}

	task, err = newTask("task-state-queue-error", payload)
	if err != nil {
		return nil, err
	}
	if err := s.tasks.EnqueueTask(ctx, &asyncjobs.Queue{Name: "GONE"}, task); !errors.Is(err, asyncjobs.ErrQueueNotFound) {
		return nil, fmt.Errorf("enqueueing to a queue that is not there: %v", err)
	}
	if err := addTask("task-state-queue_error", "a task whose queue is not there", "Storage.EnqueueTask", task); err != nil {
		return nil, err
	}

	task, err = newTask("task-retried", payload)
	if err != nil {
		return nil, err
	}
	task.Queue = queueName
	complete(task, []byte("done"))
	if _, err := s.save(task); err != nil {
		return nil, err
	}
	if err := client.RetryTaskByID(ctx, task.ID); err != nil {
		return nil, err
	}
	task.State, task.Result = asyncjobs.TaskStateRetry, nil
	if err := addTask("task-retried", "a complete task that was retried by hand: the result is gone, the tries and their time stay", "Client.RetryTaskByID", task); err != nil {
		return nil, err
	}
	if err := addItem("work-item-retry", "the work item of a task that was retried by hand; it is not deduplicated", "Client.RetryTaskByID", task.ID); err != nil {
		return nil, err
	}

	return vectors, nil
}

func schedules(s *store) ([]*vector, error) {
	var vectors []*vector
	for _, c := range []struct {
		name        string
		description string
		change      func(*asyncjobs.ScheduledTask)
	}{
		{"schedule-cron", "five cron fields", func(*asyncjobs.ScheduledTask) {}},
		{"schedule-daily", "a named schedule", func(st *asyncjobs.ScheduledTask) { st.Schedule = "@daily" }},
		{"schedule-every", "an interval", func(st *asyncjobs.ScheduledTask) { st.Schedule = "@every 1h30m10s" }},
		{"schedule-zone", "five cron fields in a time zone", func(st *asyncjobs.ScheduledTask) { st.Schedule = "CRON_TZ=Europe/Malta 0 6 1 * *" }},
		{"schedule-payload-null", "no payload", func(st *asyncjobs.ScheduledTask) { st.Payload = nil }},
		{"schedule-payload-not-utf8", "every byte once, in order", func(st *asyncjobs.ScheduledTask) { st.Payload = allBytes }},
		{"schedule-deadline", "tasks with a deadline, the shortest that the library takes", func(st *asyncjobs.ScheduledTask) { st.Deadline = asyncjobs.ShortedScheduledDeadline }},
		{"schedule-max-tries", "tasks with few tries", func(st *asyncjobs.ScheduledTask) { st.MaxTries = 1 }},
	} {
		schedule := &asyncjobs.ScheduledTask{
			Name:      strings.TrimPrefix(c.name, "schedule-"),
			Schedule:  "*/15 6-18 * jan,feb mon-fri",
			Queue:     queueName,
			TaskType:  taskType,
			Payload:   payload,
			MaxTries:  asyncjobs.DefaultMaxTries,
			CreatedAt: created,
		}
		c.change(schedule)
		if err := s.client.ScheduledTasksStorage().SaveScheduledTask(schedule, false); err != nil {
			return nil, err
		}
		m, err := s.schedule(schedule.Name)
		if err != nil {
			return nil, err
		}
		v := &vector{Name: c.name, Kind: kindSchedule, Description: c.description, Source: source("ScheduledTaskStorage.SaveScheduledTask"), Decoded: decodeSchedule(schedule)}
		vectors = append(vectors, v.from(m))
	}
	return vectors, nil
}

// events are marshalled here, not by the library: it publishes them with a random id, the time and the task's age, and
// leaves no moment to set them. Both do the same json.Marshal of the same value.
func events(*store) ([]*vector, error) {
	var vectors []*vector
	for _, c := range []struct {
		name        string
		description string
		change      func(*asyncjobs.Task)
		age         time.Duration
	}{
		{"task-event-new", "a task was enqueued", nil, 767984999},
		{"task-event-active", "a task was given to a handler", func(t *asyncjobs.Task) { t.State = asyncjobs.TaskStateActive }, time.Second},
		{"task-event-retry", "a task failed", func(t *asyncjobs.Task) { failed(t, "<mailbox> full & closed") }, 90 * time.Second},
		{"task-event-expired", "a task ran out of tries", func(t *asyncjobs.Task) {
			t.State, t.Tries, t.LastErr = asyncjobs.TaskStateExpired, 10, "mailbox full"
		}, 365 * 24 * time.Hour},
		{"task-event-terminated", "a handler gave a task up", func(t *asyncjobs.Task) {
			t.State, t.Tries, t.LastErr = asyncjobs.TaskStateTerminated, 1, asyncjobs.ErrTerminateTask.Error()
		}, time.Second},
		{"task-event-complete", "a task succeeded", func(t *asyncjobs.Task) { complete(t, "done") }, 2 * time.Second},
		{"task-event-queue_error", "a task's work item could not be published", func(t *asyncjobs.Task) {
			t.State, t.LastErr = asyncjobs.TaskStateQueueError, "nats: no responders available for request"
		}, time.Millisecond},
		{"task-event-blocked", "a task with dependencies was enqueued", func(t *asyncjobs.Task) { t.State = asyncjobs.TaskStateBlocked }, time.Millisecond},
		{"task-event-unreachable", "a task's dependency failed", func(t *asyncjobs.Task) {
			t.State, t.LastErr = asyncjobs.TaskStateUnreachable, asyncjobs.ErrTaskDependenciesFailed.Error()
		}, time.Minute},
		{"task-event-unknown", "a task without a state", func(t *asyncjobs.Task) { t.State = asyncjobs.TaskStateUnknown }, time.Second},
		{"task-event-no-queue", "no queue: the key is left out", func(t *asyncjobs.Task) { t.Queue = "" }, time.Second},
		{"task-event-no-age", "no age, as for a task without a time of creation: the key is left out", nil, 0},
		{"task-event-age-negative", "a task from a machine whose clock is ahead", nil, -1500 * time.Millisecond},
	} {
		task, err := newTask(c.name, payload)
		if err != nil {
			return nil, err
		}
		task.Queue = queueName
		if c.change != nil {
			c.change(task)
		}
		event, err := asyncjobs.NewTaskStateChangeEvent(task)
		if err != nil {
			return nil, err
		}
		event.EventID, event.TimeStamp, event.Age = id(c.name+" event"), created.Truncate(time.Second), c.age
		body, err := json.Marshal(event)
		if err != nil {
			return nil, err
		}
		v := &vector{
			Name: c.name, Kind: kindTaskEvent, Description: c.description, Source: source("TaskStateChangeEvent"),
			Subject: fmt.Sprintf(asyncjobs.TaskStateChangeEventSubjectPattern, task.ID), Decoded: decodeTaskEvent(event),
		}
		v.setBytes(body)
		vectors = append(vectors, v)
	}

	leader, err := asyncjobs.NewLeaderElectedEvent("scheduler-1.example.net", "task_scheduler")
	if err != nil {
		return nil, err
	}
	leader.EventID, leader.TimeStamp = id("leader event"), created
	body, err := json.Marshal(leader)
	if err != nil {
		return nil, err
	}
	v := &vector{
		Name: "leader-elected-event", Kind: kindLeader, Description: "a scheduler became the leader", Source: source("LeaderElectedEvent"),
		Subject: fmt.Sprintf(asyncjobs.LeaderElectedEventSubjectPattern, leader.Component), Decoded: decodeLeaderEvent(leader),
	}
	v.setBytes(body)
	vectors = append(vectors, v)

	for _, v := range vectors {
		if _, kind, err := asyncjobs.ParseEventJSON([]byte(*v.Text)); err != nil {
			return nil, fmt.Errorf("the library does not read its own %s event: %w", kind, err)
		}
	}
	return vectors, nil
}
