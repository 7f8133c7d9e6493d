package azure

import (
	"context"
	"errors"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/cloud/internal/bucket"
)

const credentialsAdvice = "set AZURE_STORAGE_KEY, run az login, or give this machine an identity"

// Answer implements [bucket.Store]. The text of an answer is its code alone: the
// message may quote the signature of the request.
func (s *store) Answer(op string, err error) *bucket.Answer {
	var token *tokenError
	var refused *azidentity.AuthenticationFailedError
	var answer *azcore.ResponseError
	switch {
	case errors.As(err, &refused):
		a := &bucket.Answer{Text: "the credentials were refused", Advice: "renew them, and check the clock of this machine"}
		if refused.RawResponse != nil {
			a.Status = refused.RawResponse.StatusCode
		}
		return a
	case errors.As(err, &token):
		return &bucket.Answer{Text: "find credentials: " + token.Error(), Advice: credentialsAdvice}
	case errors.As(err, &answer):
		a := &bucket.Answer{Text: answer.ErrorCode, Status: answer.StatusCode}
		if a.Text == "" {
			a.Text = http.StatusText(answer.StatusCode)
		}
		if answer.RawResponse != nil {
			a.Request = answer.RawResponse.Header.Get("X-Ms-Request-Id")
		}
		a.Advice, a.Is = meaning(op, answer)
		return a
	}
	return nil
}

// meaning returns the advice and the error for an answer.
func meaning(op string, answer *azcore.ResponseError) (advice string, is error) {
	switch bloberror.Code(answer.ErrorCode) {
	case bloberror.BlobNotFound:
		return "", backends.ErrNotFound
	case bloberror.BlobAlreadyExists, bloberror.ConditionNotMet, bloberror.UnauthorizedBlobOverwrite:
		return "", bucket.ErrTaken
	case bloberror.InvalidBlockList:
		return "another writer of the same key discarded the blocks: try again", nil
	case bloberror.InvalidRange:
		return "", bucket.ErrRange
	case bloberror.ContainerNotFound, bloberror.ContainerBeingDeleted, bloberror.ContainerDisabled:
		return "create the container, or correct the URL", nil
	case bloberror.AuthenticationFailed, bloberror.InvalidAuthenticationInfo:
		return "check the account key, the account, and the clock of this machine", backends.ErrPermission
	case bloberror.AuthorizationSourceIPMismatch, bloberror.AuthorizationFailure:
		return "check the credentials, the role, and the firewall of the account, which must admit this machine", backends.ErrPermission
	case bloberror.BlobImmutableDueToPolicy:
		return "an immutability policy keeps the blob: use --no-prune, or change the policy", backends.ErrPermission
	case bloberror.BlobArchived, bloberror.BlobBeingRehydrated:
		return "the blob was moved to the archive: rehydrate it, and let no lifecycle rule archive this prefix", nil
	case bloberror.MD5Mismatch, bloberror.CRC64Mismatch:
		return "the bytes changed on the way to the store: try again, and look for a faulty proxy", nil
	}
	switch {
	case answer.StatusCode == http.StatusUnauthorized, answer.StatusCode == http.StatusForbidden:
		if op == "put" || op == "delete" {
			return "grant the role Storage Blob Data Contributor", backends.ErrPermission
		}
		return "grant the role Storage Blob Data Reader", backends.ErrPermission
	case answer.StatusCode == http.StatusNotFound:
		return "check that the endpoint is that of the account's blob service", nil
	case answer.StatusCode == http.StatusTooManyRequests, answer.StatusCode >= http.StatusInternalServerError:
		return "the store is overloaded or down: try later", nil
	}
	return "", nil
}

// tokenError is an error of finding credentials, as opposed to one of the store.
type tokenError struct{ error }

func (e *tokenError) Unwrap() error { return e.error }

// credential returns its errors as *tokenError.
type credential struct{ azcore.TokenCredential }

func (c credential) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := c.TokenCredential.GetToken(ctx, options)
	if err != nil {
		return token, &tokenError{err}
	}
	return token, nil
}
