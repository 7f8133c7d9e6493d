package file

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// Config configures a [Backend].
type Config struct {
	// Dir is the directory of the objects. Required. New creates it with mode
	// 0700 if it is missing, and resolves a relative path.
	Dir string
	// ReadOnly makes Put and Delete return backends.ErrPermission. New then
	// requires that Dir exists, and changes nothing in it.
	ReadOnly bool
}

func (c Config) check() error {
	switch {
	case c.Dir == "":
		return errors.New("Config.Dir is empty; set it to a directory")
	case strings.ContainsRune(c.Dir, 0):
		return errors.New("Config.Dir contains a zero byte")
	}
	return nil
}

// ParseURL returns the Config for a URL of the form file:///absolute/path, which
// has no parameters. Its errors contain the path and no other part of the URL.
func ParseURL(u *url.URL) (Config, error) {
	cfg, err := parseURL(u)
	if err != nil {
		// User, host and query may contain secrets.
		return Config{}, fmt.Errorf("parse file URL with path %q: %w; write file:///absolute/path", u.Path, err)
	}
	return cfg, nil
}

func parseURL(u *url.URL) (Config, error) {
	switch {
	case u.Scheme != "file":
		return Config{}, fmt.Errorf("scheme is %q", u.Scheme)
	case u.Host != "" || u.User != nil:
		// file://var/lib has the host "var".
		return Config{}, errors.New("URL has a host (is a third slash missing?)")
	case u.Opaque != "" || !strings.HasPrefix(u.Path, "/"):
		return Config{}, errors.New("path is not absolute")
	case strings.ContainsRune(u.Path, 0):
		return Config{}, errors.New("path contains a zero byte")
	case u.Fragment != "":
		return Config{}, errors.New("URL has a fragment (write # as %23)")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Config{}, errors.New("query is malformed")
	}
	if len(query) > 0 {
		return Config{}, fmt.Errorf("unknown parameters %q", slices.Sorted(maps.Keys(query)))
	}
	return Config{Dir: filepath.FromSlash(u.Path)}, nil
}
