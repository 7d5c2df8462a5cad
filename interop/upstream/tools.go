//go:build tools

// Package upstream only keeps in go.mod the programs that `build` builds from other modules. The tag is never set:
// Go refuses to compile an import of a program, but `go mod tidy` looks at the import all the same.
package upstream

import (
	_ "github.com/choria-io/asyncjobs/ajc"
	_ "github.com/nats-io/natscli/nats"
)
