package progress_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/progress"
	"github.com/xdswal/xdswal/internal/logtest"
	"github.com/xdswal/xdswal/replay"
)

func at(read int64) replay.Progress {
	return replay.Progress{Location: "s3://bucket", Name: "snapshot-1.zst", Read: read, Total: 4 << 20}
}

func waitFor(t *testing.T, out *logtest.Buffer, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), want) }, 10*time.Second, time.Millisecond, "%q", out)
}

func TestLines(t *testing.T) {
	var out logtest.Buffer
	d := progress.ShowFast(&out, false, time.Millisecond, 2*time.Millisecond, 2*time.Millisecond)
	d.Report(at(1 << 20))
	waitFor(t, &out, "downloading snapshot: 25%, 1.0 MiB of 4.0 MiB, ")
	d.Report(at(3 << 20))
	waitFor(t, &out, "downloading snapshot: 75%, 3.0 MiB of 4.0 MiB, ")
	d.Report(at(4 << 20))
	d.Report(replay.Progress{Location: "s3://bucket", Read: 100, Total: 1000})
	waitFor(t, &out, "downloading batches: 10%, 100 B of 1000 B, 0 B/s, stalled\n")
	d.Stop()
	require.Regexp(t, `(?m)^downloaded snapshot: 4\.0 MiB in \S+, \S+ [KMG]iB/s$`, out.String())
	require.NotContains(t, out.String(), "downloaded batches", "it did not end well")
	require.NotContains(t, out.String(), "\r")
	require.Contains(t, out.String(), "s left\n")
}

func TestATerminal(t *testing.T) {
	var out logtest.Buffer
	d := progress.ShowFast(&out, true, time.Millisecond, 2*time.Millisecond, 2*time.Millisecond)
	d.Report(at(1 << 20))
	waitFor(t, &out, "\rdownloading snapshot: 25%")
	d.Report(at(4 << 20))
	d.Stop()
	require.Equal(t, 1, strings.Count(out.String(), "\n"), "one line was written over")
	last := out.String()[strings.LastIndex(out.String(), "\r")+1:]
	require.Regexp(t, `^downloaded snapshot: 4\.0 MiB in \S+, \S+ [KMG]iB/s *\n$`, last)

	// What comes below a download that failed stands in a line of its own.
	out = logtest.Buffer{}
	d = progress.ShowFast(&out, true, time.Millisecond, 2*time.Millisecond, 2*time.Millisecond)
	d.Report(at(1 << 20))
	waitFor(t, &out, "\rdownloading snapshot: 25%")
	d.Stop()
	require.True(t, strings.HasSuffix(out.String(), "\n"))
	require.NotContains(t, out.String(), "downloaded")
}

// A short download leaves no trace, also where the terminal had shown it.
func TestAShortDownload(t *testing.T) {
	var out logtest.Buffer
	d := progress.ShowFast(&out, true, time.Hour, 2*time.Millisecond, 2*time.Millisecond)
	d.Report(at(1 << 20))
	waitFor(t, &out, "\rdownloading snapshot: 25%")
	d.Report(at(4 << 20))
	d.Stop()
	lines := strings.Split(out.String(), "\r")
	require.Empty(t, lines[len(lines)-1])
	require.Empty(t, strings.TrimSpace(lines[len(lines)-2]))

	var quiet bytes.Buffer
	d = progress.Show(&quiet)
	d.Report(at(1 << 20))
	d.Report(at(4 << 20))
	d.Stop()
	require.Empty(t, quiet.String())
	progress.Show(&quiet).Stop()
	require.Empty(t, quiet.String())
}

func TestIsTerminal(t *testing.T) {
	require.False(t, progress.IsTerminal(io.Discard))
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer f.Close()
	require.False(t, progress.IsTerminal(f))
}

func TestLog(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	report := progress.Log(logger, 0)
	report(at(1 << 20))
	report(at(2 << 20))
	report(at(4 << 20))
	var line struct {
		Level, Msg, Location, What string
		Bytes, Total, Percent      int64
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 2, "the library tells of the end")
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &line))
	require.Equal(t, "INFO", line.Level)
	require.Equal(t, "downloading", line.Msg)
	require.Equal(t, "s3://bucket", line.Location)
	require.Equal(t, "snapshot", line.What)
	require.EqualValues(t, 2<<20, line.Bytes)
	require.EqualValues(t, 4<<20, line.Total)
	require.EqualValues(t, 50, line.Percent)

	out.Reset()
	report = progress.Log(logger, progress.DefaultInterval)
	report(at(1 << 20))
	report(at(4 << 20))
	require.Empty(t, out.String())
}
