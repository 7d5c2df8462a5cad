package ajtypes_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"asyncjobs-responder/ajtypes"
)

// The golden vectors of this project: bytes that others wrote.
const vectors = "../../../schemas/aj_schemas/vectors"

func TestVectorsKeepAllTheirValues(t *testing.T) {
	tried := map[string]int{}
	err := filepath.WalkDir(vectors, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".json" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var vector struct{ Name, Kind, Text string }
		if err := json.Unmarshal(data, &vector); err != nil {
			return err
		}
		if vector.Kind == "signature" { // a signed task
			vector.Kind = "task"
		}
		value := ajtypes.New(vector.Kind)
		if value == nil || vector.Text == "" {
			return nil
		}
		tried[vector.Kind]++
		decoder := json.NewDecoder(bytes.NewBufferString(vector.Text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(value); err != nil {
			t.Errorf("%s: %v", vector.Name, err)
			return nil
		}
		again, err := json.Marshal(value)
		if err != nil {
			t.Errorf("%s: %v", vector.Name, err)
		} else if !reflect.DeepEqual(tree(t, []byte(vector.Text)), tree(t, again)) {
			t.Errorf("%s:\n was %s\n now %s", vector.Name, vector.Text, again)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for kind, least := range map[string]int{"task": 60, "work_item": 3, "schedule": 8, "task_state_event": 13, "leader_elected_event": 1} {
		if tried[kind] < least {
			t.Errorf("only %d vectors of kind %s", tried[kind], kind)
		}
	}
}

// tree keeps the digits of numbers.
func tree(t *testing.T, data []byte) (value any) {
	decoder := json.NewDecoder(bytes.NewBuffer(data))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		t.Fatal(err)
	}
	return value
}
