package objectstore

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
)

// ParseQuery puts the parameters of a query where params says. It returns an error for an
// unknown, repeated or empty one, which contains names alone.
func ParseQuery(raw string, params map[string]*string) error {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return errors.New("query is malformed")
	}
	for name, target := range params {
		values, ok := query[name]
		delete(query, name)
		switch {
		case !ok:
		case len(values) > 1:
			return fmt.Errorf("parameter %q is given %d times", name, len(values))
		case values[0] == "":
			return fmt.Errorf("parameter %q is empty", name)
		default:
			*target = values[0]
		}
	}
	if len(query) > 0 {
		return fmt.Errorf("unknown parameters %q", slices.Sorted(maps.Keys(query)))
	}
	return nil
}

// Client returns a client that follows no redirects: they could lead a token, or the keys in
// an object, to another host or off TLS, and a signed request would need another signature.
func Client(tr http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
