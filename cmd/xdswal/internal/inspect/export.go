package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/view"
	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/directory"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/state"
)

type exportFlags struct {
	flags
	node   string
	all    bool
	cache  string
	format string
	output string
	outDir string
}

func exportCommand() *cobra.Command {
	var f exportFlags
	var cmd *cobra.Command
	cmd = f.command("export [--dir DIR] [--backend URL] --node NODE [-o FILE] | --all --out-dir DIR", "Write a node's resources as YAML or JSON",
		`Export writes the resources of a node, private keys included, in the form that
PUT /v1/nodes/{node}/snapshot and serve --resources read. -o writes a file with mode
0600. --all --out-dir writes one file for each node of the cache, named <node>.yaml,
to a directory that must not exist, or must be empty.

Without -o the document is written to standard output, and --json is --format json.
With -o or --all, --json prints one line of JSON for each file instead of a table.
`+partialHelp+`
GET /v1/nodes/NODE/snapshot of the daemon returns a node's newest resources.`,
		"print JSON; see above",
		func(ctx context.Context, p *printer) error {
			if err := f.check(cmd.Flags().Changed("node"), cmd.Flags().Changed("format")); err != nil {
				return err
			}
			return f.export(ctx, p)
		})
	f.momentFlags(cmd, "export")
	cmd.Flags().StringVar(&f.node, "node", "", "node to export")
	cmd.Flags().BoolVar(&f.all, "all", false, "export all nodes of the cache")
	cmd.Flags().StringVar(&f.cache, "cache", "", "name of the snapshot cache; the daemon's cache has the empty name")
	cmd.Flags().StringVar(&f.format, "format", string(resourcefile.YAML), "yaml or json")
	cmd.Flags().StringVarP(&f.output, "output", "o", "", "file to write; default standard output")
	cmd.Flags().StringVar(&f.outDir, "out-dir", "", "directory to write, with --all")
	return cmd
}

// check returns an error for flags that are invalid together. node and format
// say whether these flags are set.
func (f *exportFlags) check(node, format bool) error {
	toStdout := f.output == "" && !f.all
	if f.json && toStdout {
		if format && f.format != string(resourcefile.JSON) {
			return fmt.Errorf("--json and --format %s are mutually exclusive without -o", f.format)
		}
		f.format = string(resourcefile.JSON)
	}
	switch {
	case f.format != string(resourcefile.JSON) && f.format != string(resourcefile.YAML):
		return fmt.Errorf("--format is %q: want yaml or json", f.format)
	case node == f.all:
		return errors.New("want either --node or --all")
	case f.all != (f.outDir != ""):
		return errors.New("--all and --out-dir require each other")
	case f.all && f.output != "":
		return errors.New("--output and --all are mutually exclusive; use --out-dir")
	case strings.HasPrefix(f.cache, cachelog.LinearPrefix):
		return errors.New("--cache is a linear cache, which has no nodes; events --cache shows its changes")
	}
	if f.cache = cacheName(f.cache); f.cache == "" {
		f.cache = cachelog.SnapshotPrefix
	}
	return nil
}

func (f *exportFlags) export(ctx context.Context, p *printer) error {
	m, err := f.moment(ctx, p)
	if err != nil {
		return err
	}
	if f.all {
		err = f.exportAll(p, m)
	} else {
		err = f.exportNode(p, m)
	}
	if err == nil {
		m.noteIncomplete(p)
	}
	return err
}

func (f *exportFlags) exportNode(p *printer, m moment) error {
	n := m.state.Node(f.cache, f.node)
	if n == nil {
		return f.unknownNode(m.state)
	}
	if f.output == "" {
		data, err := f.marshal(n)
		if err != nil {
			return err
		}
		return p.write(data)
	}
	e, err := f.writeNode(m, n, f.output)
	if err != nil {
		return err
	}
	return f.report(p, []view.Exported{e})
}

// unknownNode returns the error for a node that does not exist.
func (f *exportFlags) unknownNode(st *state.State) error {
	nodes := 0
	for range st.Cache(f.cache) {
		nodes++
	}
	if nodes > 0 {
		return fmt.Errorf("export: cache %q has no node %q at event %d; it has %d others", f.cache, f.node, st.Sequence(), nodes)
	}
	return fmt.Errorf("export: there is no cache %q at event %d; the caches are %q", f.cache, st.Sequence(), st.Caches())
}

func (f *exportFlags) marshal(n *state.Node) ([]byte, error) {
	d, err := document(n)
	var data []byte
	if err == nil {
		data, err = resourcefile.Marshal(d, resourcefile.Format(f.format))
	}
	if err != nil {
		return nil, fmt.Errorf("export node %q: %w", n.Name(), err)
	}
	return data, nil
}

// writeNode writes a node to a file with mode 0600, completely or not at all.
func (f *exportFlags) writeNode(m moment, n *state.Node, path string) (view.Exported, error) {
	data, err := f.marshal(n)
	if err != nil {
		return view.Exported{}, err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return view.Exported{}, fmt.Errorf("export node %q: %s is not a regular file; choose another, or omit -o to write to standard output", n.Name(), path)
	}
	err = durable.WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	if err != nil {
		return view.Exported{}, fmt.Errorf("export node %q: %w", n.Name(), err)
	}
	return view.Exported{Node: view.NewNode(n), File: path, Incomplete: m.incomplete}, nil
}

func (f *exportFlags) exportAll(p *printer, m moment) error {
	nodes := 0
	for n := range m.state.Cache(f.cache) {
		if nodes++; !validFileName(f.fileName(n)) {
			return fmt.Errorf("export: node %q cannot be the name of a file; export it with --node and -o", n.Name())
		}
	}
	if nodes == 0 {
		return fmt.Errorf("export: there is no node in cache %q at event %d; the caches are %q", f.cache, m.state.Sequence(), m.state.Caches())
	}
	if err := makeEmptyDir(f.outDir); err != nil {
		return fmt.Errorf("export to %s: %w", f.outDir, err)
	}
	var out []view.Exported
	for n := range m.state.Cache(f.cache) {
		e, err := f.writeNode(m, n, filepath.Join(f.outDir, f.fileName(n)))
		if err != nil {
			return err
		}
		out = append(out, e)
	}
	return f.report(p, out)
}

func (f *exportFlags) fileName(n *state.Node) string { return n.Name() + "." + f.format }

// maxFileName is the longest file name that common file systems support.
const maxFileName = 255

// validFileName reports whether serve --resources reads a file of that name for
// the node that it was written for.
func validFileName(name string) bool {
	return !strings.HasPrefix(name, ".") && !strings.ContainsAny(name, "/\\\x00") && len(name) <= maxFileName
}

// makeEmptyDir makes a directory if it does not exist.
func makeEmptyDir(dir string) error {
	if err := directory.CheckVacant(dir); err != nil {
		return err
	}
	return durable.MkdirAll(dir)
}

func (f *exportFlags) report(p *printer, exported []view.Exported) error {
	return printAll(p, f.json, exported, []string{"NODE", "SEQ", "TIME", "RESOURCES", "SIZE", "FILE"}, func(e view.Exported) []string {
		return []string{shown(e.Node.Node), number(e.Seq), when(&e.Time), number(e.Resources), size(e.Bytes), e.File}
	})
}
