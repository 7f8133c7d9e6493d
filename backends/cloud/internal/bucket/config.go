package bucket

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/httpidle"
	"github.com/xdswal/xdswal/internal/objectstore"
)

const (
	defaultMaxAttempts = 5
	defaultIdleTimeout = time.Minute
	minIdleTimeout     = time.Millisecond
	// maxPrefixLen leaves space for a slash and the longest key within the 1024
	// bytes that the stores allow.
	maxPrefixLen = 1023 - backends.MaxKeyLen
)

// The waits between attempts are at least and at most these.
const (
	MinBackoff = 100 * time.Millisecond
	MaxBackoff = 5 * time.Second
)

// Config is the part of a driver's configuration that the drivers share.
type Config struct {
	Name          string // of the bucket
	Prefix        string
	Endpoint      string
	MaxAttempts   int
	IdleTimeout   time.Duration
	WrapTransport func(http.RoundTripper) http.RoundTripper
	ReadOnly      bool
}

// Kind is what differs between the configurations of the drivers.
type Kind struct {
	Scheme string         // of URLs
	Usage  string         // form of URLs, for a message
	Noun   string         // what the store calls a bucket
	Names  *regexp.Regexp // of buckets
	Form   string         // of the names of buckets, for a message
	Paths  bool           // whether an endpoint may have a path
}

// Check returns an error for a field that is out of range, or c with defaults. The
// error contains no value but numbers and the prefix: a misplaced value may be a
// secret.
func (c Config) Check(kind *Kind) (Config, error) {
	c.Endpoint = strings.TrimSuffix(c.Endpoint, "/")
	switch {
	case c.Name == "":
		return c, fmt.Errorf("%s is empty; name an existing one", kind.Noun)
	case !kind.Names.MatchString(c.Name):
		return c, fmt.Errorf("%s is not %s", kind.Noun, kind.Form)
	case len(c.Prefix) > maxPrefixLen:
		return c, fmt.Errorf("prefix is too long: got %d bytes, want at most %d", len(c.Prefix), maxPrefixLen)
	case c.MaxAttempts < 0:
		return c, fmt.Errorf("maximum of attempts is out of range: got %d, want at least 1", c.MaxAttempts)
	case c.IdleTimeout != 0 && c.IdleTimeout < minIdleTimeout:
		return c, fmt.Errorf("idle timeout is out of range: got %v, want at least %v", c.IdleTimeout, minIdleTimeout)
	}
	if err := backends.ValidKey(c.Prefix); c.Prefix != "" && err != nil {
		return c, fmt.Errorf("prefix is not a valid key: %w", err)
	}
	if err := checkEndpoint(c.Endpoint, kind.Paths); err != nil {
		return c, err
	}
	c.MaxAttempts = cmp.Or(c.MaxAttempts, defaultMaxAttempts)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, defaultIdleTimeout)
	return c, nil
}

func checkEndpoint(endpoint string, paths bool) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return errors.New("endpoint is not of the form https://host:port")
	case u.User != nil:
		return errors.New("endpoint has a user or a password")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("endpoint has a query, possibly a signature, or a fragment")
	case u.Path != "" && !paths:
		return errors.New("endpoint has more than scheme, host and port")
	}
	return nil
}

// ParseURL parses scheme://bucket/prefix?parameter=value. params maps the names of
// parameters to where their values are put. Its errors contain the path and no other
// part of the URL.
func ParseURL(u *url.URL, kind *Kind, params map[string]*string) (name, prefix string, err error) {
	switch {
	case u.Scheme != kind.Scheme:
		err = fmt.Errorf("scheme is %q", u.Scheme)
	case u.User != nil:
		err = errors.New("URL has a user or a password; the SDK finds credentials in the environment")
	case u.Opaque != "" || u.Host == "":
		err = fmt.Errorf("URL has no %s", kind.Noun)
	case strings.Contains(u.Host, ":"):
		err = errors.New("URL has a port; set host and port of the store with endpoint=")
	case u.Fragment != "":
		err = errors.New("URL has a fragment")
	default:
		err = objectstore.ParseQuery(u.RawQuery, params)
	}
	return u.Host, strings.TrimSuffix(strings.TrimPrefix(u.Path, "/"), "/"), err
}

// URLError returns the error of ParseURL of a driver.
func (kind *Kind) URLError(u *url.URL, err error) error {
	return fmt.Errorf("parse %s URL with path %q: %w; write %s", kind.Scheme, u.Path, err, kind.Usage)
}

// Location returns the URL of a backend, with the parameters that are not empty.
func (kind *Kind) Location(c Config, account string) string {
	u := url.URL{Scheme: kind.Scheme, Host: c.Name, Path: c.Prefix}
	var query []string
	for _, p := range [][2]string{{"account", account}, {"endpoint", c.Endpoint}} {
		if p[1] != "" {
			// A query may contain colons and slashes, which are easier to read.
			query = append(query, p[0]+"="+strings.NewReplacer("%3A", ":", "%2F", "/").Replace(url.QueryEscape(p[1])))
		}
	}
	u.RawQuery = strings.Join(query, "&")
	return u.String()
}

// Transport returns the transport of requests to the store, whose waits are bounded.
func (c Config) Transport() (http.RoundTripper, error) {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	httpidle.Bound(tr, c.IdleTimeout)
	tr.DisableCompression = true // The length of an answer is that of the range.
	if c.WrapTransport == nil {
		return tr, nil
	}
	if wrapped := c.WrapTransport(tr); wrapped != nil {
		return wrapped, nil
	}
	return nil, errors.New("WrapTransport returned nil")
}
