package gcs

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/api/googleapi"
	storage "google.golang.org/api/storage/v1"

	"github.com/xdswal/xdswal/backends/cloud/internal/bucket"
	"github.com/xdswal/xdswal/internal/retry"
)

const (
	// putIDName is the metadata of an object that identifies the Put that created it.
	putIDName = "xdswal-put"
	// partSize is the size of the requests that send a large object, and the memory of
	// a Create.
	partSize = 8 << 20
)

// store makes the requests of the driver.
type store struct {
	bucket      string
	objects     *storage.ObjectsService
	maxAttempts int
}

func (s *store) NewHash() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

// try calls fn until it succeeds or fails for good.
func (s *store) try(ctx context.Context, fn func() error) error {
	wait := retry.Backoff(bucket.MinBackoff, bucket.MaxBackoff)
	for attempt := 1; ; attempt++ {
		err := fn()
		if err == nil || attempt >= s.maxAttempts || !retryable(err) {
			return err
		}
		if !retry.Sleep(ctx, wait.NextBackOff()) {
			return ctx.Err()
		}
	}
}

// Create uploads an object of up to one part with one request, which the store takes
// whole or not at all, and a larger one with a resumable upload: it appears when its
// last part is complete.
func (s *store) Create(ctx context.Context, name string, u *bucket.Upload) error {
	object := &storage.Object{
		Name: name, Metadata: map[string]string{putIDName: u.ID}, Crc32c: base64.StdEncoding.EncodeToString(u.Sum),
	}
	return s.try(ctx, func() error {
		body, err := u.Body()
		if err != nil {
			return err
		}
		_, err = s.objects.Insert(s.bucket, object).IfGenerationMatch(0).Context(ctx).Fields("generation").
			Media(body, googleapi.ContentType("application/octet-stream"), googleapi.ChunkSize(int(min(u.Size+1, partSize)))).Do()
		return err
	})
}

func (s *store) Stat(ctx context.Context, name string) (info bucket.Info, err error) {
	err = s.try(ctx, func() error {
		object, err := s.objects.Get(s.bucket, name).Context(ctx).Fields("size", "metadata").Do()
		if err == nil {
			info = bucket.Info{Name: name, Size: int64(object.Size), ID: object.Metadata[putIDName]}
		}
		return err
	})
	return info, s.missing(ctx, err)
}

func (s *store) Delete(ctx context.Context, name string) error {
	err := s.try(ctx, func() error { return s.objects.Delete(s.bucket, name).Context(ctx).Do() })
	return s.missing(ctx, err)
}

func (s *store) List(ctx context.Context, prefix string, each func(bucket.Info)) error {
	for token := ""; ; {
		var page *storage.Objects
		err := s.try(ctx, func() (err error) {
			page, err = s.objects.List(s.bucket).Prefix(prefix).PageToken(token).Context(ctx).
				Fields("kind", "nextPageToken", "items(name,size,timeCreated)").Do()
			return err
		})
		switch {
		case err != nil:
			return err
		case page.Kind != "storage#objects":
			return errors.New("answer is not from Cloud Storage; check the endpoint and proxies")
		case page.NextPageToken != "" && page.NextPageToken == token:
			return errors.New("the store sent the same page of the list twice")
		}
		for _, object := range page.Items {
			created, err := time.Parse(time.RFC3339, object.TimeCreated)
			if err != nil {
				return fmt.Errorf("the store sent a malformed time of creation: %w", err)
			}
			each(bucket.Info{Name: object.Name, Size: int64(object.Size), ModTime: created})
		}
		if token = page.NextPageToken; token == "" {
			return nil
		}
	}
}

// missingError is the answer to a request for an object that is missing, in a bucket
// that exists.
type missingError struct{ error }

func (e *missingError) Unwrap() error { return e.error }

// missing returns err, as a *missingError if it is one. Only the text of an answer
// shows whether it is the object or the bucket that does not exist; if it has another
// than the known one, a list decides.
func (s *store) missing(ctx context.Context, err error) error {
	var answer *googleapi.Error
	if !errors.As(err, &answer) || answer.Code != http.StatusNotFound {
		return err
	}
	if message, _ := details(answer); !strings.HasPrefix(message, "No such object") {
		err := s.try(ctx, func() error {
			_, err := s.objects.List(s.bucket).MaxResults(1).Context(ctx).Fields("kind").Do()
			return err
		})
		if err != nil {
			return err
		}
	}
	return &missingError{err}
}

func (s *store) Open(ctx context.Context, name string, offset, length int64) (*bucket.Object, error) {
	last := ""
	if length > 0 {
		last = strconv.FormatInt(offset+length-1, 10)
	}
	r := &body{ctx: ctx, s: s, name: name, offset: offset, last: last}
	res, err := r.request()
	if err != nil {
		return nil, s.missing(ctx, err)
	}
	r.body, r.generation = res.Body, res.Header.Get("X-Goog-Generation")
	object := &bucket.Object{Body: r, Size: res.ContentLength, Sum: sumOf(res.Header)}
	if res.StatusCode == http.StatusPartialContent {
		_, err = fmt.Sscanf(res.Header.Get("Content-Range"), "bytes %d-%d/%d", &object.Offset, new(int64), &object.Size)
	}
	if err != nil || object.Size < 0 {
		_ = res.Body.Close()
		return nil, errors.New("the store sent no length of the object")
	}
	r.end = object.Offset + res.ContentLength
	return object, nil
}

// sumOf returns the CRC32C of the object, or nil.
func sumOf(header http.Header) []byte {
	for _, value := range header.Values("X-Goog-Hash") {
		for hash := range strings.SplitSeq(value, ",") {
			if encoded, ok := strings.CutPrefix(strings.TrimSpace(hash), "crc32c="); ok {
				if sum, err := base64.StdEncoding.DecodeString(encoded); err == nil && len(sum) == crc32.Size {
					return sum
				}
			}
		}
	}
	return nil
}

// body reads a range of an object, and resumes after the connection broke.
type body struct {
	ctx         context.Context
	s           *store
	name        string
	generation  string // after the first answer
	body        io.ReadCloser
	offset, end int64
	last        string // of the range that was requested, or empty
	failures    int    // broken connections since the last byte
}

func (r *body) request() (res *http.Response, err error) {
	err = r.s.try(r.ctx, func() error {
		call := r.s.objects.Get(r.s.bucket, r.name).Context(r.ctx)
		if r.offset > 0 || r.last != "" {
			call.Header().Set("Range", fmt.Sprintf("bytes=%d-%s", r.offset, r.last))
		}
		var options []googleapi.CallOption
		if r.generation != "" {
			options = append(options, googleapi.QueryParameter("generation", r.generation))
		}
		res, err = call.Download(options...) //nolint:bodyclose // The caller closes it.
		return err
	})
	return res, err
}

func (r *body) Read(p []byte) (int, error) {
	for {
		n, err := r.body.Read(p)
		r.offset += int64(n)
		switch {
		case n > 0:
			r.failures = 0
			return n, nil // The next Read returns an error that came with bytes.
		case err == nil, r.offset >= r.end, r.ctx.Err() != nil:
			return 0, err
		}
		if r.failures++; r.failures >= r.s.maxAttempts || r.generation == "" {
			return 0, err
		}
		_ = r.body.Close()
		next, err := r.request() //nolint:bodyclose // Close closes it.
		if err != nil {
			return 0, err
		}
		r.body = next.Body
		if next.StatusCode != http.StatusPartialContent && r.offset > 0 {
			return 0, errors.New("the store sent the whole object instead of its rest")
		}
	}
}

func (r *body) Close() error { return r.body.Close() }
