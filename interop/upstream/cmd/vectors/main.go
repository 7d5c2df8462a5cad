// Command vectors writes golden vectors: bytes that the Go project's own library wrote, and what they mean.
//
// It knows the library's types and its storage; it knows nothing of our own code, so that the two can disagree.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
)

const (
	libraryPath    = "github.com/choria-io/asyncjobs"
	libraryVersion = "v0.3.0"
	suffix         = ".json"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "vectors: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("vectors", flag.ContinueOnError)
	out := flags.String("out", "", "write the vectors into this `directory`")
	check := flags.String("check", "", "compare with the vectors in this `directory`; fail at the first difference")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 || (*out == "") == (*check == "") {
		return errors.New("give either --out or --check, and a directory")
	}
	if err := checkLibrary(); err != nil {
		return err
	}

	files, err := generate()
	if err != nil {
		return err
	}
	if *check != "" {
		return compare(*check, files)
	}
	return write(*out, files)
}

// file is a vector as it stands on disk.
type file struct {
	name string
	body []byte
}

func generate() ([]file, error) {
	s, err := openStore()
	if err != nil {
		return nil, err
	}
	defer s.close()

	vectors, err := allVectors(s)
	if err != nil {
		return nil, err
	}
	var files []file
	seen := map[string]bool{}
	for _, v := range vectors {
		if seen[v.Name] {
			return nil, fmt.Errorf("two vectors are called %s", v.Name)
		}
		seen[v.Name] = true
		body, err := v.file()
		if err != nil {
			return nil, err
		}
		files = append(files, file{name: v.Name + suffix, body: body})
	}
	return files, nil
}

func write(dir string, files []file) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.body, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func compare(dir string, files []file) error {
	made := map[string]bool{}
	for _, f := range files {
		made[f.name] = true
		have, err := os.ReadFile(filepath.Join(dir, f.name))
		if err != nil {
			return err
		}
		if !bytes.Equal(have, f.body) {
			return fmt.Errorf("%s differs: %s", f.name, firstDifference(have, f.body))
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), suffix) && !made[entry.Name()] {
			return fmt.Errorf("%s is not made by this program", entry.Name())
		}
	}
	return nil
}

func firstDifference(have []byte, want []byte) string {
	haveLines, wantLines := strings.Split(string(have), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(haveLines), len(wantLines)) {
		if haveLines[i] != wantLines[i] {
			return fmt.Sprintf("line %d is %s, the library writes %s", i+1, haveLines[i], wantLines[i])
		}
	}
	return fmt.Sprintf("%d lines, the library writes %d", len(haveLines), len(wantLines))
}

// checkLibrary keeps the vectors honest about where they come from: `source` names a version, go.mod decides which one
// was compiled in.
func checkLibrary() error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("this program does not know what it was built from")
	}
	for _, dep := range info.Deps {
		if dep.Path != libraryPath {
			continue
		}
		if dep.Version != libraryVersion || dep.Replace != nil {
			return fmt.Errorf("built with %s %s, the vectors are of %s", libraryPath, dep.Version, libraryVersion)
		}
		return nil
	}
	return fmt.Errorf("built without %s", libraryPath)
}
