// Package hook calls and composes callbacks that may be nil. It is the one place
// where the packages of this module call a user's hooks.
package hook

import "reflect"

// Call calls fn with v, unless fn is nil.
func Call[T any](fn func(T), v T) {
	if fn != nil {
		fn(v)
	}
}

// Join returns hooks whose callbacks call those of all the given hooks, in their
// order. H is a struct whose fields are functions without results, or structs of
// such fields. A callback that is nil in all of them is nil in the result, so that
// it costs nothing.
func Join[H any](hooks ...H) H {
	var out H
	for i := range hooks {
		join(reflect.ValueOf(&out).Elem(), reflect.ValueOf(&hooks[i]).Elem())
	}
	return out
}

func join(out, next reflect.Value) {
	if out.Kind() == reflect.Struct {
		for i := range out.NumField() {
			join(out.Field(i), next.Field(i))
		}
		return
	}
	switch {
	case next.IsNil():
	case out.IsNil():
		out.Set(next)
	default:
		first, second := reflect.ValueOf(out.Interface()), reflect.ValueOf(next.Interface())
		out.Set(reflect.MakeFunc(out.Type(), func(args []reflect.Value) []reflect.Value {
			first.Call(args)
			return second.Call(args)
		}))
	}
}
