package s3

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/objectstore"
)

const (
	defaultPartSize    = 8 << 20
	defaultConcurrency = 4
	defaultMaxAttempts = 5
	defaultIdleTimeout = time.Minute

	minPartSize    = 5 << 20 // limit of S3
	maxPartSize    = 5 << 30 // limit of S3
	maxConcurrency = 10_000  // limit of S3 on the parts of an object
	minIdleTimeout = time.Millisecond
	// maxPrefixLen leaves space for a slash and the longest key within the 1024
	// bytes that S3 allows.
	maxPrefixLen = 1023 - backends.MaxKeyLen
)

// Config configures a [Backend]. The zero value of a field selects its default. New
// returns an error for every other value that is out of range.
type Config struct {
	// Bucket is the name of an existing bucket. Required.
	Bucket string
	// Prefix is prepended to all keys with a slash: with the prefix "x/y" the
	// object "a" is "x/y/a" in the bucket. It must be a valid key. Default: none,
	// the backend is the whole bucket.
	Prefix string
	// Region is the region of the bucket. Default: AWS_REGION or the profile;
	// without those, us-east-1 if an endpoint is set.
	Region string
	// Endpoint is the http or https URL of a store other than AWS. Default:
	// AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile; without those, AWS.
	Endpoint string
	// PathStyle sends the bucket in the path of requests instead of in the name
	// of the host. Stores without a DNS name for each bucket need it.
	PathStyle bool
	// Profile is the section of the shared AWS files to use. Default:
	// AWS_PROFILE.
	Profile string
	// Credentials sign the requests. Default: those that the AWS SDK finds in the
	// environment, the profile, a web identity (IRSA), the container or the
	// instance role.
	Credentials aws.CredentialsProvider
	// SSE is the server-side encryption of new objects: "AES256", "aws:kms" or
	// "aws:kms:dsse". Default: the setting of the bucket.
	SSE string
	// KMSKeyID is the key for "aws:kms" and "aws:kms:dsse". Default: the key that
	// AWS manages.
	KMSKeyID string
	// StorageClass is the storage class of new objects. It must be one whose
	// objects can be read immediately. Default: STANDARD.
	StorageClass string
	// PartSize is the size of the parts of a multipart upload in bytes, from 5 MiB
	// to 5 GiB. Objects of more than 10,000 parts have larger parts. Default: 8
	// MiB.
	PartSize int64
	// Concurrency is the number of parts of a Put that are sent concurrently, from
	// 1 to 10,000. A multipart Put holds up to Concurrency+2 parts in memory; a
	// smaller Put holds its whole body. Default: 4.
	Concurrency int
	// MaxAttempts is the maximum number of attempts of a request, from 1. The
	// driver waits 0.1 to 5 seconds between attempts. Default: 5.
	MaxAttempts int
	// IdleTimeout is the time without a byte sent or received after which an
	// attempt fails, from 1 ms. Default: 1 minute.
	IdleTimeout time.Duration
	// WrapTransport wraps the transport of requests to the store, for tracing or
	// counting. It must not return nil. Its result is called concurrently.
	// Default: none.
	WrapTransport func(http.RoundTripper) http.RoundTripper
	// ReadOnly makes Put, Delete and Sweep return backends.ErrPermission.
	ReadOnly bool
}

// withDefaults returns c with the default for each zero field.
func (c Config) withDefaults() Config {
	c.PartSize = cmp.Or(c.PartSize, defaultPartSize)
	c.Concurrency = cmp.Or(c.Concurrency, defaultConcurrency)
	c.MaxAttempts = cmp.Or(c.MaxAttempts, defaultMaxAttempts)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, defaultIdleTimeout)
	c.Endpoint = strings.TrimSuffix(c.Endpoint, "/")
	return c
}

// fieldError is the error of one field of a Config. Its text contains no value but
// numbers, the prefix and well-known names: a misplaced value may be a secret.
type fieldError struct {
	field string
	err   error
}

func (e *fieldError) Error() string { return "Config." + e.field + " " + e.err.Error() }
func (e *fieldError) Unwrap() error { return e.err }

func invalid(field, format string, args ...any) error {
	return &fieldError{field, fmt.Errorf(format, args...)}
}

var (
	bucketName  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	regionName  = regexp.MustCompile(`^[A-Za-z0-9-]{0,64}$`)
	className   = regexp.MustCompile(`^[A-Z0-9_-]{0,64}$`)
	kmsKeyName  = regexp.MustCompile(`^[!-~]*$`)
	slowClasses = []string{"GLACIER", "DEEP_ARCHIVE"}
	sseKinds    = []string{"", "AES256", "aws:kms", "aws:kms:dsse"}
)

