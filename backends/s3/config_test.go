package s3_test

import (
	"math"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/s3"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		name, raw string
		want      s3.Config // or else:
		err       string
	}{
		{name: "bucket", raw: "s3://bucket", want: s3.Config{Bucket: "bucket"}},
		{name: "slash", raw: "s3://bucket/", want: s3.Config{Bucket: "bucket"}},
		{name: "prefix", raw: "s3://my.bucket-1/a/b=c", want: s3.Config{Bucket: "my.bucket-1", Prefix: "a/b=c"}},
		{name: "prefix, slash", raw: "s3://bucket/a/b/", want: s3.Config{Bucket: "bucket", Prefix: "a/b"}},
		{
			name: "all",
			raw: "s3://bucket/p?endpoint=https://127.0.0.1:9000&region=eu-central-1&path_style=true&profile=prod" +
				"&sse=aws:kms&kms_key_id=alias/k&storage_class=STANDARD_IA",
			want: s3.Config{
				Bucket: "bucket", Prefix: "p", Endpoint: "https://127.0.0.1:9000", Region: "eu-central-1", PathStyle: true,
				Profile: "prod", SSE: "aws:kms", KMSKeyID: "alias/k", StorageClass: "STANDARD_IA",
			},
		},
		{name: "virtual hosts", raw: "s3://bucket?path_style=false", want: s3.Config{Bucket: "bucket"}},
		{name: "other scheme", raw: "file:///a", err: `scheme is "file"`},
		{name: "user", raw: "s3://AKIA:secret@bucket/p", err: "URL has a user or a password"},
		{name: "no bucket", raw: "s3:///p", err: "URL has no bucket"},
		{name: "opaque", raw: "s3:bucket/p", err: "URL has no bucket"},
		{name: "port", raw: "s3://bucket:9000/p", err: "URL has a port; set host and port of the store with endpoint="},
		{name: "fragment", raw: "s3://bucket/p#f", err: "URL has a fragment"},
		{name: "bucket name", raw: "s3://My_bucket/p", err: "bucket is not 3 to 63 bytes"},
		{name: "short bucket", raw: "s3://b/p", err: "bucket is not 3 to 63 bytes"},
		{name: "double slash", raw: "s3://bucket//p", err: "prefix is not a valid key: invalid key: empty segment"},
		{name: "dots", raw: "s3://bucket/a/../b", err: `segment ".."`},
		{name: "escapes", raw: "s3://bucket/a%20b", err: `byte " " in segment "a b"`},
		{name: "long prefix", raw: "s3://bucket/" + strings.Repeat("a/", 300), err: "prefix is too long: got 599 bytes, want at most 511"},
		{name: "unknown", raw: "s3://bucket?acl=secret&Region=x", err: `unknown parameters ["Region" "acl"]`},
		{name: "twice", raw: "s3://bucket?region=secret&region=b", err: `parameter "region" is given 2 times`},
		{name: "empty", raw: "s3://bucket?region=", err: `parameter "region" is empty`},
		{name: "bad query", raw: "s3://bucket?%secret", err: "query is malformed"},
		{name: "path style", raw: "s3://bucket?path_style=secret", err: "path_style is neither true nor false"},
		{name: "region", raw: "s3://bucket?region=secret/", err: "region is not 1 to 64 bytes"},
		{name: "endpoint", raw: "s3://bucket?endpoint=localhost:9000", err: "endpoint is not of the form https://host:port"},
		{name: "endpoint's user", raw: "s3://bucket?endpoint=http://AKIA:secret@host", err: "endpoint has a user or a password"},
		{name: "endpoint's path", raw: "s3://bucket?endpoint=http://host/secret", err: "endpoint has more than"},
		{name: "endpoint's query", raw: "s3://bucket?endpoint=http://host%3Fsecret", err: "endpoint has more than"},
		{name: "sse", raw: "s3://bucket?sse=secret", err: "sse is not one of AES256, aws:kms, aws:kms:dsse"},
		{name: "key", raw: "s3://bucket?sse=AES256&kms_key_id=secret", err: "kms_key_id needs SSE aws:kms"},
		{name: "class", raw: "s3://bucket?storage_class=secret", err: "storage_class is not 1 to 64 bytes of"},
		{name: "slow class", raw: "s3://bucket?storage_class=GLACIER", err: "storage_class is GLACIER, whose objects cannot be read immediately; GLACIER_IR objects can"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := url.Parse(c.raw)
			require.NoError(t, err)
			cfg, err := s3.ParseURL(u)
			if c.err == "" {
				require.NoError(t, err)
				require.Equal(t, c.want, cfg)
				return
			}
			require.ErrorContains(t, err, c.err)
			require.ErrorContains(t, err, "write s3://bucket/prefix?")
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), "AKIA")
		})
	}
}

