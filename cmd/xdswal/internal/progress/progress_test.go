package progress_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
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

const (
	interval = 2 * time.Millisecond
	summary  = `downloaded snapshot: 4\.0 MiB in \S+ s, \S+ [KMG]iB/s`
)

func TestLines(t *testing.T) {
	var out logtest.Buffer
	d := progress.ShowFast(&out, false, time.Nanosecond, interval)
	d.Report(at(0))
	waitFor(t, &out, "downloading snapshot, stalled   0% [..........] ( 0 B/4.0 MiB)\n")
	d.Report(at(1 << 20))
	waitFor(t, &out, " s left  25% [=>........] (1.0/4.0 MiB, ")
	d.Report(at(3 << 20))
	waitFor(t, &out, " s left  75% [======>...] (3.0/4.0 MiB, ")
	d.Report(at(4 << 20))
	d.Report(replay.Progress{Location: "s3://bucket", Read: 100, Total: 1000})
	waitFor(t, &out, " s left  10% [>.........] (100/1000 B, ")
	d.Stop()
	require.Regexp(t, `(?m)^downloading snapshot, \d+ s left  75% \[======>\.\.\.\] \(3\.0/4\.0 MiB, \S+ [KMG]iB/s\)$`, out.String())
	require.Regexp(t, `(?m)^`+summary+`$`, out.String())
	require.Contains(t, out.String(), "downloading batches, ")
	require.NotContains(t, out.String(), "downloaded batches", "it is not complete")
	require.NotContains(t, out.String(), "\r")
}

func TestATerminal(t *testing.T) {
	var out logtest.Buffer
	d := progress.ShowFast(&out, true, time.Nanosecond, interval)
	d.Report(at(1 << 20))
	waitFor(t, &out, "\rdownloading snapshot, ")
	d.Report(at(4 << 20))
	d.Stop()
	require.Equal(t, 1, strings.Count(out.String(), "\n"), "one line is overwritten")
	last := out.String()[strings.LastIndex(out.String(), "\r"):]
	require.Regexp(t, `^\r`+summary+`\n$`, last)

	// The line of a download that failed stays.
	out = logtest.Buffer{}
	d = progress.ShowFast(&out, true, time.Nanosecond, interval)
	d.Report(at(1 << 20))
	waitFor(t, &out, "\rdownloading snapshot, ")
	d.Stop()
	require.True(t, strings.HasSuffix(out.String(), "/s) \n"), "%q", out.String())
	require.NotContains(t, out.String(), "downloaded")
}

// A short download leaves no line, also if the terminal has shown it.
func TestAShortDownload(t *testing.T) {
	var out logtest.Buffer
	d := progress.ShowFast(&out, true, time.Hour, interval)
	d.Report(at(1 << 20))
	waitFor(t, &out, "\rdownloading snapshot, ")
	d.Report(at(4 << 20))
	d.Stop()
	require.NotContains(t, out.String(), "\n")
	require.Regexp(t, `\r +\r$`, out.String())

	var quiet bytes.Buffer
	for _, terminal := range []bool{false, true} {
		d = progress.ShowFast(&quiet, terminal, time.Hour, time.Hour)
		d.Report(at(1 << 20))
		d.Report(at(4 << 20))
		d.Report(at(1 << 20))
		d.Stop()
		require.Empty(t, quiet.String())
	}
	progress.Show(&quiet).Stop()
	require.Empty(t, quiet.String())
}

func TestLog(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	report := progress.Log(logger, 0)
	report(at(0))
	report(at(1 << 20))
	report(at(2 << 20))
	report(at(4 << 20))
	var line struct {
		Level, Msg, Location, What string
		Bytes, Total, Percent      int64
		Rate                       int64 `json:"bytes_per_second"`
		Left                       *time.Duration
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 2, "the end is not logged here")
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &line))
	require.Equal(t, "INFO", line.Level)
	require.Equal(t, "downloading", line.Msg)
	require.Equal(t, "s3://bucket", line.Location)
	require.Equal(t, "snapshot", line.What)
	require.EqualValues(t, 2<<20, line.Bytes)
	require.EqualValues(t, 4<<20, line.Total)
	require.EqualValues(t, 50, line.Percent)
	require.Positive(t, line.Rate)
	require.NotNil(t, line.Left)

	out.Reset()
	report = progress.Log(logger, progress.DefaultInterval)
	report(at(1 << 20))
	report(at(4 << 20))
	require.Empty(t, out.String())
}
