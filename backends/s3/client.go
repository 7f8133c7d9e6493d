package s3

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
)

// newClient returns a client for cfg, which has no zero numbers.
func newClient(ctx context.Context, cfg Config) (*s3.Client, error) {
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(newHTTPClient(cfg.IdleTimeout)),
		config.WithLogger(logging.Nop{}),
	}
	if cfg.Region != "" {
		options = append(options, config.WithRegion(cfg.Region))
	}
	if cfg.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(cfg.Profile))
	}
	if cfg.Credentials != nil {
		options = append(options, config.WithCredentialsProvider(cfg.Credentials))
	}
	load := func(ctx context.Context) (aws.Config, error) { return config.LoadDefaultConfig(ctx, options...) }
	sdk, err := load(ctx)
	if err != nil {
		return nil, fmt.Errorf("load the AWS configuration: %w; correct the environment (AWS_*) or the profile", err)
	}
	httpClient, err := storeClient(sdk.HTTPClient, cfg.WrapTransport)
	if err != nil {
		return nil, err
	}
	client := s3.NewFromConfig(sdk, func(o *s3.Options) {
		o.UsePathStyle = cfg.PathStyle
		if cfg.Endpoint != "" {
			o.BaseEndpoint = &cfg.Endpoint
		}
		if o.BaseEndpoint != nil && o.Region == "" {
			o.Region = "us-east-1" // the region name of stores without regions
		}
		o.HTTPClient = httpClient
		o.Retryer, o.RetryMaxAttempts = newRetryer(cfg.MaxAttempts), 0 // overrides AWS_MAX_ATTEMPTS
		// The SDK recognizes anonymous credentials by their type.
		if !aws.IsCredentialsProvider(o.Credentials, aws.AnonymousCredentials{}) {
			rotated := &rotatedCredentials{load: load, given: cfg.Credentials}
			o.Credentials = markedCredentials{aws.NewCredentialsCache(rotated)}
		}
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
		// The reader verifies checksums: the checksum of an object continues over
		// the requests of a reader that resumes.
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	})
	if client.Options().Region == "" {
		return nil, errors.New("region is not known; set Config.Region (region= in the URL), AWS_REGION or the profile")
	}
	return client, nil
}

// credentialsError marks an error of finding credentials, as opposed to one of the
// store.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "find credentials: " + clean(e.err.Error()) }
func (e *credentialsError) Unwrap() error { return e.err }

// markedCredentials returns its errors as *credentialsError.
type markedCredentials struct{ aws.CredentialsProvider }

func (c markedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	creds, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return creds, &credentialsError{err}
	}
	return creds, nil
}

// maxCredentialsAge is how long credentials that never expire are used before they are
// looked for again. The SDK reads the shared AWS files, and asks a provider that is given
// to it, only once for such credentials.
const maxCredentialsAge = time.Minute

// rotatedCredentials finds credentials in given, or else in what load returns. It is used
// by one goroutine at a time.
type rotatedCredentials struct {
	load  func(context.Context) (aws.Config, error)
	given aws.CredentialsProvider // may be nil

	found aws.CredentialsProvider // nil if they have to be looked for again
	last  aws.Credentials         // if they never expire
	// doubted is set if other ones, which expire, were found in place of last.
	doubted bool
}

func (r *rotatedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	creds, err := r.find(ctx)
	switch {
	case err != nil && !r.last.HasKeys():
		r.found = nil
		return creds, err
	case err != nil:
		creds = r.last // a file that is being written may have none
	case creds.CanExpire && r.last.HasKeys() && !r.doubted:
		// A file that is being written has none, and the SDK goes on to the machine's role.
		r.doubted, creds = true, r.last
	case creds.CanExpire:
		r.found, r.last, r.doubted = nil, aws.Credentials{}, false
		return creds, nil
	default:
		r.doubted = false
	}
	r.found, r.last = nil, creds
	creds.CanExpire, creds.Expires = true, time.Now().Add(maxCredentialsAge)
	return creds, nil
}

func (r *rotatedCredentials) find(ctx context.Context) (aws.Credentials, error) {
	if r.given != nil {
		return r.given.Retrieve(ctx)
	}
	if r.found == nil {
		sdk, err := r.load(ctx)
		if err != nil {
			return aws.Credentials{}, err
		}
		r.found = sdk.Credentials
	}
	return r.found.Retrieve(ctx)
}
