package backendurl

import (
	"context"
	"errors"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
)

func TestRegister(t *testing.T) {
	fail := errors.New("no such bucket")
	Register("registered", func(_ context.Context, u *url.URL, readOnly bool) (backends.Backend, error) {
		require.Equal(t, "bucket", u.Host)
		require.True(t, readOnly)
		return nil, fail
	})
	t.Cleanup(func() { delete(drivers, "registered") })
	_, err := OpenReadOnly(t.Context(), "registered://bucket/prefix")
	require.ErrorIs(t, err, fail)
	require.PanicsWithValue(t, `backendurl: the scheme "s3" is registered twice`, func() { Register("s3", nil) })
}
