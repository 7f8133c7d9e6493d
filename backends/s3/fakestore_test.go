package s3_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xdswal/xdswal/backends/s3"
)

// fakeStore is a store with answers that versitygw does not give. It ignores conditions.
type fakeStore struct {
	// answer may answer a request instead of the store.
	answer func(w http.ResponseWriter, req *http.Request) bool
	// conditions lets PutObject heed If-None-Match, and partConditions the completion of
	// a multipart upload. window is the time between looking for an object and creating it.
	conditions, partConditions bool
	window                     time.Duration
	// uploads lists the uploads in progress for a prefix, as the store does.
	uploads func(all []fakeUpload, prefix string) []fakeUpload

	mu      sync.Mutex
	objects map[string]fakeObject
	parts   []fakeUpload
}

// fakeUpload is a multipart upload.
type fakeUpload struct {
	key, id, initiated string
	parts              map[string][]byte
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
	content, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	key := strings.TrimPrefix(req.URL.Path, "/bucket/")
	query := req.URL.Query()
	f.mu.Lock()
	defer f.mu.Unlock()
	object, ok := f.objects[key]
	conditional := req.Header.Get("If-None-Match") != ""
	switch {
	case query.Has("uploads"), query.Has("uploadId"):
		f.serveUpload(w, req, key, content, ok && conditional && f.partConditions)
	case req.Method == http.MethodPut && ok && conditional && f.conditions:
		refuse(w, http.StatusPreconditionFailed, "PreconditionFailed", "It exists")
	case req.Method == http.MethodPut:
		f.mu.Unlock()
		time.Sleep(f.window)
		f.mu.Lock()
		f.objects[key] = fakeObject{content, req.Header.Get(putIDHeader)}
		w.Header().Set("ETag", `"1"`)
	case req.Method == http.MethodDelete:
		delete(f.objects, key)
		w.WriteHeader(http.StatusNoContent)
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

// serveUpload serves the requests of multipart uploads.
func (f *fakeStore) serveUpload(w http.ResponseWriter, req *http.Request, key string, content []byte, taken bool) {
	query := req.URL.Query()
	at := slices.IndexFunc(f.parts, func(u fakeUpload) bool { return u.id == query.Get("uploadId") })
	switch {
	case req.Method == http.MethodGet:
		list := f.parts
		if f.uploads != nil {
			list = f.uploads(list, query.Get("prefix"))
		}
		_, _ = io.WriteString(w, "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>")
		for _, u := range list {
			fmt.Fprintf(w, "<Upload><Key>%s</Key><UploadId>%s</UploadId>%s</Upload>", u.key, u.id, u.initiated)
		}
		_, _ = io.WriteString(w, "</ListMultipartUploadsResult>")
	case query.Has("uploads"):
		u := fakeUpload{key: key, id: rand.Text(), parts: map[string][]byte{}, initiated: "<Initiated>" + time.Now().UTC().Format(time.RFC3339) + "</Initiated>"}
		f.parts = append(f.parts, u)
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", u.id)
	case at < 0:
		refuse(w, http.StatusNotFound, "NoSuchUpload", "No such upload")
	case req.Method == http.MethodPut:
		f.parts[at].parts[query.Get("partNumber")] = content
		w.Header().Set("ETag", `"1"`)
	case req.Method == http.MethodPost && taken:
		refuse(w, http.StatusPreconditionFailed, "PreconditionFailed", "It exists")
	default:
		if req.Method == http.MethodPost {
			var whole []byte
			for _, number := range slices.Sorted(maps.Keys(f.parts[at].parts)) { // up to 9
				whole = append(whole, f.parts[at].parts[number]...)
			}
			f.objects[key] = fakeObject{content: whole}
			_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>`)
		} else {
			w.WriteHeader(http.StatusNoContent)
		}
		f.parts = slices.Delete(f.parts, at, at+1)
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
