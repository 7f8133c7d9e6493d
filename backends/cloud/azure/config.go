package azure

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/xdswal/xdswal/backends/cloud/internal/bucket"
)

// Config configures a backend. The zero value of a field selects its default. New
// returns an error for every other value that is out of range.
type Config struct {
	// Container is the name of an existing container. Required.
	Container string
	// Prefix is prepended to all keys with a slash: with the prefix "x/y" the
	// object "a" is the blob "x/y/a". It must be a valid key. Default: none, the
	// backend is the whole container.
	Prefix string
	// Account is the name of the storage account. Default: AZURE_STORAGE_ACCOUNT.
	Account string
	// Endpoint is the URL of the account's blob service, possibly with a path, as
	// that of an emulator: http://127.0.0.1:10000/devstoreaccount1. Default:
	// https://ACCOUNT.blob.core.windows.net.
	Endpoint string
	// AccountKey signs the requests, in base64. Default: AZURE_STORAGE_KEY.
	AccountKey string
	// Credential authorizes the requests if there is no account key. It needs an
	// https endpoint. Default: azidentity.NewDefaultAzureCredential, which looks
	// for a service principal in the environment, a workload identity, a managed
	// identity, and a login of the Azure CLI.
	Credential azcore.TokenCredential
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
	// ReadOnly makes Put and Delete return backends.ErrPermission.
	ReadOnly bool
}

var kind = &bucket.Kind{
	Scheme: "azblob",
	Noun:   "container",
	Names:  regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`),
	Form:   "3 to 63 bytes of a-z 0-9 -",
	Paths:  true,
	Usage:  "azblob://container/prefix?account=...&endpoint=https://host:port",
}

var accountName = regexp.MustCompile(`^[a-z0-9]{3,24}$`)

func (c Config) shared() bucket.Config {
	return bucket.Config{
		Name: c.Container, Prefix: c.Prefix, Endpoint: c.Endpoint, MaxAttempts: c.MaxAttempts,
		IdleTimeout: c.IdleTimeout, WrapTransport: c.WrapTransport, ReadOnly: c.ReadOnly,
	}
}

// withEnvironment returns c with the settings of the environment, or an error for an
// account that is not valid.
func (c Config) withEnvironment() (Config, error) {
	c.Account = cmp.Or(c.Account, os.Getenv("AZURE_STORAGE_ACCOUNT"))
	if c.Credential == nil {
		c.AccountKey = cmp.Or(c.AccountKey, os.Getenv("AZURE_STORAGE_KEY"))
	}
	switch {
	case c.Account == "":
		return c, errors.New("account is not known; set account= in the URL, or AZURE_STORAGE_ACCOUNT")
	case !accountName.MatchString(c.Account):
		return c, errors.New("account is not 3 to 24 bytes of a-z 0-9")
	}
	return c, nil
}

// ParseURL returns the Config for a URL of the form
//
//	azblob://container/prefix?account=name&endpoint=https://host:port
//
// The prefix and the parameters are optional. A URL must not contain credentials.
// Errors of ParseURL contain the path and no other part of the URL.
func ParseURL(u *url.URL) (Config, error) {
	var cfg Config
	var err error
	cfg.Container, cfg.Prefix, err = bucket.ParseURL(u, kind, map[string]*string{"account": &cfg.Account, "endpoint": &cfg.Endpoint})
	if err == nil {
		_, err = cfg.shared().Check(kind)
	}
	if err == nil && cfg.Account != "" {
		_, err = cfg.withEnvironment()
	}
	if err != nil {
		return Config{}, kind.URLError(u, err)
	}
	return cfg, nil
}
