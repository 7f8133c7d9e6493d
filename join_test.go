package xdswal_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
)

// forCallbacks calls fn for every callback in a struct of hooks and in nested structs, so
// that the tests cover callbacks that are added later.
func forCallbacks(v reflect.Value, path string, fn func(path string, callback reflect.Value)) {
	for i := range v.NumField() {
		field, name := v.Field(i), path+"."+v.Type().Field(i).Name
		switch field.Kind() {
		case reflect.Func:
			fn(name, field)
		case reflect.Struct:
			forCallbacks(field, name, fn)
		default:
			panic(name + " is neither a callback nor a struct")
		}
	}
}

// hookCall is a call of a callback.
type hookCall struct {
	by   string // the hooks
	path string
	args []any
}

// recordingHooks returns hooks whose callbacks append to calls.
func recordingHooks(by string, calls *[]hookCall) xdswal.Hooks {
	var h xdswal.Hooks
	forCallbacks(reflect.ValueOf(&h).Elem(), "Hooks", func(path string, callback reflect.Value) {
		callback.Set(reflect.MakeFunc(callback.Type(), func(in []reflect.Value) []reflect.Value {
			c := hookCall{by: by, path: path}
			for _, arg := range in {
				c.args = append(c.args, arg.Interface())
			}
			*calls = append(*calls, c)
			return nil
		}))
	})
	return h
}

// hookArguments returns arguments for a callback that differ from each other.
func hookArguments(callback reflect.Type) []reflect.Value {
	var args []reflect.Value
	for i := range callback.NumIn() {
		arg, text := reflect.New(callback.In(i)).Elem(), fmt.Sprintf("argument %d", i)
		switch arg.Kind() {
		case reflect.Uint64:
			arg.SetUint(uint64(i) + 7)
		case reflect.String:
			arg.SetString(text)
		case reflect.Interface:
			arg.Set(reflect.ValueOf(errors.New(text)))
		case reflect.Struct:
			if err := arg.FieldByName("Err"); err.IsValid() {
				err.Set(reflect.ValueOf(errors.New(text)))
			}
		}
		args = append(args, arg)
	}
	return args
}

func anySlice(values []reflect.Value) []any {
	var out []any
	for _, v := range values {
		out = append(out, v.Interface())
	}
	return out
}

func TestJoinHooksCallsEachInOrder(t *testing.T) {
	var calls []hookCall
	joined := xdswal.JoinHooks(
		recordingHooks("first", &calls), xdswal.Hooks{}, recordingHooks("second", &calls), recordingHooks("third", &calls))
	tested := 0
	forCallbacks(reflect.ValueOf(joined), "Hooks", func(path string, callback reflect.Value) {
		tested++
		require.False(t, callback.IsNil(), "%s is not joined", path)
		calls = nil
		in := hookArguments(callback.Type())
		callback.Call(in)
		assert.Equal(t, []hookCall{
			{by: "first", path: path, args: anySlice(in)},
			{by: "second", path: path, args: anySlice(in)},
			{by: "third", path: path, args: anySlice(in)},
		}, calls)
	})
	assert.Positive(t, tested)
}

func TestJoinHooksKeepsNil(t *testing.T) {
	tests := []struct {
		name  string
		hooks []xdswal.Hooks
	}{
		{"no hooks", nil},
		{"empty hooks", []xdswal.Hooks{{}, {}, {}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			forCallbacks(reflect.ValueOf(xdswal.JoinHooks(tt.hooks...)), "Hooks", func(path string, callback reflect.Value) {
				assert.True(t, callback.IsNil(), "%s", path)
			})
		})
	}
}

// Hooks with one callback are joined to hooks with that callback only.
func TestJoinHooksOfOneCallback(t *testing.T) {
	forCallbacks(reflect.ValueOf(xdswal.Hooks{}), "Hooks", func(only string, _ reflect.Value) {
		var calls []hookCall
		h := recordingHooks("it", &calls)
		forCallbacks(reflect.ValueOf(&h).Elem(), "Hooks", func(path string, callback reflect.Value) {
			if path != only {
				callback.SetZero()
			}
		})
		for _, joined := range []xdswal.Hooks{
			xdswal.JoinHooks(h), xdswal.JoinHooks(h, xdswal.Hooks{}), xdswal.JoinHooks(xdswal.Hooks{}, h),
		} {
			calls = nil
			forCallbacks(reflect.ValueOf(joined), "Hooks", func(path string, callback reflect.Value) {
				assert.Equal(t, path != only, callback.IsNil(), "%s, but only %s is set", path, only)
				if !callback.IsNil() {
					callback.Call(hookArguments(callback.Type()))
				}
			})
			require.Len(t, calls, 1)
			assert.Equal(t, only, calls[0].path)
		}
	})
}

func ExampleJoinHooks() {
	metrics := xdswal.Hooks{Degraded: func(error) { fmt.Println("count it") }}
	alarm := xdswal.Hooks{Degraded: func(err error) { fmt.Println("alarm:", err) }}
	hooks := xdswal.JoinHooks(metrics, alarm)

	hooks.Degraded(xdswal.ErrJournalFull)
	fmt.Println(hooks.Recovered == nil)
	// Output:
	// count it
	// alarm: journal is full
	// true
}
