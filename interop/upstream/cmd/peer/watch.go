package main

import (
	"context"
	"errors"

	"github.com/choria-io/asyncjobs"
	"github.com/nats-io/nats.go"
)

type watched struct {
	Subject string `json:"subject"`
	Type    string `json:"type"`
	Event   any    `json:"event,omitempty"`
	Error   string `json:"error,omitempty"`
}

func watch(ctx context.Context, args []string) error {
	a := newArguments("watch")
	until := a.Int("until", 0, "exit after this many events; 0: at SIGTERM")
	if err := a.read(args); err != nil {
		return err
	}
	nc, err := a.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	messages := make(chan *nats.Msg, 1024)
	sub, err := nc.ChanSubscribe(asyncjobs.EventsSubjectWildcard, messages)
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	// Ready means that no event after this line is missed: the server has the subscription.
	if err := nc.Flush(); err != nil {
		return err
	}
	if err := printLine(map[string]any{"ready": true}); err != nil {
		return err
	}
	for seen := 0; *until == 0 || seen < *until; seen++ {
		select {
		case <-ctx.Done():
			return nil
		case msg, ok := <-messages:
			if !ok {
				return errors.New("the connection was closed")
			}
			line := watched{Subject: msg.Subject}
			line.Event, line.Type, err = asyncjobs.ParseEventJSON(msg.Data)
			if err != nil {
				line.Error = err.Error()
			}
			if err := printLine(line); err != nil {
				return err
			}
		}
	}
	return nil
}
