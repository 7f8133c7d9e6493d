package s3

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/xdswal/xdswal/backends"
)

// failure is an error of the SDK in our words. The SDK's error stays visible to
// errors.Is and errors.As.
type failure struct {
	text string
	is   error // a sentinel of package backends, or nil
	err  error
}

func (f *failure) Error() string { return f.text }

func (f *failure) Unwrap() []error {
	if f.is == nil {
		return []error{f.err}
	}
	return []error{f.is, f.err}
}

// explain says what err, an error of the SDK, means and what to do about it.
// Other errors it returns as they are, unless ctx is done: that is why, then.
func (b *Backend) explain(ctx context.Context, err error) error {
	var known *failure
	if errors.As(err, &known) {
		return err
	}
	var operation *smithy.OperationError
	sdk := errors.As(err, &operation)
	var answer smithy.APIError
	if sdk && errors.As(err, &answer) {
		return explainAnswer(operation.OperationName, answer, err)
	}
	switch ctxErr := ctx.Err(); {
	case ctxErr != nil && (sdk || !errors.Is(err, ctxErr)):
		return ctxErr
	case !sdk:
		return err
	}
	var marked *credentialsError
	if errors.As(err, &marked) {
		return newFailure(nil, marked.Error(),
			"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or give this machine a role", err)
	}
	what := clean(innermost(operation.Err).Error())
	if status := statusOf(err); status >= http.StatusMultipleChoices {
		advice, sentinel := meaningOfStatus(operation.OperationName, status)
		return newFailure(sentinel, what, advice, err)
	}
	return newFailure(nil, what, b.networkAdvice(err), err)
}

// explainAnswer puts an answer of the store into words.
func explainAnswer(operation string, answer smithy.APIError, err error) error {
	what := clean(answer.ErrorCode())
	if message := clean(answer.ErrorMessage()); message != "" {
		what += ": " + message
	}
	advice, sentinel := meaning(operation, answer.ErrorCode(), statusOf(err))
	if right := keyRight.FindString(answer.ErrorMessage()); right != "" && errors.Is(sentinel, backends.ErrPermission) {
		advice = "grant " + right + " on the key"
	}
	return newFailure(sentinel, what, advice, err)
}

// keyRight matches the right to a key of KMS that an answer says is missing.
var keyRight = regexp.MustCompile(`\bkms:[A-Za-z]+`)

// newFailure returns an error that reads, for example:
//
//	permission denied by the store: AccessDenied: Access Denied (PutObject, HTTP 403, request 4442587FB7D0A2F9); grant s3:PutObject
func newFailure(sentinel error, what, advice string, err error) error {
	text := what + requestOf(err)
	if sentinel != nil {
		text = sentinel.Error() + ": " + text
	}
	if advice != "" {
		text += "; " + advice
	}
	return &failure{text: text, is: sentinel, err: err}
}

// permissions are what AWS calls the right to do an operation.
var permissions = map[string]string{
	"PutObject": "s3:PutObject", "CreateMultipartUpload": "s3:PutObject",
	"UploadPart": "s3:PutObject", "CompleteMultipartUpload": "s3:PutObject",
	"AbortMultipartUpload": "s3:AbortMultipartUpload",
	"GetObject":            "s3:GetObject", "HeadObject": "s3:GetObject",
	"ListObjectsV2":        "s3:ListBucket",
	"DeleteObject":         "s3:DeleteObject",
	"ListMultipartUploads": "s3:ListBucketMultipartUploads",
}

// meaning returns the advice and the sentinel for an answer.
func meaning(operation, code string, status int) (advice string, sentinel error) {
	switch code {
	case "NoSuchBucket":
		return "create the bucket or correct the URL", nil
	case "NoSuchKey":
		return "", backends.ErrNotFound
	case "NotFound": // where there is no body to say more
		if operation == "HeadObject" {
			return "", backends.ErrNotFound
		}
	case "NoSuchUpload":
		return "a Sweep or a rule of the bucket aborted the upload; try again", nil
	case "ObjectParentIsFile", "ExistingObjectIsDirectory", "XMinioParentIsObject", "XMinioObjectExistsAsDirectory":
		return "this store cannot keep a key below a key", backends.ErrKey
	case "SignatureDoesNotMatch":
		return "check the secret access key, and the clock of this machine", backends.ErrPermission
	case "InvalidAccessKeyId", "XAdminUserNotFound":
		return "this store does not know the access key: check the credentials and the endpoint", backends.ErrPermission
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return "renew the credentials", backends.ErrPermission
	case "RequestTimeTooSkewed", "RequestExpired":
		return "set the clock of this machine", nil
	case "PermanentRedirect", "TemporaryRedirect", "MovedPermanently", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
		return "the bucket is in another region: set region= in the URL, or correct the endpoint", nil
	case "BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch":
		return "the bytes changed on their way to the store: try again, and look for a faulty proxy", nil
	case "ConditionalRequestConflict", "OperationAborted":
		return "another writer is at the same key: try again", nil
	case "InvalidObjectState":
		return "the object was moved to an archive: bring it back, and have no lifecycle rule archive this prefix", nil
	case "InvalidStorageClass":
		return "correct storage_class= in the URL", nil
	case "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded":
		return "free space in the store", nil
	}
	return meaningOfStatus(operation, status)
}

