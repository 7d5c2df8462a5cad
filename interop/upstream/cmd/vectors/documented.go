package main

import (
	"encoding/json"

	"github.com/choria-io/asyncjobs"
)

// completedInDocumentation is the task that the project's first overview prints. It was written before the library knew
// max_tries.
const completedInDocumentation = `{
  "id": "24ErgVol4ZjpoQ8FAima9R2jEHB",
  "type": "example",
  "queue": "TEST",
  "payload": "eyJoZWxsbyI6IndvcmxkIn0=",
  "result": {
    "payload": "ZG9uZQ==",
    "completed": "2022-01-26T14:46:09.427182Z"
  },
  "state": "complete",
  "created": "2022-01-26T14:46:09.232015Z",
  "tried": "2022-01-26T14:46:09.427182Z",
  "tries": 1
}`

func documented(*store) ([]*vector, error) {
	task := &asyncjobs.Task{}
	if err := json.Unmarshal([]byte(completedInDocumentation), task); err != nil {
		return nil, err
	}
	// The library of today reads 0 here, which means no limit; the one that wrote the record meant the default.
	task.MaxTries = asyncjobs.DefaultMaxTries
	v := &vector{
		Name:        "task-seed-004",
		Kind:        kindTask,
		Description: "a complete task as the documentation prints it: indented, and without max_tries, for which a reader puts 10",
		Source:      "the Go project's documentation",
		Decoded:     decodeTask(task),
	}
	v.setBytes([]byte(completedInDocumentation))
	return []*vector{v}, nil
}
