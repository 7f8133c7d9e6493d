package s3

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
)

const (
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// newRetryer bounds retries by their number alone. The SDK would also share a
// budget among all requests, and after an outage not retry any for a while.
// What first decides goes before all else.
func newRetryer(maxAttempts int, first ...retry.IsErrorRetryable) aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = maxAttempts
		o.RateLimiter = ratelimit.None
		o.Backoff = retry.BackoffDelayerFunc(func(attempt int, _ error) (time.Duration, error) {
			return backoff(attempt), nil
		})
		o.Retryables = append(append(first, retry.IsErrorRetryableFunc(retryable)), o.Retryables...)
	})
}

// retryable decides where the SDK would retry what cannot succeed, or not retry
// what may.
func retryable(err error) aws.Ternary {
	var (
		certificate *x509.CertificateInvalidError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		credentials *credentialsError
		netErr      net.Error
	)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return aws.UnknownTernary
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &hostname), errors.As(err, &credentials):
		return aws.FalseTernary
	case statusOf(err) == http.StatusTooManyRequests:
		return aws.TrueTernary
	case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &netErr) && netErr.Timeout():
		return aws.TrueTernary // an answer that was cut, or never came
	}
	return aws.UnknownTernary
}

// notIfCut leaves it to Put what to do about a request that was cut.
var notIfCut = retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
	if isCut(err) {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
})

// backoff returns how long to wait after the attempt of that number, from 1: a
// random time about a value that doubles, so that many clients spread out.
func backoff(attempt int) time.Duration {
	d := maxBackoff
	if shift := attempt - 1; shift < 10 {
		d = min(d, firstBackoff<<shift)
	}
	return d/2 + rand.N(d/2)
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