func meaningOfStatus(operation string, status int) (advice string, sentinel error) {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		advice = "grant " + permissions[operation]
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
		return "this store lacks a feature that is needed, perhaps conditional creation (If-None-Match)", nil
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return "the store is overloaded or down: try later", nil
	case http.StatusInsufficientStorage:
		return "free space in the store", nil
	}
	return "", nil
}

// networkAdvice says what to do about the usual reasons for no answer.
func (b *Backend) networkAdvice(err error) string {
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &authority):
		return "set AWS_CA_BUNDLE to a file with the certificate of the store's authority"
	case errors.As(err, &hostname):
		return "write the endpoint with a name that is in the store's certificate"
	case errors.As(err, &dns):
		return "check the endpoint and the region; stores without a name for each bucket need path_style=true"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "start the store or correct the endpoint"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("the store was silent for %v: check it and the network", b.cfg.IdleTimeout)
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the store does not speak TLS: write http:// in the endpoint"
	case isCut(err):
		return "the connection was cut before the answer: check the store and the network"
	}
	return ""
}

// requestOf names the request that failed, for who looks for it in the logs of
// the store.
func requestOf(err error) string {
	var facts []string
	var operation *smithy.OperationError
	if errors.As(err, &operation) {
		facts = append(facts, operation.OperationName)
	}
	if status := statusOf(err); status != 0 {
		facts = append(facts, fmt.Sprintf("HTTP %d", status))
	}
	var request interface{ ServiceRequestID() string }
	if errors.As(err, &request) && request.ServiceRequestID() != "" {
		facts = append(facts, "request "+clean(request.ServiceRequestID()))
	}
	var host interface{ ServiceHostID() string }
	if errors.As(err, &host) && host.ServiceHostID() != "" && len(host.ServiceHostID()) <= maxHostID {
		facts = append(facts, "host "+clean(host.ServiceHostID()))
	}
	var attempts *retry.MaxAttemptsError
	if errors.As(err, &attempts) && attempts.Attempt > 1 {
		facts = append(facts, fmt.Sprintf("%d attempts", attempts.Attempt))
	}
	if len(facts) == 0 {
		return ""
	}
	return " (" + strings.Join(facts, ", ") + ")"
}

const (
	maxHostID  = 32  // AWS sends 76 bytes of noise
	maxMessage = 300 // bytes
)

// secretive matches messages that repeat a signed request, or what a helper
// printed that finds credentials.
var secretive = regexp.MustCompile(`(?i)(signature|credential|token|secret|password|authorization)[\w-]*["']?\s*[=:>]|AWS4-`)

// clean makes a text of the store fit for one line, and drops it if it repeats
// what must not be shown.
func clean(text string) string {
	if secretive.MatchString(text) {
		return "(a message that may hold credentials)"
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "..."
	}
	return text
}

// innermost takes off what the SDK and net/http wrap an error in, to the point
// where it says what happened: a URL and the SDK's own words do not.
func innermost(err error) error {
	for {
		var next error
		var sent *smithyhttp.RequestSendError
		var located *url.Error
		var answered *smithyhttp.ResponseError
		var attempts *retry.MaxAttemptsError
		switch {
		case errors.As(err, &located):
			next = located.Err
		case errors.As(err, &sent):
			next = sent.Err
		case errors.As(err, &answered):
			next = answered.Err
		case errors.As(err, &attempts):
			next = attempts.Err
		default:
			return err
		}
		err = next
	}
}

func statusOf(err error) int {
	var response interface{ HTTPStatusCode() int }
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

// isCode reports whether the store answered with one of codes.
func isCode(err error, codes ...string) bool {
	var answer smithy.APIError
	return errors.As(err, &answer) && slices.Contains(codes, answer.ErrorCode())
}

// isMissing is true for a missing object.
func isMissing(err error) bool { return isCode(err, "NoSuchKey") }

// isHeadMissing is true if HeadObject found nothing. An answer to that has no
// body: a missing bucket, or a proxy without a store, answers like this too.
func isHeadMissing(err error) bool { return isCode(err, "NoSuchKey", "NotFound") }

// isTaken is true if a condition was not met.
func isTaken(err error) bool {
	return isCode(err, "PreconditionFailed") || statusOf(err) == http.StatusPreconditionFailed
}

func isConflict(err error) bool { return isCode(err, "ConditionalRequestConflict", "OperationAborted") }

func isUploadGone(err error) bool { return isCode(err, "NoSuchUpload") }

// errNotS3 is an answer that says success and lacks what S3 puts into it: of a
// proxy that has none of the store's, or only the beginning of it.
var errNotS3 = errors.New("the answer is none of an S3 store; check the endpoint, and proxies before it")

// isCut is true if the connection ended before the whole answer was here.
func isCut(err error) bool {
	if errors.Is(err, errNotS3) {
		return true
	}
	var answer smithy.APIError
	status := statusOf(err)
	switch {
	case errors.As(err, &answer):
		return false
	case status == http.StatusOK:
		return true
	case status != 0:
		return false
	}
	return slices.ContainsFunc([]error{syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF}, func(cut error) bool {
		return errors.Is(err, cut)
	})
}

func isUnsatisfiable(err error) bool {
	return statusOf(err) == http.StatusRequestedRangeNotSatisfiable
}

func isNotImplemented(err error) bool {
	return isCode(err, "NotImplemented") || statusOf(err) == http.StatusNotImplemented
}
