package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/choria-io/asyncjobs"
	"github.com/nats-io/jsm.go"
	"github.com/nats-io/jsm.go/api"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// store is a NATS server inside this process with the Go project's library on it. It exists because the library signs
// a task, and writes a work item, only on the way into JetStream.
type store struct {
	server *server.Server
	dir    string
	nc     *nats.Conn
	mgr    *jsm.Manager
	client *asyncjobs.Client
	admin  asyncjobs.StorageAdmin
	// tasks is the same object as admin. Its type is exported, so that records can be saved exactly as the worker
	// saves them, in states that a client alone never reaches.
	tasks asyncjobs.Storage
}

// stored is a message as it lies in JetStream.
type stored struct {
	subject string
	headers map[string]string
	body    []byte
}

const startTimeout = 30 * time.Second

func openStore() (_ *store, err error) {
	s := &store{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()

	s.dir, err = os.MkdirTemp("", "vectors-")
	if err != nil {
		return nil, err
	}
	s.server, err = server.NewServer(&server.Options{
		ServerName: "vectors",
		DontListen: true, // nobody else is to talk to it
		JetStream:  true,
		StoreDir:   s.dir,
		NoLog:      true,
		NoSigs:     true,
	})
	if err != nil {
		return nil, err
	}
	s.server.Start()
	if !s.server.ReadyForConnections(startTimeout) {
		return nil, fmt.Errorf("the NATS server in this process is not ready after %s", startTimeout)
	}
	s.nc, err = nats.Connect("", nats.InProcessServer(s.server), nats.UseOldRequestStyle())
	if err != nil {
		return nil, err
	}
	s.mgr, err = jsm.New(s.nc)
	if err != nil {
		return nil, err
	}
	s.client, err = asyncjobs.NewClient(asyncjobs.NatsConn(s.nc), asyncjobs.NoStorageInit())
	if err != nil {
		return nil, err
	}
	s.admin = s.client.StorageAdmin()
	s.tasks = s.admin.(asyncjobs.Storage)
	if err = s.admin.PrepareTasks(false, 1, 0); err != nil {
		return nil, err
	}
	if err = s.admin.PrepareConfigurationStore(false, 1); err != nil {
		return nil, err
	}
	return s, s.admin.PrepareQueue(&asyncjobs.Queue{Name: queueName}, 1, false)
}

func (s *store) close() {
	if s.nc != nil {
		s.nc.Close()
	}
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

func (s *store) last(stream string, subject string) (*stored, error) {
	msg, err := s.mgr.ReadLastMessageForSubject(stream, subject)
	if err != nil {
		return nil, fmt.Errorf("%s in %s: %w", subject, stream, err)
	}
	headers, err := headersOf(msg)
	if err != nil {
		return nil, fmt.Errorf("%s in %s: %w", subject, stream, err)
	}
	return &stored{subject: msg.Subject, headers: headers, body: msg.Data}, nil
}

func (s *store) task(id string) (*stored, error) {
	return s.last(asyncjobs.TasksStreamName, fmt.Sprintf(asyncjobs.TasksStreamSubjectPattern, id))
}

func (s *store) item(queue string, id string) (*stored, error) {
	return s.last(fmt.Sprintf(asyncjobs.WorkStreamNamePattern, queue), fmt.Sprintf(asyncjobs.WorkStreamSubjectPattern, queue, id))
}

func (s *store) schedule(name string) (*stored, error) {
	return s.last("KV_"+asyncjobs.ConfigBucketName, fmt.Sprintf("$KV.%s.scheduled_tasks.%s", asyncjobs.ConfigBucketName, name))
}

// save stores a task as the worker does, and proves that the library reads back what it wrote.
func (s *store) save(task *asyncjobs.Task) (*stored, error) {
	if err := s.tasks.SaveTaskState(context.Background(), task, false); err != nil {
		return nil, fmt.Errorf("saving %s: %w", task.ID, err)
	}
	if err := s.readsBack(s.client, task); err != nil {
		return nil, err
	}
	return s.task(task.ID)
}

func (s *store) readsBack(client *asyncjobs.Client, task *asyncjobs.Task) error {
	loaded, err := client.LoadTaskByID(task.ID)
	if err != nil {
		return fmt.Errorf("loading %s: %w", task.ID, err)
	}
	wrote, err := neutral(task)
	if err != nil {
		return err
	}
	read, err := neutral(loaded)
	if err != nil {
		return err
	}
	if wrote != read {
		return fmt.Errorf("the library wrote %s and read %s", wrote, read)
	}
	return nil
}

// neutral is a task's neutral form without the results: their numbers become floats when the library reads them.
func neutral(task *asyncjobs.Task) (string, error) {
	decoded := decodeTask(task)
	if decoded.Result != nil {
		decoded.Result.Payload = nil
	}
	for _, result := range decoded.DependencyResults {
		result.Payload = nil
	}
	text, err := json.Marshal(decoded)
	return string(text), err
}

func headersOf(msg *api.StoredMsg) (map[string]string, error) {
	if len(msg.Header) == 0 {
		return nil, nil
	}
	header, err := nats.DecodeHeadersMsg(msg.Header)
	if err != nil {
		return nil, err
	}
	flat := map[string]string{}
	for key, values := range header {
		flat[key] = strings.Join(values, ", ")
	}
	return flat, nil
}
