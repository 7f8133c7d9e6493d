package s3

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const (
	// probeKey is the key of the object that ProbeConditionalCreate leaves.
	probeKey = "probe/conditional-create"
	// raceKey begins the keys of the objects of its races, which it deletes.
	raceKey = "probe/race-"
	// In each of the races, so many requests create one object.
	races  = 3
	racers = 4
)

// ProbeConditionalCreate implements [backends.ConditionalCreator]. It creates the object
// "probe/conditional-create" if it is missing, tries to create it again, whole and in
// parts, and then lets several requests create one object at the same time. These are 16
// requests to create an object or a part of one, and one more if the object is missing.
// Objects of the races remain if they cannot be deleted.
//
// In a store that ignores conditions only when a multipart upload completes, a Put in
// parts checks whether the key exists before it completes the upload.
func (b *Backend) ProbeConditionalCreate(ctx context.Context) (bool, error) {
	if err := b.begin(ctx, "put", probeKey); err != nil {
		return false, err
	}
	weakness, err := b.probe(ctx)
	if err != nil {
		return false, b.fail(ctx, "put", probeKey, err)
	}
	b.weakness.Store(weakness)
	return weakness == "", nil
}

// Weakness returns what the last ProbeConditionalCreate has found the store to lack, or "".
func (b *Backend) Weakness() string {
	weakness, _ := b.weakness.Load().(string)
	return weakness
}

func (b *Backend) probe(ctx context.Context) (weakness string, err error) {
	again, err := b.probeWhole(ctx)
	if err != nil {
		return "", err
	}
	b.unconditional.Store(again)
	if again {
		return "it replaces objects: it ignores or does not implement If-None-Match", nil
	}
	weakness, err = b.probeParts(ctx)
	if err != nil {
		return "", err
	}
	b.replacesInParts.Store(weakness != "")
	for range races {
		created, err := b.race(ctx, raceKey+rand.Text())
		if err != nil {
			return "", err
		}
		if created > 1 {
			race := fmt.Sprintf("of %d simultaneous creations of one object %d succeeded", racers, created)
			return strings.TrimPrefix(weakness+"; "+race, "; "), nil
		}
	}
	return weakness, nil
}

// probeWhole creates the object of the probe twice, and reports whether the store creates
// it again.
func (b *Backend) probeWhole(ctx context.Context) (again bool, err error) {
	for range 2 {
		created, err := b.create(ctx, probeKey)
		if isNotImplemented(err) {
			return true, nil
		}
		if !created || err != nil {
			return false, err
		}
	}
	return true, nil
}

// probeParts creates the object of the probe, which exists, in parts. It returns what that
// shows the store to lack, or "".
func (b *Backend) probeParts(ctx context.Context) (weakness string, err error) {
	err = b.replaceInParts(ctx)
	switch status := statusOf(err); {
	case err == nil:
		return fmt.Sprintf("it replaces objects of more than %d bytes when a multipart upload completes", b.cfg.PartSize), nil
	case isTaken(err), isConflict(err):
		return "", nil
	case isNotImplemented(err), status == http.StatusBadRequest, status == http.StatusMethodNotAllowed:
		return fmt.Sprintf("it is not known whether it replaces objects of more than %d bytes: %v", b.cfg.PartSize, b.explain(ctx, err)), nil
	default:
		return "", err
	}
}

// replaceInParts creates the object of the probe in parts, and aborts the upload if that
// fails.
func (b *Backend) replaceInParts(ctx context.Context) error {
	in := b.putInput(probeKey, rand.Text())
	client := &partsClient{Client: b.client}
	if _, err := client.CreateMultipartUpload(ctx, uploadInput(in)); err != nil {
		return err
	}
	part, err := client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: in.Bucket, Key: in.Key, UploadId: client.uploadID, PartNumber: aws.Int32(1),
		ChecksumAlgorithm: in.ChecksumAlgorithm, Body: strings.NewReader(in.Metadata[putIDName]),
	})
	if err == nil {
		_, err = client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: in.Bucket, Key: in.Key, UploadId: client.uploadID, IfNoneMatch: aws.String("*"),
			ChecksumType: types.ChecksumTypeFullObject,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{
				{PartNumber: aws.Int32(1), ETag: part.ETag, ChecksumCRC32C: part.ChecksumCRC32C},
			}},
		})
	}
	if err != nil {
		_ = b.abort(ctx, *in.Key, *client.uploadID) // a later Sweep finds it
	}
	return err
}

// uploadInput returns the request that begins an upload in parts.
func uploadInput(in *s3.PutObjectInput) *s3.CreateMultipartUploadInput {
	return &s3.CreateMultipartUploadInput{
		Bucket: in.Bucket, Key: in.Key, Metadata: in.Metadata, ChecksumAlgorithm: in.ChecksumAlgorithm,
		ServerSideEncryption: in.ServerSideEncryption, SSEKMSKeyId: in.SSEKMSKeyId, StorageClass: in.StorageClass,
	}
}

// race returns how many of several simultaneous requests created an object.
func (b *Backend) race(ctx context.Context, key string) (created int, err error) {
	results, errs := make([]bool, racers), make([]error, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() { results[i], errs[i] = b.create(ctx, key) })
	}
	wg.Wait()
	for i, ok := range results {
		if err == nil {
			err = errs[i]
		}
		if ok {
			created++
		}
	}
	if created > 0 {
		_ = b.Delete(ctx, key) // without permission it remains
	}
	return created, err
}

// create reports whether a request created an object. A store that does not know
// conditions may return an error for which isNotImplemented is true.
func (b *Backend) create(ctx context.Context, key string) (bool, error) {
	in := b.putInput(key, rand.Text())
	in.IfNoneMatch = aws.String("*")
	err := b.putObject(ctx, in, []byte(in.Metadata[putIDName]))
	if isTaken(err) || isConflict(err) {
		return false, nil
	}
	return err == nil, err
}
