package s3

import (
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
)

// The values of Config whose zero stands for another.
const (
	DefaultPartSize    = 8 << 20
	DefaultConcurrency = 4
	DefaultMaxAttempts = 5
	DefaultIdleTimeout = time.Minute
)

const (
	minPartSize = 5 << 20 // the least that S3 allows
	maxPartSize = 5 << 30 // the most that S3 allows
	// maxPrefixLen leaves room for a slash and the longest key within the
	// 1024 bytes that S3 allows.
	maxPrefixLen = 1023 - backends.MaxKeyLen
)

// Config says where a [Backend] keeps its objects, and how it gets there.
type Config struct {
	// Bucket is the name of a bucket that exists. Required.
	Bucket string
	// Prefix is what all keys are kept under: the object "a" of the prefix
	// "x/y" is "x/y/a" in the bucket. It is like a key, without a slash at
	// either end; "" stands for the whole bucket.
	Prefix string
	// Region is the region of the bucket. By default it is what the SDK finds
	// in AWS_REGION or the profile, and us-east-1 where an endpoint is given.
	Region string
	// Endpoint is the http or https URL of a store other than that of AWS. By
	// default it is what the SDK finds in AWS_ENDPOINT_URL_S3,
	// AWS_ENDPOINT_URL or the profile, and AWS without those.
	Endpoint string
	// PathStyle puts the bucket into the path of requests, and not into the
	// name of the host, as stores without wildcard names in DNS need it.
	PathStyle bool
	// Profile is the section of the shared AWS files to use. By default it is
	// that of AWS_PROFILE.
	Profile string
	// Credentials sign the requests. By default the SDK finds them:
	// environment, profile, web identity (IRSA), container, instance role.
	Credentials aws.CredentialsProvider
	// SSE has the store encrypt objects: "AES256", "aws:kms" or
	// "aws:kms:dsse". By default the bucket's own setting holds.
	SSE string
	// KMSKeyID is the key for the two kinds of aws:kms. By default it is the
	// one that AWS manages.
	KMSKeyID string
	// StorageClass is the class of new objects, STANDARD by default. It must
	// be one that can be read at once.
	StorageClass string
	// PartSize is the size of the parts in which larger objects are sent, in
	// bytes, 5 MiB or more; [DefaultPartSize] by default. Very large objects
	// have larger parts, since there can be no more than 10,000.
	PartSize int64
	// Concurrency is how many parts of a Put are sent at once;
	// [DefaultConcurrency] by default. A Put in parts holds up to Concurrency
	// plus two of them in memory, and a smaller one holds its whole body.
	Concurrency int
	// MaxAttempts is how often a request is tried; [DefaultMaxAttempts] by
	// default. Between attempts the driver waits 0.1 to 5 seconds.
	MaxAttempts int
	// IdleTimeout ends an attempt in which no byte moves for so long;
	// [DefaultIdleTimeout] by default.
	IdleTimeout time.Duration
	// WrapTransport, if set, wraps what requests to the store are sent by, to
	// trace or count them. What it returns is called concurrently.
	WrapTransport func(http.RoundTripper) http.RoundTripper
	// ReadOnly refuses Put, Delete and Sweep with backends.ErrPermission.
	ReadOnly bool
}

// ParseURL returns the Config that a URL of this form stands for:
//
//	s3://bucket/prefix?endpoint=https://host:port&region=r&path_style=true&
//	    profile=p&sse=aws:kms&kms_key_id=k&storage_class=STANDARD_IA
//
// The prefix and all parameters may be left out. Credentials have no place in
// it. Errors show its path and no other part, which may hold some all the same.
func ParseURL(u *url.URL) (Config, error) {
	cfg, err := parseURL(u)
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
		return Config{}, errors.New("it has a user or a password; give credentials by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile")
	case u.Opaque != "" || u.Host == "":
		return Config{}, errors.New("it has no bucket")
	case strings.Contains(u.Host, ":"):
		return Config{}, errors.New("it has a port; give host and port of the store by endpoint=")
	case u.Fragment != "":
		return Config{}, errors.New("it has a fragment")
	}
	cfg := Config{Bucket: u.Host, Prefix: strings.TrimPrefix(u.Path, "/")}
	cfg.Prefix = strings.TrimSuffix(cfg.Prefix, "/")
	if err := cfg.parseQuery(u.RawQuery); err != nil {
		return Config{}, err
	}
	return cfg, cfg.check()
}

