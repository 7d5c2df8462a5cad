package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/choria-io/asyncjobs"
)

// signatures are tasks that the library signed while it enqueued them.
func signatures(s *store) ([]*vector, error) {
	var vectors []*vector
	for _, c := range []struct {
		name        string
		description string
		seed        byte
		change      func(*asyncjobs.Task)
	}{
		{"signature-no-deadline", "no deadline: the message has 0 in its place", 1, func(*asyncjobs.Task) {}},
		{"signature-deadline", "the deadline is part of the message", 1, func(t *asyncjobs.Task) { t.Deadline = &deadline }},
		{"signature-payload-null", "no payload: the message ends with a colon", 1, func(t *asyncjobs.Task) { t.Payload = nil }},
		{"signature-payload-not-utf8", "the message has the payload in padded base64", 1, func(t *asyncjobs.Task) { t.Payload = allBytes }},
		{"signature-max-tries-negative", "the sign is part of the message", 1, func(t *asyncjobs.Task) { t.MaxTries = -1 }},
		{"signature-offset", "instants are signed, not their spelling", 1, func(t *asyncjobs.Task) {
			until := deadline.In(time.FixedZone("", -8*3600))
			t.CreatedAt, t.Deadline = created.In(time.FixedZone("", 5*3600+30*60)), &until
		}},
		{"signature-whole-second", "times are signed in nanoseconds however many digits are written", 1, func(t *asyncjobs.Task) {
			t.CreatedAt = created.Truncate(time.Second)
		}},
		{"signature-blocked", "dependencies are not part of the message", 1, func(t *asyncjobs.Task) {
			t.State, t.Dependencies, t.LoadDependencies = asyncjobs.TaskStateBlocked, []string{id("parent")}, true
		}},
		{"signature-other-key", "the same kind of task under another key", 2, func(*asyncjobs.Task) {}},
	} {
		seed := make([]byte, ed25519.SeedSize)
		for i := range seed {
			seed[i] = c.seed * byte(i+1)
		}
		key := ed25519.NewKeyFromSeed(seed)
		public := key.Public().(ed25519.PublicKey)

		task, err := newTask(c.name, payload)
		if err != nil {
			return nil, err
		}
		c.change(task)
		signer, err := asyncjobs.NewClient(asyncjobs.NatsConn(s.nc), asyncjobs.BindWorkQueue(queueName), asyncjobs.TaskSigningKey(key))
		if err != nil {
			return nil, err
		}
		if err := signer.EnqueueTask(context.Background(), task); err != nil {
			return nil, err
		}
		verifier, err := asyncjobs.NewClient(asyncjobs.NatsConn(s.nc), asyncjobs.BindWorkQueue(queueName), asyncjobs.TaskVerificationKey(public))
		if err != nil {
			return nil, err
		}
		if err := s.readsBack(verifier, task); err != nil {
			return nil, err
		}
		message, err := signedMessage(task, public)
		if err != nil {
			return nil, err
		}
		m, err := s.task(task.ID)
		if err != nil {
			return nil, err
		}
		v := &vector{
			Name: c.name, Kind: kindSignature, Description: c.description, Source: source("Client.EnqueueTask with TaskSigningKey"),
			Decoded: decodedSignature{
				decodedTask:   decodeTask(task),
				SeedHex:       hex.EncodeToString(seed),
				PublicKeyHex:  hex.EncodeToString(public),
				SignedMessage: message,
			},
		}
		vectors = append(vectors, v.from(m))
	}
	return vectors, nil
}

// signedMessage says over which text the library signed. It keeps its own function to itself, so the text is put
// together again here, and the library's signature must be valid for it.
func signedMessage(t *asyncjobs.Task, public ed25519.PublicKey) (string, error) {
	var until int64
	if t.Deadline != nil {
		until = t.Deadline.UnixNano()
	}
	message := fmt.Sprintf("%s:%s:%s:%d:%d:%d:%s",
		t.ID, t.Queue, t.Type, t.MaxTries, t.CreatedAt.UnixNano(), until, base64.StdEncoding.EncodeToString(t.Payload))
	signature, err := hex.DecodeString(t.Signature)
	if err != nil {
		return "", err
	}
	if !ed25519.Verify(public, []byte(message), signature) {
		return "", fmt.Errorf("the library's signature of %s is not over %q", t.ID, message)
	}
	return message, nil
}
