package backends_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
)

func TestValidKey(t *testing.T) {
	seg := strings.Repeat("s", 255)
	for _, c := range []struct {
		name, key string
		want      string // part of the error; "" if valid
	}{
		{"one byte", "a", ""},
		{"every kind of byte", "AZaz09._=-", ""},
		{"segments", "epochs/00000003/snap-1.zst", ""},
		{"dots", "...", ""},
		{"hidden", ".hidden/.tmp", ""},
		{"temporary name further on", "a.tmp-1", ""},
		{"longest segment", seg, ""},
		{"longest key", seg + "/" + seg[1:] + "/x", ""},
		{"empty", "", "empty"},
		{"slash", "/", "empty segment"},
		{"leading slash", "/a", "empty segment"},
		{"trailing slash", "a/", "empty segment"},
		{"double slash", "a//b", "empty segment"},
		{"dot", "a/.", `segment "."`},
		{"dot dot", "../a", `segment ".."`},
		{"temporary name", ".tmp-1", "incomplete"},
		{"temporary segment", "a/.tmp-/b", "incomplete"},
		{"space", "a b", `byte " "`},
		{"zero", "a\x00", `byte "\x00"`},
		{"newline", "a\n", `byte "\n"`},
		{"backslash", `a\b`, "byte"},
		{"percent", "a%2f", "byte"},
		{"plus", "a+b", "byte"},
		{"not ASCII", "é", "byte"},
		{"segment too long", "a/" + seg + "s", "256 bytes"},
		{"key too long", strings.Repeat("k/", 256) + "k", "513 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := backends.ValidKey(c.key)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, backends.ErrKey)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// A key that ValidKey accepts is safe to append to a directory.
func FuzzValidKey(f *testing.F) {
	for _, s := range []string{"a/b", "../a", "a//b", ".tmp-x", "a\\b", "C:/x", "a/./b", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		err := backends.ValidKey(key)
		if err != nil {
			require.ErrorIs(t, err, backends.ErrKey)
			return
		}
		require.True(t, fs.ValidPath(key))
		require.LessOrEqual(t, len(key), backends.MaxKeyLen)
		require.NotContains(t, "/"+key, "/.tmp-")
		require.NotContains(t, key, `\`)
	})
}

func TestError(t *testing.T) {
	cause, endless := errors.New("boom"), strings.Repeat("k", 1e6)
	for _, c := range []struct {
		name string
		err  backends.Error
		want string
	}{
		{"key", backends.Error{Op: "put", Backend: "file:///x", Key: "a/b", Err: cause}, `put "a/b" in file:///x: boom`},
		{"no key", backends.Error{Op: "list", Backend: "file:///x", Err: cause}, `list file:///x: boom`},
		{"odd key", backends.Error{Op: "get", Backend: "file:///x", Key: "a\n", Err: cause}, `get "a\n" in file:///x: boom`},
		{"endless key", backends.Error{Op: "get", Backend: "file:///x", Key: endless, Err: cause}, `get "` + endless[:32] + `"... in file:///x: boom`},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.EqualError(t, &c.err, c.want)
			require.ErrorIs(t, &c.err, cause)
		})
	}
}
