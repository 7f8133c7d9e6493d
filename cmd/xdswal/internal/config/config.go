// Package config fills a command's flags from a YAML file and the environment.
//
// The flags are the one schema: a file's keys are the flags' names, and an
// environment variable is XDSWAL_ and the flag's name in capitals with
// underscores. A flag on the command line comes before the environment, and
// that before the file.
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

const envPrefix = "XDSWAL_"

// maxFileSize bounds a configuration file.
const maxFileSize = 1 << 20

// FileFlag is the flag that names the file.
const FileFlag = "config"

// Origins are where flags were set, by their names: for whoever finds only later
// that a value is of no use.
type Origins map[string]string

// Name returns what to call a setting in an error: the place in the file, the
// environment variable, or the flag, which may also have its default.
func (o Origins) Name(flag string) string { return cmp.Or(o[flag], "--"+flag) }

// Apply sets the flags that the command line did not set. An unknown key, a key
// that stands twice and a bad value are errors that name file and line.
func Apply(flags *pflag.FlagSet, lookupEnv func(string) (string, bool)) (Origins, error) {
	set := Origins{}
	flags.Visit(func(f *pflag.Flag) { set[f.Name] = "--" + f.Name })
	if err := applyEnv(flags, set, lookupEnv); err != nil {
		return nil, err
	}
	if path := flags.Lookup(FileFlag).Value.String(); path != "" {
		if err := applyFile(flags, set, path); err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	}
	return set, nil
}

// EnvName returns the environment variable of a flag.
func EnvName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func applyEnv(flags *pflag.FlagSet, set Origins, lookupEnv func(string) (string, bool)) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		value, ok := lookupEnv(EnvName(f.Name))
		if !ok || set[f.Name] != "" {
			return
		}
		set[f.Name] = "environment variable " + EnvName(f.Name)
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", set[f.Name], err))
		}
	})
	return errors.Join(errs...)
}

func applyFile(flags *pflag.FlagSet, set Origins, path string) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // nothing but comments
	} else if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: more than one YAML document", path)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: want a mapping of settings, like \"dir: /var/lib/xdswal\"", path, root.Line)
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if line, twice := seen[key.Value]; twice {
			return fmt.Errorf("%s:%d: %q stands in line %d already", path, key.Line, key.Value, line)
		}
		seen[key.Value] = key.Line
		if err := setFromFile(flags, set, fmt.Sprintf("%s:%d", path, key.Line), key.Value, value); err != nil {
			return err
		}
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(data) > maxFileSize {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFileSize)
	}
	return data, err
}

// setFromFile sets a flag to a value that stands in a line of the file, unless it
// is set already.
func setFromFile(flags *pflag.FlagSet, set Origins, line, key string, value *yaml.Node) error {
	f := flags.Lookup(key)
	if f == nil || f.Name == FileFlag || f.Name == "help" {
		return fmt.Errorf("%s: unknown key %q; the keys are the names of the flags: see xdswal serve --help", line, key)
	}
	origin := fmt.Sprintf("%s: %q", line, key)
	if value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
		return fmt.Errorf("%s wants a single value", origin)
	}
	if set[f.Name] != "" {
		return nil
	}
	set[f.Name] = origin
	if err := flags.Set(f.Name, value.Value); err != nil {
		return fmt.Errorf("%s: %w", origin, err)
	}
	return nil
}
