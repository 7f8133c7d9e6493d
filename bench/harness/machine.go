package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Machine describes the machine of a run. Ratios of two machines can be compared,
// figures cannot.
type Machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Memory     string `json:"memory"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"`
	Go         string `json:"go"`
	Commit     string `json:"commit"`
	Date       string `json:"date"`
	// Load is the load average before the run: on a busy machine, only the ratios are
	// meaningful.
	Load string `json:"load"`
	// Sync is the time to overwrite 4 KiB of a file and make them durable, in
	// milliseconds.
	Sync Summary `json:"fdatasync_ms"`
}

// Fact is one line about a machine.
type Fact struct{ Name, Value string }

// Facts returns the facts about the machine in the order of the report.
func (m *Machine) Facts() []Fact {
	return []Fact{
		{"CPU", m.CPU},
		{"cores", fmt.Sprint(m.Cores)},
		{"memory", m.Memory},
		{"kernel", m.Kernel},
		{"file system of the data", m.FileSystem},
		{"fdatasync of 4 KiB", fmt.Sprintf("%s ms [%s–%s]", format(m.Sync.Median), format(m.Sync.Low), format(m.Sync.High))},
		{"load before", m.Load},
		{"Go", m.Go},
		{"commit", m.Commit},
		{"date", m.Date},
	}
}

const unknown = "unknown"

// Describe returns the facts about this machine; dir is the directory of the data.
func Describe(ctx context.Context, dir string) (Machine, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Machine{}, fmt.Errorf("describe machine: %w", err)
	}
	sync, err := measureSync(dir)
	if err != nil {
		return Machine{}, err
	}
	return Machine{
		CPU:        cmp.Or(procField("/proc/cpuinfo", "model name"), runtime.GOARCH),
		Cores:      runtime.GOMAXPROCS(0),
		Memory:     cmp.Or(procField("/proc/meminfo", "MemTotal"), unknown),
		Kernel:     cmp.Or(firstLine("/proc/sys/kernel/osrelease"), runtime.GOOS),
		FileSystem: cmp.Or(fileSystem(dir), unknown),
		Load:       cmp.Or(firstLine("/proc/loadavg"), unknown),
		Go:         runtime.Version(),
		Commit:     cmp.Or(commit(ctx), unknown),
		Date:       time.Now().UTC().Format(time.DateOnly),
		Sync:       sync,
	}, nil
}

// procField returns the value of the first "name: value" line of a file.
func procField(path, name string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func firstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

// fileSystem returns the type and the device of the mount that contains dir.
func fileSystem(dir string) string {
	data, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return ""
	}
	best, out := "", ""
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < len(best) || !within(dir, f[1]) {
			continue
		}
		best, out = f[1], fmt.Sprintf("%s (%s on %s)", f[2], f[0], f[1])
	}
	return out
}

func within(dir, mount string) bool {
	rel, err := filepath.Rel(mount, dir)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// commit returns the commit of the working directory, with "+" if it has changes.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--exclude=*", "--dirty=+").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

const syncSamples = 100

// measureSync overwrites allocated blocks of a file, as a log filled with zeros does.
func measureSync(dir string) (s Summary, err error) {
	f, err := os.CreateTemp(dir, "sync-*")
	if err != nil {
		return Summary{}, fmt.Errorf("measure fdatasync: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, 4096)
	if _, err := f.Write(slices.Repeat(block, syncSamples)); err != nil {
		return Summary{}, fmt.Errorf("measure fdatasync: %w", err)
	}
	if err := f.Sync(); err != nil {
		return Summary{}, fmt.Errorf("measure fdatasync: %w", err)
	}
	samples := make([]float64, syncSamples)
	for i := range samples {
		start := time.Now()
		_, err := f.WriteAt(block, int64(i*len(block)))
		if err := errors.Join(err, Fdatasync(f)); err != nil {
			return Summary{}, fmt.Errorf("measure fdatasync: %w", err)
		}
		samples[i] = float64(time.Since(start)) / float64(time.Millisecond)
	}
	s = Summarize(samples)
	s.Samples = nil
	return s, nil
}