// check returns a *fieldError for a field that is out of range.
func (c Config) check() error {
	const outOfRange = "is out of range: got %v, want %v to %v"
	const tooSmall = "is out of range: got %v, want at least %v"
	switch {
	case c.Bucket == "":
		return invalid("Bucket", "is empty; set it to the name of a bucket")
	case !bucketName.MatchString(c.Bucket):
		return invalid("Bucket", "is not 3 to 63 bytes of a-z 0-9 . -")
	case !regionName.MatchString(c.Region):
		return invalid("Region", "is not 1 to 64 bytes of A-Z a-z 0-9 -")
	case !slices.Contains(sseKinds, c.SSE):
		return invalid("SSE", "is not one of %s", strings.Join(sseKinds[1:], ", "))
	case c.KMSKeyID != "" && !strings.HasPrefix(c.SSE, "aws:kms"):
		return invalid("KMSKeyID", "needs SSE aws:kms or aws:kms:dsse")
	case !kmsKeyName.MatchString(c.KMSKeyID):
		return invalid("KMSKeyID", "is not printable ASCII without spaces")
	case !className.MatchString(c.StorageClass):
		return invalid("StorageClass", "is not 1 to 64 bytes of A-Z 0-9 _ -")
	case slices.Contains(slowClasses, c.StorageClass):
		return invalid("StorageClass", "is %s, whose objects cannot be read immediately; GLACIER_IR objects can", c.StorageClass)
	case c.PartSize != 0 && (c.PartSize < minPartSize || c.PartSize > maxPartSize):
		return invalid("PartSize", outOfRange, c.PartSize, minPartSize, maxPartSize)
	case c.Concurrency < 0 || c.Concurrency > maxConcurrency:
		return invalid("Concurrency", outOfRange, c.Concurrency, 1, maxConcurrency)
	case c.MaxAttempts < 0:
		return invalid("MaxAttempts", tooSmall, c.MaxAttempts, 1)
	case c.IdleTimeout != 0 && c.IdleTimeout < minIdleTimeout:
		return invalid("IdleTimeout", tooSmall, c.IdleTimeout, minIdleTimeout)
	}
	if err := checkPrefix(c.Prefix); err != nil {
		return &fieldError{"Prefix", err}
	}
	if err := checkEndpoint(c.Endpoint); err != nil {
		return &fieldError{"Endpoint", err}
	}
	return nil
}

func checkPrefix(prefix string) error {
	if len(prefix) > maxPrefixLen {
		return fmt.Errorf("is too long: got %d bytes, want at most %d", len(prefix), maxPrefixLen)
	}
	if err := backends.ValidKey(prefix); prefix != "" && err != nil {
		return fmt.Errorf("is not a valid key: %w", err)
	}
	return nil
}

func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return errors.New("is not of the form https://host:port")
	case u.User != nil:
		return errors.New("has a user or a password")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("has more than scheme, host and port")
	}
	return nil
}

// ParseURL returns the Config for a URL of the form
//
//	s3://bucket/prefix?endpoint=https://host:port&region=r&path_style=true&
//	    profile=p&sse=aws:kms&kms_key_id=k&storage_class=STANDARD_IA
//
// The prefix and all parameters are optional. A URL must not contain credentials.
// Errors of ParseURL contain the path and no other part of the URL.
func ParseURL(u *url.URL) (Config, error) {
	cfg, err := parseURL(u)
	if err == nil {
		err = cfg.check()
	}
	if e, ok := as[*fieldError](err); ok {
		// The reader wrote a parameter, not a field.
		name := strings.NewReplacer("kmskeyid", "kms_key_id", "storageclass", "storage_class").Replace(strings.ToLower(e.field))
		err = fmt.Errorf("%s %w", name, e.err)
	}
	if err != nil {
		return Config{}, fmt.Errorf("parse S3 URL with path %q: %w; write s3://bucket/prefix?region=...&endpoint=https://host:port", u.Path, err)
	}
	return cfg, nil
}

func parseURL(u *url.URL) (Config, error) {
	switch {
	case u.Scheme != "s3":
		return Config{}, fmt.Errorf("scheme is %q", u.Scheme)
	case u.User != nil:
		return Config{}, errors.New("URL has a user or a password; set credentials with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile")
	case u.Opaque != "" || u.Host == "":
		return Config{}, errors.New("URL has no bucket")
	case strings.Contains(u.Host, ":"):
		return Config{}, errors.New("URL has a port; set host and port of the store with endpoint=")
	case u.Fragment != "":
		return Config{}, errors.New("URL has a fragment")
	}
	cfg := Config{Bucket: u.Host, Prefix: strings.TrimPrefix(u.Path, "/")}
	cfg.Prefix = strings.TrimSuffix(cfg.Prefix, "/")
	return cfg, cfg.parseQuery(u.RawQuery)
}

// parseQuery sets the fields of the parameters. It returns an error for an unknown,
// repeated or empty parameter.
func (c *Config) parseQuery(raw string) error {
	var style string
	params := map[string]*string{
		"endpoint": &c.Endpoint, "region": &c.Region, "profile": &c.Profile, "path_style": &style,
		"sse": &c.SSE, "kms_key_id": &c.KMSKeyID, "storage_class": &c.StorageClass,
	}
	if err := objectstore.ParseQuery(raw, params); err != nil {
		return err
	}
	if style == "" {
		return nil
	}
	var err error
	if c.PathStyle, err = strconv.ParseBool(style); err != nil {
		return errors.New("path_style is neither true nor false")
	}
	return nil
}
