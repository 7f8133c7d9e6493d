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

	"github.com/xdswal/xdswal/internal/directory"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/internal/view"
	"github.com/xdswal/xdswal/xdscache"
)

type exportFlags struct {
	common
	node    string
	all     bool
	cache   string
	at      string
	format  string
	output  string
	outDir  string
	partial bool
}

func exportCommand() *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export [--dir DIR] [--backend URL] --node NODE [-o FILE] | --all --out-dir DIR",
		Short: "Write a node's resources as YAML or JSON",
		Long: `Export writes the resources of a node, private keys included, in the form that
PUT /v1/nodes/{node}/snapshot and serve --resources take. -o writes a file of mode
0600; --all --out-dir writes one for each node of the cache, named <node>.yaml, into
a directory that must not exist, or be empty.

Without -o the document goes to standard output, and --json is --format json. With
-o or --all, --json prints one line of JSON for each file instead of a table.
` + partialHelp + `
So does GET /v1/nodes/NODE/snapshot of the daemon.`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = run(func(ctx context.Context, p *printer) error {
		if err := f.check(cmd.Flags().Changed("node"), cmd.Flags().Changed("format")); err != nil {
			return err
		}
		return export(ctx, p, &f)
	})
	f.dirFlag(cmd)
	f.backendFlag(cmd)
	f.jsonFlag(cmd, "print JSON; see above")
	cmd.Flags().StringVar(&f.node, "node", "", "node to export")
	cmd.Flags().BoolVar(&f.all, "all", false, "export all nodes of the cache")
	cmd.Flags().StringVar(&f.cache, "cache", "", "name of the snapshot cache; the daemon's is the empty one")
	cmd.Flags().StringVar(&f.at, "at", "", "sequence or time to export; default the newest")
	cmd.Flags().StringVar(&f.format, "format", string(resourcefile.YAML), "yaml or json")
	cmd.Flags().StringVarP(&f.output, "output", "o", "", "file to write; default standard output")
	cmd.Flags().StringVar(&f.outDir, "out-dir", "", "directory to write, with --all")
	cmd.Flags().BoolVar(&f.partial, "allow-partial", false, "make do with what can be read")
	return cmd
}

// check refuses flags that contradict each other.
func (f *exportFlags) check(node, format bool) error {
	toStdout := f.output == "" && !f.all
	if f.json && toStdout {
		if format && f.format != string(resourcefile.JSON) {
			return fmt.Errorf("--json and --format %s contradict each other: name a file with -o, or leave one out", f.format)
		}
		f.format = string(resourcefile.JSON)
	}
	switch {
	case f.format != string(resourcefile.JSON) && f.format != string(resourcefile.YAML):
		return fmt.Errorf("--format is %q: say yaml or json", f.format)
	case node == f.all:
		return errors.New("name a node with --node, or say --all")
	case f.all != (f.outDir != ""):
		return errors.New("--all and --out-dir go together")
	case f.all && f.output != "":
		return errors.New("--output is for one node: with --all say --out-dir")
	case strings.HasPrefix(f.cache, xdscache.LinearCacheName("")):
		return errors.New("--cache is a linear cache: it has no nodes; events --cache shows what changed in it")
	}
	if f.cache = cacheName(f.cache); f.cache == "" {
		f.cache = xdscache.SnapshotCacheName("")
	}
	return nil
}

func export(ctx context.Context, p *printer, f *exportFlags) error {
	m, err := f.moment(ctx, p, f.at, f.partial)
	if err != nil {
		return err
	}
	if f.all {
		err = f.exportAll(p, m)
	} else {
		err = f.exportNode(p, m)
	}
	if err == nil && m.incomplete != nil {
		p.note("%s", m.incomplete.Message)
	}
	return err
}

