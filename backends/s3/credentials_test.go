package s3_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends/s3"
)

// Credentials that change while the backend is open are used within a minute: those in
// the shared AWS file, by default or of a profile, and those of a provider that an
// embedder gives.
func TestRotatedCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	var key string
	for name, r := range map[string]struct {
		cfg     s3.Config
		section string
	}{
		"shared file": {s3.Config{}, "default"},
		"profile":     {s3.Config{Profile: "fleet"}, "fleet"},
		"given": {s3.Config{Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: key, SecretAccessKey: secretKey, SessionToken: "token-" + key}, nil
		})}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			noAWS(t)
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
			rotate := func(to string) {
				key = to
				content := "[" + r.section + "]\naws_access_key_id = " + to + "\naws_secret_access_key = " + secretKey + "\naws_session_token = token-" + to + "\n"
				if to == "" {
					content = "" // it is being written
				}
				require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
			}
			rotate("AKIAFIRST")
			synctest.Test(t, func(t *testing.T) {
				// The store refuses the first token after it has expired.
				current, used := "AKIAFIRST", ""
				cfg := r.cfg
				cfg.Bucket, cfg.Endpoint, cfg.MaxAttempts = "bucket", "http://store.invalid", 1
				cfg.WrapTransport = transport(func(_ http.RoundTripper, req *http.Request) (*http.Response, error) {
					_, used, _ = strings.Cut(req.Header.Get("Authorization"), "Credential=")
					used, _, _ = strings.Cut(used, "/")
					res := &http.Response{StatusCode: http.StatusNoContent, Header: http.Header{}, Body: http.NoBody, Request: req}
					if used != current || req.Header.Get("X-Amz-Security-Token") != "token-"+used {
						res.StatusCode = http.StatusBadRequest
						res.Body = io.NopCloser(strings.NewReader("<Error><Code>ExpiredToken</Code><Message>Expired</Message></Error>"))
					}
					return res, nil
				}).wrap
				b := open(t, cfg)
				require.NoError(t, b.Delete(t.Context(), "k"))

				current = "AKIASECOND"
				require.ErrorContains(t, b.Delete(t.Context(), "k"), "renew the credentials; a change of the shared AWS files is read within a minute")
				if r.section != "" {
					rotate("")
					time.Sleep(time.Minute)
					require.ErrorContains(t, b.Delete(t.Context(), "k"), "ExpiredToken")
					require.Equal(t, "AKIAFIRST", used, "the last ones while there are none")
				}
				rotate("AKIASECOND")
				time.Sleep(time.Minute)
				require.NoError(t, b.Delete(t.Context(), "k"))
				require.Equal(t, "AKIASECOND", used)
			})
		})
	}
}

// The SDK finds a machine's role in place of a file that has no credentials while it is
// written. The role is not used for that moment.
func TestRoleWhileAFileIsWritten(t *testing.T) {
	noAWS(t)
	synctest.Test(t, func(t *testing.T) {
		next, used := aws.Credentials{AccessKeyID: "AKIAFIRST", SecretAccessKey: secretKey}, ""
		b := open(t, s3.Config{
			Bucket: "bucket", Endpoint: "http://store.invalid", MaxAttempts: 1,
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return next, nil }),
			WrapTransport: transport(func(_ http.RoundTripper, req *http.Request) (*http.Response, error) {
				_, used, _ = strings.Cut(req.Header.Get("Authorization"), "Credential=")
				used, _, _ = strings.Cut(used, "/")
				return &http.Response{StatusCode: http.StatusNoContent, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
			}).wrap,
		})
		role := aws.Credentials{AccessKeyID: "ASIAROLE", SecretAccessKey: secretKey, CanExpire: true, Expires: time.Now().Add(time.Hour)}
		second := aws.Credentials{AccessKeyID: "AKIASECOND", SecretAccessKey: secretKey}
		for _, step := range []struct {
			found aws.Credentials
			want  string
		}{{next, "AKIAFIRST"}, {role, "AKIAFIRST"}, {second, "AKIASECOND"}, {role, "AKIASECOND"}, {role, "ASIAROLE"}} {
			next = step.found
			time.Sleep(time.Minute)
			require.NoError(t, b.Delete(t.Context(), "k"))
			require.Equal(t, step.want, used)
		}
	})
}