func TestNewRefuses(t *testing.T) {
	noAWS(t)
	for _, c := range []struct {
		name string
		cfg  s3.Config
		want string
	}{
		{"no bucket", s3.Config{}, "Config.Bucket is empty"},
		{"bucket name", s3.Config{Bucket: "secret_"}, "Config.Bucket is not 3 to 63"},
		{"prefix", s3.Config{Bucket: "bucket", Prefix: "a/"}, "Config.Prefix is not a valid key"},
		{"region name", s3.Config{Bucket: "bucket", Region: "secret/"}, "Config.Region is not"},
		{"endpoint", s3.Config{Bucket: "bucket", Endpoint: "secret"}, "Config.Endpoint is not of the form"},
		{"encryption", s3.Config{Bucket: "bucket", SSE: "secret"}, "Config.SSE is not one of"},
		{"key without its encryption", s3.Config{Bucket: "bucket", KMSKeyID: "secret"}, "Config.KMSKeyID needs SSE aws:kms"},
		{"key", s3.Config{Bucket: "bucket", SSE: "aws:kms", KMSKeyID: "secret\r\nX-Y: z"}, "Config.KMSKeyID is not"},
		{"storage class", s3.Config{Bucket: "bucket", StorageClass: "secret"}, "Config.StorageClass is not"},
		{"slow storage class", s3.Config{Bucket: "bucket", StorageClass: "DEEP_ARCHIVE"}, "Config.StorageClass is DEEP_ARCHIVE"},
		{"small parts", s3.Config{Bucket: "bucket", PartSize: 5<<20 - 1}, "Config.PartSize is out of range: got 5242879, want 5242880 to 5368709120"},
		{"negative parts", s3.Config{Bucket: "bucket", PartSize: -1}, "Config.PartSize is out of range: got -1"},
		{"large parts", s3.Config{Bucket: "bucket", PartSize: 5<<30 + 1}, "Config.PartSize is out of range"},
		{"negative concurrency", s3.Config{Bucket: "bucket", Concurrency: -1}, "Config.Concurrency is out of range: got -1, want 1 to 10000"},
		{"large concurrency", s3.Config{Bucket: "bucket", Concurrency: 10_001}, "Config.Concurrency is out of range"},
		{"negative attempts", s3.Config{Bucket: "bucket", MaxAttempts: -1}, "Config.MaxAttempts is out of range: got -1, want at least 1"},
		{"negative timeout", s3.Config{Bucket: "bucket", IdleTimeout: -1}, "Config.IdleTimeout is out of range: got -1ns, want at least 1ms"},
		{"timeout without a unit", s3.Config{Bucket: "bucket", IdleTimeout: 30}, "Config.IdleTimeout is out of range: got 30ns"},
		{"no transport", s3.Config{Bucket: "bucket", Region: "r", WrapTransport: func(http.RoundTripper) http.RoundTripper { return nil }}, "Config.WrapTransport returned nil"},
		{"no region", s3.Config{Bucket: "bucket"}, "region is not known; set Config.Region (region= in the URL), AWS_REGION or the profile"},
		{"no profile", s3.Config{Bucket: "bucket", Profile: "nobody"}, "correct the environment (AWS_*) or the profile"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := s3.New(t.Context(), c.cfg)
			require.ErrorContains(t, err, c.want)
			var placed *backends.Error
			require.ErrorAs(t, err, &placed)
			require.Equal(t, "open", placed.Op)
			require.NotContains(t, err.Error(), "secret")
		})
	}
	for name, cfg := range map[string]s3.Config{
		"zero values":  {},
		"least values": {PartSize: 5 << 20, Concurrency: 1, MaxAttempts: 1, IdleTimeout: time.Millisecond},
		"most values":  {PartSize: 5 << 30, Concurrency: 10_000, MaxAttempts: math.MaxInt, IdleTimeout: math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Bucket, cfg.Region = "bucket", "r"
			open(t, cfg)
		})
	}
}

// The location distinguishes stores, and contains no credentials.
func TestLocation(t *testing.T) {
	noAWS(t)
	t.Setenv("AWS_REGION", "eu-central-1")
	b := open(t, s3.Config{Bucket: "bucket", Prefix: "a/b"})
	require.Equal(t, "s3://bucket/a/b", b.String())
	b = open(t, s3.Config{Bucket: "bucket", Endpoint: "https://store.example:9000/", Region: "x", PathStyle: true})
	require.Equal(t, "s3://bucket?endpoint=https://store.example:9000", b.String())
	u, err := url.Parse(b.String())
	require.NoError(t, err)
	_, err = s3.ParseURL(u)
	require.NoError(t, err)

	t.Setenv("AWS_ENDPOINT_URL_S3", "https://store.example/")
	b = open(t, s3.Config{Bucket: "bucket", Prefix: "a"})
	require.Equal(t, "s3://bucket/a?endpoint=https://store.example", b.String())
}

// noAWS hides the AWS configuration of this machine.
func noAWS(t *testing.T) {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "", "AWS_REGION": "",
		"AWS_DEFAULT_REGION": "", "AWS_PROFILE": "", "AWS_CA_BUNDLE": "", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		t.Setenv(name, value)
	}
}
