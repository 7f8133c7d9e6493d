// Package durable contains the file operations that survive a crash of the machine at
// any moment: writing a file, creating a directory, and locking.
//
// A function that changes a directory returns after the change is fsynced, unless its
// comment says otherwise. The comments list the system calls in order and the state
// that a crash between any two of them leaves. Files have mode 0600, directories 0700.
//
// The package relies on POSIX: rename and link are atomic, and fsync of a directory
// makes its entries durable. A name that begins with [TempPrefix] belongs to a write
// that is not published; readers skip such names, and [RemoveTemp] deletes those that a
// crash left.
package durable
