// Package objectstore is what the drivers of object stores share: errors that an operator
// understands, the parameters of URLs, and the HTTP client.
package objectstore

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Failure is an error of a store with a text of its own. It wraps the SDK's error.
type Failure struct {
	Text string
	Is   error // an error that it is too, or nil
	Err  error
}

func (f *Failure) Error() string { return f.Text }

// Unwrap returns the SDK's error, and the one that the failure is too.
func (f *Failure) Unwrap() []error {
	if f.Is == nil {
		return []error{f.Err}
	}
	return []error{f.Is, f.Err}
}

// NewFailure returns a failure with the text "is: what; advice"; is may be nil, and advice
// empty.
func NewFailure(is error, what, advice string, err error) *Failure {
	text := what
	if is != nil {
		text = is.Error() + ": " + text
	}
	if advice != "" {
		text += "; " + advice
	}
	return &Failure{Text: text, Is: is, Err: err}
}

// Clean returns a text of a store as one line of at most about most bytes, and without
// credentials: secret matches the texts that may quote some.
func Clean(text string, secret *regexp.Regexp, most int) string {
	if secret.MatchString(text) {
		return "(message not shown, it may contain credentials)"
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// Network is what the advice about the network of a store depends on.
type Network struct {
	CAFile string // variable that names a file of certificate authorities
	Names  string // advice for a name that is not known
	Idle   time.Duration
	// Broken reports whether the connection ended before the end of the answer.
	Broken func(error) bool
}

// Advice returns advice for the usual causes of a missing answer, or "".
func (n Network) Advice(err error) string {
	switch {
	case isA[x509.UnknownAuthorityError](err):
		return "set " + n.CAFile + " to a file with the certificate of the store's authority"
	case isA[x509.CertificateInvalidError](err):
		return "correct the certificate of the store, or the clock of this machine"
	case isA[x509.HostnameError](err):
		return "use an endpoint whose name is in the certificate of the store"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the store does not speak TLS: write http:// in the endpoint"
	case isA[*net.DNSError](err):
		return n.Names
	case errors.Is(err, syscall.ECONNREFUSED):
		return "start the store or correct the endpoint"
	case errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return fmt.Sprintf("the store was silent for %v: check it and the network", n.Idle)
	case n.Broken(err):
		return "the connection broke before the answer: check the store and the network"
	}
	return ""
}

func isA[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
