package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	sdkretry "github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/objectstore"
)

// explain returns a failure with the meaning of err, an error of the SDK, and advice for
// the operator. It returns other errors unchanged, or the error of ctx if that is done and
// no answer of the store explains err.
func (b *Backend) explain(ctx context.Context, err error) error {
	if isA[*objectstore.Failure](err) {
		return err
	}
	operation, sdk := as[*smithy.OperationError](err)
	if answer, ok := as[smithy.APIError](err); ok && sdk {
		return explainAnswer(operation.OperationName, answer, err)
	}
	switch ctxErr := ctx.Err(); {
	case ctxErr != nil && (sdk || !errors.Is(err, ctxErr)):
		return ctxErr
	case !sdk:
		return err
	}
	if marked, ok := as[*credentialsError](err); ok {
		return newFailure(nil, marked.Error(),
			"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or give this machine a role", err)
	}
	what := clean(innermost(operation.Err).Error())
	if status := statusOf(err); status >= http.StatusMultipleChoices {
		advice, is := meaningOfStatus(operation.OperationName, status)
		return newFailure(is, what, advice, err)
	}
	return newFailure(nil, what, b.networkAdvice(err), err)
}

// explainAnswer returns the failure for an error that the store sent.
func explainAnswer(operation string, answer smithy.APIError, err error) error {
	what := clean(answer.ErrorCode())
	if message := clean(answer.ErrorMessage()); message != "" {
		what += ": " + message
	}
	advice, is := meaning(operation, answer.ErrorCode(), statusOf(err))
	if skew := skewOf(err); isCode(err, "RequestTimeTooSkewed") && skew != "" {
		advice += ", which is " + skew + " that of the store"
	}
	if p := kmsPermission.FindString(answer.ErrorMessage()); p != "" && errors.Is(is, backends.ErrPermission) {
		advice = "grant " + p + " on the key"
	}
	return newFailure(is, what, advice, err)
}

// skewOf returns how far the clock of this machine is ahead of or behind that of the store,
// by the time of its answer.
func skewOf(err error) string {
	answer, ok := as[*smithyhttp.ResponseError](err)
	if !ok || answer.Response == nil {
		return ""
	}
	theirs, parseErr := http.ParseTime(answer.Response.Header.Get("Date"))
	switch skew := time.Since(theirs).Round(time.Second); {
	case parseErr != nil:
		return ""
	case skew < 0:
		return (-skew).String() + " behind"
	default:
		return skew.String() + " ahead of"
	}
}

// kmsPermission matches a permission on a KMS key in the message of an answer.
var kmsPermission = regexp.MustCompile(`\bkms:[A-Za-z]+`)

// newFailure returns a failure with a text such as:
//
//	permission denied: AccessDenied: Access Denied (PutObject, HTTP 403, request 4442587FB7D0A2F9); grant s3:PutObject
func newFailure(is error, what, advice string, err error) error {
	return objectstore.NewFailure(is, what+requestOf(err), advice, err)
}

// permissions are the AWS permissions that the operations need.
var permissions = map[string]string{
	"PutObject": "s3:PutObject", "CreateMultipartUpload": "s3:PutObject",
	"UploadPart": "s3:PutObject", "CompleteMultipartUpload": "s3:PutObject",
	"AbortMultipartUpload": "s3:AbortMultipartUpload",
	"GetObject":            "s3:GetObject", "HeadObject": "s3:GetObject",
	"ListObjectsV2":        "s3:ListBucket",
	"DeleteObject":         "s3:DeleteObject",
	"ListMultipartUploads": "s3:ListBucketMultipartUploads",
}

