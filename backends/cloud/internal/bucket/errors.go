package bucket

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/objectstore"
)

// Answer is the meaning of an error that a store sent, or of one of its credentials.
type Answer struct {
	Text    string // without credentials
	Status  int    // of HTTP, or 0
	Request string // id for the logs of the store, or empty
	Is      error  // an error of package backends or of this package, or nil
	Advice  string // for the operator, or empty
}

// fail returns err, explained, as a *backends.Error.
func (b *Backend) fail(ctx context.Context, op, key string, err error) error {
	return &backends.Error{Op: op, Backend: b.location, Key: key, Err: b.explain(ctx, op, err)}
}

// explain returns err with its meaning and advice, or the error of ctx if that is done
// and no answer of the store explains err.
func (b *Backend) explain(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	a, ctxErr := b.store.Answer(op, err), ctx.Err()
	switch {
	case ctxErr != nil && (a == nil || a.Status == 0):
		return ctxErr
	case a != nil:
		return a.failure(err)
	}
	advice := b.networkAdvice(err)
	if advice == "" {
		return err
	}
	return objectstore.NewFailure(nil, Clean(innermost(err).Error()), advice, err)
}

// failure returns an error with a text such as:
//
//	permission denied: AuthorizationFailure (HTTP 403, request 4442587F); grant the role ...
func (a *Answer) failure(err error) error {
	text := Clean(a.Text)
	var facts []string
	if a.Status != 0 {
		facts = append(facts, fmt.Sprintf("HTTP %d", a.Status))
	}
	if a.Request != "" {
		facts = append(facts, "request "+Clean(a.Request))
	}
	if len(facts) > 0 {
		text += " (" + strings.Join(facts, ", ") + ")"
	}
	return objectstore.NewFailure(a.Is, text, a.Advice, err)
}

// networkAdvice returns advice for a missing answer, or "" if err is not one.
func (b *Backend) networkAdvice(err error) string {
	return objectstore.Network{
		CAFile: "SSL_CERT_FILE",
		Names:  "check the endpoint, the account and the network",
		Idle:   b.cfg.IdleTimeout,
		Broken: func(err error) bool {
			return isA[*url.Error](err) || isA[net.Error](err) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
		},
	}.Advice(err)
}

// Retryable reports whether another request may succeed after err, which is not an
// answer of the store.
func Retryable(err error) bool {
	return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) &&
		!errors.Is(err, http.ErrSchemeMismatch) && !isA[*bodyError](err) &&
		!isA[x509.CertificateInvalidError](err) && !isA[x509.UnknownAuthorityError](err) && !isA[x509.HostnameError](err)
}

// credentialText matches messages that may quote a signed request or a token.
var credentialText = regexp.MustCompile(`(?i)(signature|sig|token|secret|password|authorization)["']?\s*[=:>]|upload_id=`)

const maxMessage = 400 // bytes

// Clean returns a text of the store as one line of limited length, and without
// credentials.
func Clean(text string) string { return objectstore.Clean(text, credentialText, maxMessage) }

// innermost unwraps the errors of net/http, whose texts add a URL, which may be secret:
// whoever has that of a resumable upload can write.
func innermost(err error) error {
	var e *url.Error
	for errors.As(err, &e) {
		err = e.Err
	}
	return err
}

func isA[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}
