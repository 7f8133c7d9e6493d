package s3_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	"github.com/xdswal/xdswal/backends/s3"
)

// fakeStore is a store with answers that versitygw does not give. It stores whole
// objects and ignores conditions.
type fakeStore struct {
	// answer may answer a request instead of the store.
	answer func(w http.ResponseWriter, req *http.Request) bool

	mu      sync.Mutex
	objects map[string]fakeObject
}

type fakeObject struct {
	content []byte
	putID   string
}

const putIDHeader = "X-Amz-Meta-Xdswal-Put"

// start serves the store and returns the configuration for it.
func (f *fakeStore) start(t *testing.T) s3.Config {
	t.Helper()
	return f.serve(t, httptest.NewServer)
}

// startTLS is start over TLS.
func (f *fakeStore) startTLS(t *testing.T) s3.Config {
	t.Helper()
	return f.serve(t, httptest.NewTLSServer)
}

func (f *fakeStore) serve(t *testing.T, start func(http.Handler) *httptest.Server) s3.Config {
	t.Helper()
	noAWS(t)
	f.objects = map[string]fakeObject{}
	srv := start(f)
	t.Cleanup(srv.Close)
	return s3.Config{
		WrapTransport: func(http.RoundTripper) http.RoundTripper { return srv.Client().Transport },
		Bucket:        "bucket", Endpoint: srv.URL, PathStyle: true, MaxAttempts: 2, PartSize: partSize,
		Credentials: credentials(accessKey, secretKey),
	}
}

func (f *fakeStore) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if f.answer != nil && f.answer(w, req) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	object, ok := f.objects[req.URL.Path]
	switch {
	case req.Method == http.MethodPut:
		content, err := io.ReadAll(req.Body)
		if err == nil {
			f.objects[req.URL.Path] = fakeObject{content, req.Header.Get(putIDHeader)}
			w.Header().Set("ETag", `"1"`)
		}
	case !ok:
		refuse(w, http.StatusNotFound, "NoSuchKey", "No such key")
	default:
		w.Header().Set(putIDHeader, object.putID)
		w.Header().Set("Content-Length", strconv.Itoa(len(object.content)))
		if req.Method == http.MethodGet {
			_, _ = w.Write(object.content)
		}
	}
}

// refuse writes an error as S3 does.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("X-Amz-Request-Id", "REQUEST1")
	w.Header().Set("X-Amz-Id-2", "HOST1")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>%s</Message></Error>`, code, message)
}
