package s3

import (
	"context"
	"errors"
	"fmt"

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
	sdk, err := config.LoadDefaultConfig(ctx, options...)
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
		o.Credentials = markCredentials(o.Credentials)
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

func markCredentials(p aws.CredentialsProvider) aws.CredentialsProvider {
	// The SDK recognizes anonymous credentials by their type.
	if p == nil || aws.IsCredentialsProvider(p, aws.AnonymousCredentials{}) {
		return p
	}
	return markedCredentials{p}
}
