// Package option checks the settings of a store: zero is the default, Off turns off
// what can be turned off, and anything else out of range is an error that names the
// field.
package option

import (
	"errors"
	"fmt"
)

// Off turns off what a setting controls.
const Off = -1

// Error is the error of one setting.
type Error struct {
	// Field is the name of the field in the options.
	Field string
	// Problem is what is wrong with it, and what to do: "is -1s: must be positive".
	Problem string
}

// Error returns the field and the problem.
func (e *Error) Error() string { return fmt.Sprintf("Options.%s %s", e.Field, e.Problem) }

// Number is one setting that is a number, a size or a duration.
type Number[T ~int | ~int64] struct {
	Field string
	// Value is set to Default if it is zero.
	Value   *T
	Default T
	// Least and Most bound the value; Most is 0 for no bound.
	Least, Most T
	// CanOff allows Off.
	CanOff bool
}

// Apply sets the default and returns an error for a value that is not allowed.
func (n Number[T]) Apply() error {
	switch v := *n.Value; {
	case v == 0:
		*n.Value = n.Default
		return nil
	case v == Off && n.CanOff, v >= n.Least && (n.Most == 0 || v <= n.Most):
		return nil
	}
	bounds := fmt.Sprintf("at least %v", n.Least)
	if n.Least <= 1 {
		bounds = "positive"
	}
	if n.Most != 0 {
		bounds += fmt.Sprintf(" and at most %v", n.Most)
	}
	if n.CanOff {
		bounds += ", or Off"
	}
	return &Error{Field: n.Field, Problem: fmt.Sprintf("is %v: must be %s; 0 is the default of %v", *n.Value, bounds, n.Default)}
}

// Errors returns the errors of settings in err, which errors.Join has joined.
func Errors(err error) []*Error {
	var one *Error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Error
		for _, err := range joined.Unwrap() {
			all = append(all, Errors(err)...)
		}
		return all
	}
	if errors.As(err, &one) {
		return []*Error{one}
	}
	return nil
}
