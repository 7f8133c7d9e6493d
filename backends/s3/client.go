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

// newClient returns a client for cfg, which has its defaults.
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
		return nil, fmt.Errorf("read the AWS configuration: %w; correct the environment (AWS_*) or the profile", err)
	}
	client := s3.NewFromConfig(sdk, func(o *s3.Options) {
		o.UsePathStyle = cfg.PathStyle
		if cfg.Endpoint != "" {
			o.BaseEndpoint = &cfg.Endpoint
		}
		if o.BaseEndpoint != nil && o.Region == "" {
			o.Region = "us-east-1" // what stores without regions call theirs
		}
		o.HTTPClient = storeClient(sdk.HTTPClient, cfg.WrapTransport)
		o.Retryer, o.RetryMaxAttempts = newRetryer(cfg.MaxAttempts), 0 // Not that of AWS_MAX_ATTEMPTS.
		o.Credentials = markCredentials(o.Credentials)
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
		// Readers check what they read by themselves: a sum must go on over
		// the requests of a reader that resumes.
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	})
	if client.Options().Region == "" {
		return nil, errors.New("no region is known; set region= in the URL, AWS_REGION or the profile")
	}
	return client, nil
}

// credentialsError tells errors of finding credentials from those of the store.
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
	// The SDK knows anonymous credentials by their type.
	if p == nil || aws.IsCredentialsProvider(p, aws.AnonymousCredentials{}) {
		return p
	}
	return markedCredentials{p}
}
