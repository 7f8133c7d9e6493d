package file_test

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends/file"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		name, raw string
		dir       string // or else:
		err       string
	}{
		{name: "absolute", raw: "file:///var/lib/xdswal", dir: "/var/lib/xdswal"},
		{name: "one slash", raw: "file:/var/lib/xdswal", dir: "/var/lib/xdswal"},
		{name: "escaped", raw: "file:///a%20b%23", dir: "/a b#"},
		{name: "host", raw: "file://var/lib", err: "is a third slash missing?"},
		{name: "localhost", raw: "file://localhost/lib", err: "URL has a host"},
		{name: "user", raw: "file://me:secret@/lib", err: "URL has a host"},
		{name: "relative", raw: "file:var/lib", err: "not absolute"},
		{name: "no path", raw: "file://", err: "not absolute"},
		{name: "fragment", raw: "file:///a#b", err: "write # as %23"},
		{name: "zero byte", raw: "file:///a%00", err: "zero byte"},
		{name: "query", raw: "file:///a?region=x&acl=secret", err: `unknown parameters ["acl" "region"]`},
		{name: "bad query", raw: "file:///a?%secret", err: "malformed"},
		{name: "scheme", raw: "s3://bucket/a", err: `scheme is "s3"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := url.Parse(c.raw)
			require.NoError(t, err)
			cfg, err := file.ParseURL(u)
			if c.err == "" {
				require.NoError(t, err)
				require.Equal(t, file.Config{Dir: c.dir}, cfg)
				return
			}
			require.ErrorContains(t, err, c.err)
			require.ErrorContains(t, err, "write file:///absolute/path")
			require.NotContains(t, err.Error(), "secret")
		})
	}
}
