// Package durable holds the few file operations that survive a machine crash
// at any instant: whole-file writes, directory creation, and a process lock.
//
// Every function that changes a directory returns only after the change has
// been fsynced, and the comment above it gives the system calls in order and
// the state that a crash between any two of them leaves. Files are created
// with mode 0600 and directories with 0700.
//
// The package relies on POSIX: rename and link are atomic, and a directory
// can be opened and fsynced to make its entries durable. A name that begins
// with [TempPrefix] belongs to a write that has not been published; readers
// skip such names, and [RemoveTemp] deletes those that a crash left behind.
package durable
