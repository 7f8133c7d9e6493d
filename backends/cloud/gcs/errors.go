package gcs

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/cloud/internal/bucket"
)

const credentialsAdvice = "set GOOGLE_APPLICATION_CREDENTIALS, run gcloud auth application-default login, or give this machine a service account"

// retryable reports whether another attempt may succeed after err.
func retryable(err error) bool {
	var answer *googleapi.Error
	if errors.As(err, &answer) {
		switch answer.Code {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusGone: // The last is that of an upload that must begin again.
			return true
		}
		return answer.Code >= http.StatusInternalServerError
	}
	var token *oauth2.RetrieveError
	return !errors.As(err, &token) && bucket.Retryable(err)
}

// permissions are those that the operations need.
var permissions = map[string]string{
	"put": "storage.objects.create", "get": "storage.objects.get", "list": "storage.objects.list", "delete": "storage.objects.delete",
}

// Answer implements [bucket.Store].
func (s *store) Answer(op string, err error) *bucket.Answer {
	var token *oauth2.RetrieveError
	if errors.As(err, &token) {
		a := &bucket.Answer{
			Text:   "the credentials were refused: " + token.ErrorCode + " " + token.ErrorDescription,
			Advice: "renew them, and check the clock of this machine",
		}
		if token.Response != nil {
			a.Status = token.Response.StatusCode
		}
		return a
	}
	var answer *googleapi.Error
	if !errors.As(err, &answer) {
		return nil
	}
	message, reason := details(answer)
	a := &bucket.Answer{Text: message, Status: answer.Code}
	if op != "put" { // There the id is that of an upload, which whoever has it can continue.
		a.Request = answer.Header.Get("X-Guploader-Uploadid")
	}
	var missing *missingError
	if errors.As(err, &missing) {
		a.Is = backends.ErrNotFound
		return a
	}
	a.Advice, a.Is = meaning(op, answer.Code, reason)
	return a
}

// details returns the message and the reason of an answer. The SDK does not parse those
// to requests for content, which are JSON or text.
func details(answer *googleapi.Error) (message, reason string) {
	if answer.Message == "" {
		var reply struct{ Error *googleapi.Error }
		if json.Unmarshal([]byte(answer.Body), &reply) == nil && reply.Error != nil {
			answer = &googleapi.Error{Code: answer.Code, Message: reply.Error.Message, Errors: reply.Error.Errors}
		} else if !strings.HasPrefix(answer.Body, "<") { // not the page of a proxy
			answer = &googleapi.Error{Code: answer.Code, Message: answer.Body}
		}
	}
	if len(answer.Errors) > 0 {
		reason = answer.Errors[0].Reason
	}
	return cmp.Or(answer.Message, http.StatusText(answer.Code)), reason
}

// meaning returns the advice and the error for an answer.
func meaning(op string, code int, reason string) (advice string, is error) {
	switch {
	case code == http.StatusUnauthorized:
		return "renew the credentials, and check the clock of this machine", backends.ErrPermission
	case code == http.StatusTooManyRequests, code >= http.StatusInternalServerError, strings.HasSuffix(reason, "ateLimitExceeded"):
		return "the store is overloaded or down: try later", nil
	case code == http.StatusForbidden:
		advice = "grant " + permissions[op]
		if op == "get" {
			advice += ", and storage.objects.list, without which a missing key looks like this too"
		}
		return advice, backends.ErrPermission
	case code == http.StatusNotFound:
		return "create the bucket, or correct the URL", nil
	case code == http.StatusPreconditionFailed:
		return "", bucket.ErrTaken
	case code == http.StatusRequestedRangeNotSatisfiable:
		return "", bucket.ErrRange
	case code == http.StatusBadRequest && op == "put":
		return "if this is about a checksum, the bytes changed on the way to the store: try again, and look for a faulty proxy", nil
	}
	return "", nil
}