// meaning returns the advice and the error of package backends for an answer.
func meaning(operation, code string, status int) (advice string, is error) {
	switch code {
	case "NoSuchBucket":
		return "create the bucket or correct the URL", nil
	case "NoSuchKey":
		return "", backends.ErrNotFound
	case "NotFound": // the code of an answer without a body
		if operation == "HeadObject" {
			return "", backends.ErrNotFound
		}
	case "NoSuchUpload":
		return "a Sweep or a lifecycle rule aborted the upload; try again", nil
	case "ObjectParentIsFile", "ExistingObjectIsDirectory", "XMinioParentIsObject", "XMinioObjectExistsAsDirectory":
		return "this store does not support a key below another key", backends.ErrKey
	case "SignatureDoesNotMatch":
		return "check the secret access key, and the clock of this machine", backends.ErrPermission
	case "InvalidAccessKeyId", "XAdminUserNotFound":
		return "the access key is unknown to this store: check the credentials and the endpoint", backends.ErrPermission
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return "renew the credentials; a change of the shared AWS files is read within a minute", backends.ErrPermission
	case "RequestTimeTooSkewed", "RequestExpired":
		return "the clocks of this machine and of the store differ: set the clock of this machine", nil
	case "PermanentRedirect", "TemporaryRedirect", "MovedPermanently", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
		return "the bucket is in another region: set region= in the URL, or correct the endpoint", nil
	case "BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch":
		return "the bytes changed on the way to the store: try again, and look for a faulty proxy", nil
	case "ConditionalRequestConflict", "OperationAborted":
		return "another writer is writing the same key: try again", nil
	case "InvalidObjectState":
		return "the object was moved to an archive: restore it, and let no lifecycle rule archive this prefix", nil
	case "InvalidStorageClass":
		return "correct storage_class= in the URL", nil
	case "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded":
		return "free space in the store", nil
	}
	return meaningOfStatus(operation, status)
}

// meaningOfStatus is meaning for an answer without a known code.
func meaningOfStatus(operation string, status int) (advice string, is error) {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		advice = "grant " + permissions[operation]
		if permissions[operation] == "s3:PutObject" {
			advice += "; with a key that may only read, only a follower and the inspecting commands work"
		}
		if operation == "GetObject" || operation == "HeadObject" {
			advice += ", and s3:ListBucket, without which a missing key looks like this too"
		}
		return advice, backends.ErrPermission
	case http.StatusRequestedRangeNotSatisfiable:
		return "", backends.ErrRange
	case http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return "the bucket is in another region: set region= in the URL, or correct the endpoint", nil
	case http.StatusNotFound:
		return "check that the endpoint is that of an S3 store", nil
	case http.StatusNotImplemented:
		return missingFeature(operation), nil
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return "the store is overloaded or down: try later", nil
	case http.StatusInsufficientStorage:
		return "free space in the store", nil
	}
	return "", nil
}

// missingFeature is the advice for an answer that an operation is not implemented.
func missingFeature(operation string) string {
	switch operation {
	case "ListMultipartUploads", "AbortMultipartUpload":
		return "this store cannot list or abort multipart uploads: let it expire incomplete ones itself"
	case "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload":
		return "this store does not support multipart uploads, or a header of them"
	case "PutObject":
		return "this store lacks a required feature, possibly conditional creation (If-None-Match)"
	}
	return "this store lacks a required feature"
}

// networkAdvice returns advice for the usual causes of a missing answer.
func (b *Backend) networkAdvice(err error) string {
	return objectstore.Network{
		CAFile: "AWS_CA_BUNDLE",
		Names:  "check the endpoint and the region; stores without a name for each bucket need path_style=true",
		Idle:   b.cfg.IdleTimeout,
		Broken: isBroken,
	}.Advice(err)
}

// requestOf describes the request that failed, so that the operator can find it in the
// logs of the store.
func requestOf(err error) string {
	var facts []string
	if operation, ok := as[*smithy.OperationError](err); ok {
		facts = append(facts, operation.OperationName)
	}
	if status := statusOf(err); status != 0 {
		facts = append(facts, fmt.Sprintf("HTTP %d", status))
	}
	if request, ok := as[interface{ ServiceRequestID() string }](err); ok && request.ServiceRequestID() != "" {
		facts = append(facts, "request "+clean(request.ServiceRequestID()))
	}
	if host, ok := as[interface{ ServiceHostID() string }](err); ok && host.ServiceHostID() != "" && len(host.ServiceHostID()) <= maxHostID {
		facts = append(facts, "host "+clean(host.ServiceHostID()))
	}
	if attempts, ok := as[*sdkretry.MaxAttemptsError](err); ok && attempts.Attempt > 1 {
		facts = append(facts, fmt.Sprintf("%d attempts", attempts.Attempt))
	}
	if len(facts) == 0 {
		return ""
	}
	return " (" + strings.Join(facts, ", ") + ")"
}

