package option_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/option"
)

func TestNumber(t *testing.T) {
	for _, row := range []struct {
		value, want int64
		off         bool
		problem     string
	}{
		{value: 0, want: 7},
		{value: 5, want: 5},
		{value: 9, want: 9},
		{value: -1, want: -1, off: true},
		{value: -1, problem: "is -1: must be at least 5 and at most 9; 0 is the default of 7"},
		{value: 4, problem: "is 4: must be at least 5 and at most 9; 0 is the default of 7"},
		{value: 10, off: true, problem: "is 10: must be at least 5 and at most 9, or Off; 0 is the default of 7"},
		{value: -2, off: true, problem: "is -2: must be at least 5 and at most 9, or Off; 0 is the default of 7"},
	} {
		v := row.value
		err := option.Number[int64]{Field: "F", Value: &v, Default: 7, Least: 5, Most: 9, CanOff: row.off}.Apply()
		if row.problem == "" {
			require.NoError(t, err)
			require.Equal(t, row.want, v)
			continue
		}
		require.EqualError(t, err, "Options.F "+row.problem)
		require.Equal(t, row.value, v)
	}
}

func TestErrors(t *testing.T) {
	zero := -time.Second
	a := option.Number[time.Duration]{Field: "A", Value: &zero, Default: time.Minute, Least: 1}.Apply()
	require.EqualError(t, a, "Options.A is -1s: must be positive; 0 is the default of 1m0s")
	b := &option.Error{Field: "B", Problem: "is bad"}
	require.Empty(t, option.Errors(nil))
	require.Empty(t, option.Errors(errors.New("other")))
	all := option.Errors(errors.Join(fmt.Errorf("open: %w", a), nil, errors.Join(b, errors.New("other"))))
	require.Len(t, all, 2)
	require.Equal(t, "A", all[0].Field)
	require.Equal(t, "B", all[1].Field)
}
