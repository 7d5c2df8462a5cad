package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/choria-io/asyncjobs"
)

// vector is one golden file: bytes that the Go project wrote, and what a reader must make of them.
type vector struct {
	Name        string `json:"name"`
	Kind        string `json:"kind"`
	Description string `json:"description"`
	Source      string `json:"source"`
	// Subject and Headers are those of the message in JetStream, where the library stored the bytes there.
	Subject     string            `json:"subject,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	BytesBase64 string            `json:"bytes_base64"`
	Text        *string           `json:"text,omitempty"`
	Decoded     any               `json:"decoded"`
}

const (
	kindTask      = "task"
	kindWorkItem  = "work_item"
	kindTaskEvent = "task_state_event"
	kindLeader    = "leader_elected_event"
	kindSchedule  = "schedule"
	kindSignature = "signature"
)

func (v *vector) setBytes(b []byte) {
	v.BytesBase64 = base64.StdEncoding.EncodeToString(b)
	if utf8.Valid(b) {
		text := string(b)
		v.Text = &text
	}
}

// file is the vector as it stands on disk.
func (v *vector) file() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	// People read these files: `<` says more than `\u003c`. The exact bytes are in bytes_base64.
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("%s: %w", v.Name, err)
	}
	return buf.Bytes(), nil
}

// The decoded forms below name every value, also those that the record leaves out, and count time in nanoseconds, so
// that a test compares field by field and needs no date library.

type decodedResult struct {
	Payload     any   `json:"payload"`
	CompletedNs int64 `json:"completed_ns"`
}

type decodedTask struct {
	ID                string                    `json:"id"`
	Type              string                    `json:"type"`
	Queue             string                    `json:"queue"`
	Dependencies      []string                  `json:"dependencies"`
	DependencyResults map[string]*decodedResult `json:"dependency_results"`
	LoadDependencies  bool                      `json:"load_dependencies"`
	PayloadBase64     *string                   `json:"payload_base64"`
	DeadlineNs        *int64                    `json:"deadline_ns"`
	MaxTries          int                       `json:"max_tries"`
	Result            *decodedResult            `json:"result"`
	State             string                    `json:"state"`
	CreatedNs         int64                     `json:"created_ns"`
	TriedNs           *int64                    `json:"tried_ns"`
	Tries             int                       `json:"tries"`
	LastErr           string                    `json:"last_err"`
	Signature         string                    `json:"signature"`
}

type decodedSignature struct {
	decodedTask
	SeedHex       string `json:"seed_hex"`
	PublicKeyHex  string `json:"public_key_hex"`
	SignedMessage string `json:"signed_message"`
}

type decodedItem struct {
	Kind int    `json:"kind"`
	Job  string `json:"job"`
}

type decodedTaskEvent struct {
	EventID     string `json:"event_id"`
	Type        string `json:"type"`
	TimestampNs int64  `json:"timestamp_ns"`
	TaskID      string `json:"task_id"`
	State       string `json:"state"`
	Tries       int    `json:"tries"`
	Queue       string `json:"queue"`
	TaskType    string `json:"task_type"`
	LastError   string `json:"last_error"`
	TaskAgeNs   int64  `json:"task_age_ns"`
}

type decodedLeaderEvent struct {
	EventID     string `json:"event_id"`
	Type        string `json:"type"`
	TimestampNs int64  `json:"timestamp_ns"`
	Name        string `json:"name"`
	Component   string `json:"component"`
}

type decodedSchedule struct {
	Name          string  `json:"name"`
	Schedule      string  `json:"schedule"`
	Queue         string  `json:"queue"`
	TaskType      string  `json:"task_type"`
	PayloadBase64 *string `json:"payload_base64"`
	DeadlineNs    *int64  `json:"deadline_ns"`
	MaxTries      int     `json:"max_tries"`
	CreatedNs     int64   `json:"created_ns"`
}

func decodeTask(t *asyncjobs.Task) decodedTask {
	d := decodedTask{
		ID:                t.ID,
		Type:              t.Type,
		Queue:             t.Queue,
		Dependencies:      append([]string{}, t.Dependencies...),
		DependencyResults: map[string]*decodedResult{},
		LoadDependencies:  t.LoadDependencies,
		PayloadBase64:     base64OrNil(t.Payload),
		DeadlineNs:        nsOrNil(t.Deadline),
		MaxTries:          t.MaxTries,
		Result:            decodeResult(t.Result),
		State:             string(t.State),
		CreatedNs:         t.CreatedAt.UnixNano(),
		TriedNs:           nsOrNil(t.LastTriedAt),
		Tries:             t.Tries,
		LastErr:           string([]rune(t.LastErr)), // U+FFFD for each stray byte, as in the record
		Signature:         t.Signature,
	}
	for id, result := range t.DependencyResults {
		d.DependencyResults[id] = decodeResult(result)
	}
	return d
}

func decodeResult(r *asyncjobs.TaskResult) *decodedResult {
	if r == nil {
		return nil
	}
	return &decodedResult{Payload: r.Payload, CompletedNs: r.CompletedAt.UnixNano()}
}

func decodeSchedule(s *asyncjobs.ScheduledTask) decodedSchedule {
	d := decodedSchedule{
		Name:          s.Name,
		Schedule:      s.Schedule,
		Queue:         s.Queue,
		TaskType:      s.TaskType,
		PayloadBase64: base64OrNil(s.Payload),
		MaxTries:      s.MaxTries,
		CreatedNs:     s.CreatedAt.UnixNano(),
	}
	if s.Deadline != 0 {
		ns := int64(s.Deadline)
		d.DeadlineNs = &ns
	}
	return d
}

func decodeTaskEvent(e *asyncjobs.TaskStateChangeEvent) decodedTaskEvent {
	return decodedTaskEvent{
		EventID:     e.EventID,
		Type:        e.EventType,
		TimestampNs: e.TimeStamp.UnixNano(),
		TaskID:      e.TaskID,
		State:       string(e.State),
		Tries:       e.Tries,
		Queue:       e.Queue,
		TaskType:    e.TaskType,
		LastError:   e.LastErr,
		TaskAgeNs:   int64(e.Age),
	}
}

func decodeLeaderEvent(e *asyncjobs.LeaderElectedEvent) decodedLeaderEvent {
	return decodedLeaderEvent{
		EventID:     e.EventID,
		Type:        e.EventType,
		TimestampNs: e.TimeStamp.UnixNano(),
		Name:        e.Name,
		Component:   e.Component,
	}
}

func base64OrNil(b []byte) *string {
	if b == nil {
		return nil
	}
	text := base64.StdEncoding.EncodeToString(b)
	return &text
}

func nsOrNil(t *time.Time) *int64 {
	if t == nil {
		return nil
	}
	ns := t.UnixNano()
	return &ns
}
