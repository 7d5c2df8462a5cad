// Command peer is the other side of the two-way tests: a producer, a worker and a watcher that use the Go project's
// own library for everything about jobs, driven from outside by arguments.
//
// It prints JSON lines on standard output and errors on standard error; it judges nothing, the tests do.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/nats-io/nats.go"
)

type command struct {
	name string
	does string
	run  func(ctx context.Context, args []string) error
}

func commands() []command {
	return []command{
		{"init", "make the task store and the configuration and election buckets", initStore},
		{"queue", "make a queue", makeQueue},
		{"enqueue", "put tasks in a queue that is there", enqueue},
		{"load", "print a task as the library reads it", load},
		{"retry", "retry a task by hand", retry},
		{"work", "run the library's worker", work},
		{"watch", "print the events that the library understands, and those that it refuses", watch},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 {
		for _, c := range commands() {
			if c.name != os.Args[1] {
				continue
			}
			if err := c.run(ctx, os.Args[2:]); err != nil && !errors.Is(err, flag.ErrHelp) {
				fmt.Fprintf(os.Stderr, "peer %s: %v\n", c.name, err)
				os.Exit(1)
			}
			return
		}
	}
	fmt.Fprintln(os.Stderr, "usage: peer COMMAND --server URL ... (peer COMMAND --help)")
	for _, c := range commands() {
		fmt.Fprintf(os.Stderr, "  %-8s %s\n", c.name, c.does)
	}
	os.Exit(1)
}

// arguments are a command's flags; every command has --server.
type arguments struct {
	*flag.FlagSet
	server string
}

func newArguments(name string) *arguments {
	a := &arguments{FlagSet: flag.NewFlagSet("peer "+name, flag.ContinueOnError)}
	a.StringVar(&a.server, "server", "", "`URL` of the NATS server")
	return a
}

// read parses the arguments and refuses those that lack one of the required ones.
func (a *arguments) read(args []string, required ...string) error {
	if err := a.Parse(args); err != nil {
		return err
	}
	if a.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", a.Arg(0))
	}
	for _, name := range append([]string{"server"}, required...) {
		if a.Lookup(name).Value.String() == "" {
			return fmt.Errorf("--%s is missing", name)
		}
	}
	return nil
}

// connect makes a connection of the only kind that the library takes: with the old request style, because its pulls
// are requests whose answers carry other subjects than their inbox.
func (a *arguments) connect(opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect(a.server, append([]nats.Option{nats.UseOldRequestStyle(), nats.Name(a.Name())}, opts...)...)
}

var printing sync.Mutex

// printLine writes one JSON line; handlers of several tasks print at the same time.
func printLine(value any) error {
	printing.Lock()
	defer printing.Unlock()
	enc := json.NewEncoder(os.Stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(value)
}

// logger passes on what the library complains about; everything else only when asked for.
type logger struct {
	debug bool
}

func (l logger) print(level string, format string, v ...any) {
	fmt.Fprintf(os.Stderr, level+" "+format+"\n", v...)
}

func (l logger) Debugf(format string, v ...any) {
	if l.debug {
		l.print("debug", format, v...)
	}
}

func (l logger) Infof(format string, v ...any) {
	if l.debug {
		l.print("info", format, v...)
	}
}

func (l logger) Warnf(format string, v ...any)  { l.print("warn", format, v...) }
func (l logger) Errorf(format string, v ...any) { l.print("error", format, v...) }