// parseQuery takes each parameter at most once, and none that it does not know.
func (c *Config) parseQuery(raw string) error {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return errors.New("the query is malformed")
	}
	params := map[string]*string{
		"endpoint": &c.Endpoint, "region": &c.Region, "profile": &c.Profile,
		"sse": &c.SSE, "kms_key_id": &c.KMSKeyID, "storage_class": &c.StorageClass,
		"path_style": new(string),
	}
	var unknown []string
	for name, values := range query {
		target, ok := params[name]
		switch {
		case !ok:
			unknown = append(unknown, name)
		case len(values) > 1:
			return fmt.Errorf("parameter %q is given %d times", name, len(values))
		case values[0] == "":
			return fmt.Errorf("parameter %q is empty", name)
		default:
			*target = values[0]
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return fmt.Errorf("unknown parameters %q", unknown)
	}
	if style := *params["path_style"]; style != "" {
		if c.PathStyle, err = strconv.ParseBool(style); err != nil {
			return errors.New("path_style is neither true nor false")
		}
	}
	return nil
}

var (
	bucketName  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	regionName  = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
	className   = regexp.MustCompile(`^[A-Z0-9_-]{1,64}$`)
	slowClasses = []string{"GLACIER", "DEEP_ARCHIVE"}
	sseKinds    = []string{"", "AES256", "aws:kms", "aws:kms:dsse"}
)

// check returns an error for values that cannot work. It shows none but the
// prefix, since a misplaced one may be a secret.
func (c Config) check() error {
	if c.Bucket == "" {
		return errors.New("set the bucket: Config.Bucket is empty")
	}
	if !bucketName.MatchString(c.Bucket) {
		return errors.New("the bucket's name is not 3 to 63 of a-z 0-9 . -")
	}
	if err := checkPrefix(c.Prefix); err != nil {
		return err
	}
	if err := checkEndpoint(c.Endpoint); err != nil {
		return err
	}
	switch {
	case c.Region != "" && !regionName.MatchString(c.Region):
		return errors.New("the region's name is not of A-Z a-z 0-9 -")
	case !slices.Contains(sseKinds, c.SSE):
		return fmt.Errorf("sse is none of %s", strings.Join(sseKinds[1:], ", "))
	case c.KMSKeyID != "" && !strings.HasPrefix(c.SSE, "aws:kms"):
		return errors.New("kms_key_id needs sse=aws:kms or sse=aws:kms:dsse")
	case c.StorageClass != "" && !className.MatchString(c.StorageClass):
		return errors.New("the storage class is not of A-Z 0-9 _ -")
	case slices.Contains(slowClasses, c.StorageClass):
		return fmt.Errorf("the storage class %s cannot be read at once; GLACIER_IR can", c.StorageClass)
	case c.PartSize != 0 && (c.PartSize < minPartSize || c.PartSize > maxPartSize):
		return fmt.Errorf("the part size of %d bytes is not between %d and %d", c.PartSize, minPartSize, maxPartSize)
	case c.Concurrency < 0 || c.MaxAttempts < 0 || c.IdleTimeout < 0:
		return errors.New("a limit is negative")
	}
	return nil
}

func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if len(prefix) > maxPrefixLen {
		return fmt.Errorf("the prefix has %d bytes, the limit is %d", len(prefix), maxPrefixLen)
	}
	if err := backends.ValidKey(prefix); err != nil {
		return fmt.Errorf("the prefix must be like a key: %w", err)
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
		return errors.New("the endpoint is not like https://host:port")
	case u.User != nil:
		return errors.New("the endpoint has a user or a password")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("the endpoint has more than scheme, host and port")
	}
	return nil
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	if c.PartSize == 0 {
		c.PartSize = DefaultPartSize
	}
	if c.Concurrency == 0 {
		c.Concurrency = DefaultConcurrency
	}
	if c.MaxAttempts == 0 {
		c.MaxAttempts = DefaultMaxAttempts
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = DefaultIdleTimeout
	}
	c.Endpoint = strings.TrimSuffix(c.Endpoint, "/")
	return c
}