func (f *exportFlags) exportNode(p *printer, m moment) error {
	n := m.state.Node(f.cache, f.node)
	if n == nil {
		return f.unknownNode(m.state)
	}
	data, err := f.marshal(n)
	if err != nil {
		return err
	}
	if f.output == "" {
		if _, err := p.out.Write(data); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
		return nil
	}
	if err := writeFile(f.output, data); err != nil {
		return fmt.Errorf("export node %q: %w", f.node, err)
	}
	return f.report(p, []view.Exported{{Node: view.NewNode(n), File: f.output, Incomplete: m.incomplete}})
}

// unknownNode says what there is instead.
func (f *exportFlags) unknownNode(st *state.State) error {
	nodes := 0
	for range st.Cache(f.cache) {
		nodes++
	}
	if nodes > 0 {
		return fmt.Errorf("export: cache %q has no node %q at event %d; it has %d others", f.cache, f.node, uint64(st.Sequence()), nodes)
	}
	return fmt.Errorf("export: there is no cache %q at event %d; there are %q", f.cache, uint64(st.Sequence()), st.Caches())
}

func (f *exportFlags) marshal(n *state.Node) ([]byte, error) {
	d, err := document(n)
	if err != nil {
		return nil, fmt.Errorf("export node %q: %w", n.Name(), err)
	}
	data, err := resourcefile.Marshal(d, resourcefile.Format(f.format))
	if err != nil {
		return nil, fmt.Errorf("export node %q: %w", n.Name(), err)
	}
	return data, nil
}

// writeFile writes a file of mode 0600, whole or not at all.
func writeFile(path string, data []byte) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file: name another, or leave -o out for standard output", path)
	}
	return durable.WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

func (f *exportFlags) exportAll(p *printer, m moment) error {
	names, err := f.fileNames(m.state)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("export: there is no node in cache %q at event %d; there are caches %q", f.cache, uint64(m.state.Sequence()), m.state.Caches())
	}
	if err := makeVacant(f.outDir); err != nil {
		return fmt.Errorf("export to %s: %w", f.outDir, err)
	}
	var out []view.Exported
	for n := range m.state.Cache(f.cache) {
		data, err := f.marshal(n)
		if err != nil {
			return err
		}
		path := filepath.Join(f.outDir, names[n.Name()])
		if err := writeFile(path, data); err != nil {
			return fmt.Errorf("export node %q: %w", n.Name(), err)
		}
		out = append(out, view.Exported{Node: view.NewNode(n), File: path, Incomplete: m.incomplete})
	}
	return f.report(p, out)
}

// maxFileName is what file systems allow for one name.
const maxFileName = 255

// fileNames returns the file of each node. A node whose name is no file's name
// is refused: serve --resources would take another name for another node.
func (f *exportFlags) fileNames(st *state.State) (map[string]string, error) {
	names := map[string]string{}
	for n := range st.Cache(f.cache) {
		file := n.Name() + "." + f.format
		if n.Name() == "" || strings.HasPrefix(file, ".") || strings.ContainsAny(file, "/\\\x00") || len(file) > maxFileName {
			return nil, fmt.Errorf("export: node %q cannot be the name of a file: export it by itself, with --node and -o", n.Name())
		}
		names[n.Name()] = file
	}
	return names, nil
}

// makeVacant creates a directory, which must be missing or empty.
func makeVacant(dir string) error {
	if err := directory.CheckVacant(dir); err != nil {
		return err
	}
	return durable.MkdirAll(dir)
}

func (f *exportFlags) report(p *printer, exported []view.Exported) error {
	if !f.json {
		p.table([]string{"NODE", "SEQ", "TIME", "RESOURCES", "SIZE", "FILE"}, mapped(exported, func(e view.Exported) []string {
			return []string{shown(e.Node.Node), number(e.Seq), when(e.Time), number(e.Resources), size(e.Bytes), e.File}
		}))
		return nil
	}
	for _, e := range exported {
		if err := p.line(e); err != nil {
			return err
		}
	}
	return nil
}
