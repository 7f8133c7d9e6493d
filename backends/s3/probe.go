package s3

import (
	"bytes"
	"context"
	"crypto/rand"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// probeKey is the key of the object that ProbeConditionalCreate leaves.
const probeKey = "probe/conditional-create"

// ProbeConditionalCreate asks the store whether it honours conditions; see
// [backends.ConditionalCreator]. It creates the object "probe/conditional-create"
// if it is not there, and tries to create it again. Where the object exists, it
// makes one request.
func (b *Backend) ProbeConditionalCreate(ctx context.Context) (bool, error) {
	if err := b.begin(ctx, "put", probeKey); err != nil {
		return false, err
	}
	for range 2 {
		in := b.putInput(probeKey, rand.Text())
		in.IfNoneMatch = aws.String("*")
		in.Body = bytes.NewReader(nil)
		switch err := b.putObject(ctx, in); {
		case err == nil:
			continue // Created, or overwritten.
		case isTaken(err), isConflict(err):
			b.unconditional.Store(false)
			return true, nil
		case isNotImplemented(err):
			b.unconditional.Store(true)
			return false, nil
		default:
			return false, b.fail(ctx, "put", probeKey, err)
		}
	}
	b.unconditional.Store(true)
	return false, nil
}
