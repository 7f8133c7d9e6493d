package s3

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	sdkretry "github.com/aws/aws-sdk-go-v2/aws/retry"

	"github.com/xdswal/xdswal/internal/retry"
)

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// newRetryer returns a retryer that limits only the number of attempts. The SDK's
// own also limits retries by a budget that all requests share, and after an outage
// would not retry for a while. first takes precedence over the other conditions.
func newRetryer(maxAttempts int, first ...sdkretry.IsErrorRetryable) aws.Retryer {
	return sdkretry.NewStandard(func(o *sdkretry.StandardOptions) {
		o.MaxAttempts = maxAttempts
		o.RateLimiter = ratelimit.None
		o.Backoff = sdkretry.BackoffDelayerFunc(func(attempt int, _ error) (time.Duration, error) {
			return backoff(attempt), nil
		})
		o.Retryables = append(append(first, sdkretry.IsErrorRetryableFunc(retryable)), o.Retryables...)
	})
}

// retryable corrects the SDK, which retries some errors that cannot succeed and does
// not retry some that may.
func retryable(err error) aws.Ternary {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return aws.UnknownTernary
	case errors.Is(err, http.ErrSchemeMismatch), isA[x509.CertificateInvalidError](err), isA[x509.UnknownAuthorityError](err),
		isA[x509.HostnameError](err), isA[*credentialsError](err):
		return aws.FalseTernary
	case statusOf(err) == http.StatusTooManyRequests:
		return aws.TrueTernary
	case errors.Is(err, io.ErrUnexpectedEOF), isTimeout(err):
		return aws.TrueTernary // an incomplete answer, or none
	}
	return aws.UnknownTernary
}

// notIfBroken leaves the retry of a request whose connection broke to Put.
var notIfBroken = sdkretry.IsErrorRetryableFunc(func(err error) aws.Ternary {
	if isBroken(err) {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
})

// backoff returns the wait after an attempt, counted from 1: minBackoff to
// maxBackoff, with jitter.
func backoff(attempt int) time.Duration {
	// The jitter is half of the interval.
	b := retry.Backoff(2*minBackoff, maxBackoff*2/3)
	for range min(attempt, 10) - 1 {
		b.NextBackOff()
	}
	return b.NextBackOff()
}

// pause waits for d, or returns the error of ctx.
func pause(ctx context.Context, d time.Duration) error {
	retry.Sleep(ctx, d)
	return ctx.Err()
}
