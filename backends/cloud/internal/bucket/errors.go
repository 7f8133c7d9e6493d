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
	"os"
	"regexp"
	"strings"
	"syscall"

	"github.com/xdswal/xdswal/backends"
)

// Answer is the meaning of an error that a store sent, or of one of its credentials.
type Answer struct {
	Text    string // without credentials
	Status  int    // of HTTP, or 0
	Request string // id for the logs of the store, or empty
	Is      error  // an error of package backends or of this package, or nil
	Advice  string // for the operator, or empty
}

// failure is an error of the store with a text of its own. It wraps the SDK's error.
type failure struct {
	text string
	is   error
	err  error
}

func (f *failure) Error() string { return f.text }

func (f *failure) Unwrap() []error {
	if f.is == nil {
		return []error{f.err}
	}
	return []error{f.is, f.err}
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
	return &failure{text: Clean(innermost(err).Error()) + "; " + advice, err: err}
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
	if a.Is != nil {
		text = a.Is.Error() + ": " + text
	}
	if a.Advice != "" {
		text += "; " + a.Advice
	}
	return &failure{text: text, is: a.Is, err: err}
}

// networkAdvice returns advice for a missing answer, or "" if err is not one.
func (b *Backend) networkAdvice(err error) string {
	switch {
	case isA[x509.UnknownAuthorityError](err):
		return "set SSL_CERT_FILE to a file with the certificate of the store's authority"
	case isA[x509.CertificateInvalidError](err):
		return "correct the certificate of the store, or the clock of this machine"
	case isA[x509.HostnameError](err):
		return "use an endpoint whose name is in the certificate of the store"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the store does not speak TLS: write http:// in the endpoint"
	case isA[*net.DNSError](err):
		return "check the endpoint, the account and the network"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "start the store or correct the endpoint"
	case errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return fmt.Sprintf("the store was silent for %v: check it and the network", b.cfg.IdleTimeout)
	case isA[*url.Error](err), isA[net.Error](err), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the connection broke before the answer: check the store and the network"
	}
	return ""
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
func Clean(text string) string {
	if credentialText.MatchString(text) {
		return "(message not shown, it may contain credentials)"
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "..."
	}
	return text
}

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

// isTimeout reports whether err is a timeout of the network.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
