package file

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// Config says where a [Backend] keeps its objects.
type Config struct {
	// Dir is the directory. It is created, with mode 0700, if it is missing;
	// a relative one is resolved when New is called. Required.
	Dir string
	// ReadOnly opens a directory that is there and changes nothing in it: Put
	// and Delete are refused with backends.ErrPermission.
	ReadOnly bool
}

// ParseURL returns the Config that a URL of the form file:///absolute/path
// stands for. There are no parameters.
func ParseURL(u *url.URL) (Config, error) {
	cfg, err := parseURL(u)
	if err != nil {
		// Only the path is shown: user, host and query may hold secrets.
		return Config{}, fmt.Errorf("parse file URL with path %q: %w; write file:///absolute/path", u.Path, err)
	}
	return cfg, nil
}

func parseURL(u *url.URL) (Config, error) {
	switch {
	case u.Scheme != "file":
		return Config{}, fmt.Errorf("scheme is %q", u.Scheme)
	case u.Host != "" || u.User != nil:
		// Most often a slash too few: file://var/lib has the host "var".
		return Config{}, errors.New("it has a host (is a third slash missing?)")
	case u.Opaque != "" || !strings.HasPrefix(u.Path, "/"):
		return Config{}, errors.New("the path is not absolute")
	case strings.ContainsRune(u.Path, 0):
		return Config{}, errors.New("the path contains a zero byte")
	case u.Fragment != "":
		return Config{}, errors.New("it has a fragment (write # as %23)")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Config{}, errors.New("the query is malformed")
	}
	if len(query) > 0 {
		return Config{}, fmt.Errorf("unknown parameters %q", sortedKeys(query))
	}
	return Config{Dir: filepath.FromSlash(u.Path)}, nil
}

func sortedKeys(v url.Values) []string {
	keys := make([]string, 0, len(v))
	for k := range v {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
