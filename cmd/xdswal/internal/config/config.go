// Package config sets a command's flags from a YAML file and the environment.
//
// The keys of the file are the names of the flags. An environment variable is
// XDSWAL_ followed by the flag's name in capitals with underscores. A flag on the
// command line overrides the environment, which overrides the file.
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

// maxFileSize bounds a configuration file.
const maxFileSize = 1 << 20

// FileFlag is the flag that names the file.
const FileFlag = "config"

// Origins contains the place where each flag was set, by its name.
type Origins map[string]string

// Name returns the name of a setting in an error: the place in the file, the
// environment variable, or else the flag.
func (o Origins) Name(flag string) string { return cmp.Or(o[flag], "--"+flag) }

// Apply sets the flags that the command line did not set. It returns an error that
// names the file and the line for an unknown or duplicate key and for a bad value.
func Apply(flags *pflag.FlagSet, lookupEnv func(string) (string, bool)) (Origins, error) {
	set := Origins{}
	flags.Visit(func(f *pflag.Flag) { set[f.Name] = "--" + f.Name })
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		if value, ok := lookupEnv(EnvName(f.Name)); ok && set[f.Name] == "" {
			errs = append(errs, set.set(flags, f.Name, "environment variable "+EnvName(f.Name), value))
		}
	})
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if path := flags.Lookup(FileFlag).Value.String(); path != "" {
		if err := set.applyFile(flags, path); err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	}
	return set, nil
}

// EnvName returns the environment variable of a flag.
func EnvName(flag string) string {
	return "XDSWAL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func (o Origins) set(flags *pflag.FlagSet, flag, origin, value string) error {
	o[flag] = origin
	if err := flags.Set(flag, value); err != nil {
		return fmt.Errorf("%s: %w", origin, err)
	}
	return nil
}

func (o Origins) applyFile(flags *pflag.FlagSet, path string) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // only comments
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
	lines := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if line, duplicate := lines[key.Value]; duplicate {
			return fmt.Errorf("%s:%d: duplicate key %q, first set in line %d", path, key.Line, key.Value, line)
		}
		lines[key.Value] = key.Line
		if err := o.setFromFile(flags, fmt.Sprintf("%s:%d", path, key.Line), key.Value, value); err != nil {
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

// setFromFile sets a flag to the value of a key, unless it is set already. place
// is file and line.
func (o Origins) setFromFile(flags *pflag.FlagSet, place, key string, value *yaml.Node) error {
	f := flags.Lookup(key)
	if f == nil || f.Name == FileFlag || f.Name == "help" {
		return fmt.Errorf("%s: unknown key %q; the keys are the names of the flags: see xdswal serve --help", place, key)
	}
	origin := fmt.Sprintf("%s: %q", place, key)
	if value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
		return fmt.Errorf("%s: want a single value", origin)
	}
	if o[f.Name] != "" {
		return nil
	}
	return o.set(flags, f.Name, origin, value.Value)
}