const (
	maxHostID  = 32  // AWS sends 76 opaque bytes
	maxMessage = 300 // bytes
)

// credentialText matches messages that may quote a signed request, or the output of a
// credential helper.
var credentialText = regexp.MustCompile(`(?i)(signature|credential|token|secret|password|authorization)[\w-]*["']?\s*[=:>]|AWS4-`)

// clean returns a text of the store as one line of limited length, and without
// credentials.
func clean(text string) string { return objectstore.Clean(text, credentialText, maxMessage) }

// innermost unwraps the errors of the SDK and net/http, whose texts add a URL and words
// that do not explain the cause.
func innermost(err error) error {
	for {
		if e, ok := as[*url.Error](err); ok {
			err = e.Err
		} else if e, ok := as[*smithyhttp.RequestSendError](err); ok {
			err = e.Err
		} else if e, ok := as[*smithyhttp.ResponseError](err); ok {
			err = e.Err
		} else if e, ok := as[*sdkretry.MaxAttemptsError](err); ok {
			err = e.Err
		} else {
			return err
		}
	}
}

// as is errors.As with a result.
func as[T any](err error) (target T, ok bool) {
	ok = errors.As(err, &target)
	return target, ok
}

func isA[T any](err error) bool {
	_, ok := as[T](err)
	return ok
}

func isTimeout(err error) bool {
	timeout, ok := as[net.Error](err)
	return ok && timeout.Timeout()
}

func statusOf(err error) int {
	if response, ok := as[interface{ HTTPStatusCode() int }](err); ok {
		return response.HTTPStatusCode()
	}
	return 0
}

// isCode reports whether the store sent one of codes.
func isCode(err error, codes ...string) bool {
	answer, ok := as[smithy.APIError](err)
	return ok && slices.Contains(codes, answer.ErrorCode())
}

// isMissing reports whether an object is missing.
func isMissing(err error) bool { return isCode(err, "NoSuchKey") }

// isHeadMissing reports whether HeadObject found no object. Its answer has no body, so a
// missing bucket, or a proxy without a store, looks the same.
func isHeadMissing(err error) bool { return isCode(err, "NoSuchKey", "NotFound") }

// isTaken reports whether a condition of the request was not met. S3Mock answers 304 to
// the completion of a multipart upload.
func isTaken(err error) bool {
	status := statusOf(err)
	return isCode(err, "PreconditionFailed") || status == http.StatusPreconditionFailed || status == http.StatusNotModified
}

func isConflict(err error) bool { return isCode(err, "ConditionalRequestConflict", "OperationAborted") }

func isUploadGone(err error) bool { return isCode(err, "NoSuchUpload") }

// errNotS3 means that an answer has a status of success without the content that S3
// sends: a proxy answered, or the answer is incomplete.
var errNotS3 = errors.New("answer is not from an S3 store; check the endpoint and proxies")

// isBroken reports whether the connection ended before the end of the answer.
func isBroken(err error) bool {
	if errors.Is(err, errNotS3) {
		return true
	}
	status := statusOf(err)
	switch {
	case isA[smithy.APIError](err):
		return false
	case status == http.StatusOK:
		return true
	case status != 0:
		return false
	}
	return slices.ContainsFunc([]error{syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF}, func(target error) bool {
		return errors.Is(err, target)
	})
}

func isUnsatisfiable(err error) bool {
	return statusOf(err) == http.StatusRequestedRangeNotSatisfiable
}

func isNotImplemented(err error) bool {
	return isCode(err, "NotImplemented") || statusOf(err) == http.StatusNotImplemented
}
