// Package fleet runs xDS clients in a process of its own, so that the processor time of
// the benchmark's process is that of the server alone.
//
// The process is the same program, started again: main and TestMain call [Main] first.
// The clients decode no resource: they find the type, the nonce and the resources of a
// response by their field numbers, acknowledge it, and report what they received. Every
// client has a connection and one stream of its own, as an Envoy has.
package fleet

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// processKey is set in the environment of the clients' process.
const processKey = "XDSWAL_BENCH_FLEET"

// timeout bounds the wait for the clients.
const timeout = 3 * time.Minute

// Request is the first request of a client for a type.
type Request struct {
	TypeURL string
	// Message is a marshaled DiscoveryRequest or DeltaDiscoveryRequest.
	Message []byte
	// Resources is the number of resources that Connect waits for.
	Resources int
}

// Plan describes a group of equal clients.
type Plan struct {
	// Address is the server's TCP address, and Method the gRPC method of the stream.
	Address, Method string
	Delta           bool
	Clients         int
	// Requests are sent in their order when the stream has been opened.
	Requests []Request
}

// Traffic is what the clients of a group have received.
type Traffic struct {
	Bytes, Responses int64
}

// Fleet is the process of the clients. Its methods are not safe for concurrent use.
type Fleet struct {
	cmd     *exec.Cmd
	in, out *os.File // the process's standard input and output
	enc     *gob.Encoder
	dec     *gob.Decoder
	log     bytes.Buffer // read after Wait
	groups  int
}

// Group are the connected clients of a plan.
type Group struct {
	fleet   *Fleet
	id      int
	pending int // expected resources whose delivery Wait has not returned
}

// command is what the parent sends, and reply the answer to each command, and to each
// expected resource.
type (
	command struct {
		Group   int
		Connect *Plan
		Expect  [][]byte
		Close   bool
	}
	reply struct {
		Traffic Traffic
		Err     string
	}
)

// Start starts the process. It runs until Stop, or until ctx is done.
func Start(ctx context.Context) (*Fleet, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start clients: %w", err)
	}
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start clients: %w", err)
	}
	defer childIn.Close()
	out, childOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start clients: %w", err), in.Close())
	}
	defer childOut.Close()
	f := &Fleet{cmd: exec.CommandContext(ctx, program), in: in, out: out, enc: gob.NewEncoder(in), dec: gob.NewDecoder(out)}
	f.cmd.Env = append(os.Environ(), processKey+"=1")
	f.cmd.Stdin, f.cmd.Stdout, f.cmd.Stderr = childIn, childOut, &f.log
	if err := f.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start clients: %w", err), in.Close(), out.Close())
	}
	return f, nil
}

// Stop ends the process and its clients.
func (f *Fleet) Stop() error {
	err := f.in.Close() // the process ends when it reads the end of its input
	kill := time.AfterFunc(10*time.Second, func() { _ = f.cmd.Process.Kill() })
	defer kill.Stop()
	if waitErr := f.cmd.Wait(); waitErr != nil {
		err = errors.Join(err, fmt.Errorf("stop clients: %w: %s", waitErr, &f.log))
	}
	return errors.Join(err, f.out.Close())
}

// Connect connects the clients of a plan. It returns when each has sent its requests and
// has received as many resources of each type as the requests say.
func (f *Fleet) Connect(plan Plan) (*Group, error) {
	f.groups++
	g := &Group{fleet: f, id: f.groups}
	if _, err := f.do(command{Group: g.id, Connect: &plan}); err != nil {
		return nil, fmt.Errorf("connect %d clients: %w", plan.Clients, err)
	}
	return g, nil
}

// Expect announces resources, as marshaled bodies, that each client will receive in this
// order. Each body must be sent only after Wait has returned for the one before.
func (g *Group) Expect(bodies [][]byte) error {
	if g.pending != 0 {
		return fmt.Errorf("expect resources: %d others are expected", g.pending)
	}
	if _, err := g.fleet.do(command{Group: g.id, Expect: bodies}); err != nil {
		return fmt.Errorf("expect resources: %w", err)
	}
	g.pending = len(bodies)
	return nil
}

// Wait returns when every client has received the next expected resource.
func (g *Group) Wait() error {
	if g.pending == 0 {
		return errors.New("wait for a resource: none is expected")
	}
	if _, err := g.fleet.read(); err != nil {
		return fmt.Errorf("wait for a resource: %w", err)
	}
	g.pending--
	return nil
}

// Close disconnects the clients and returns what they have received.
func (g *Group) Close() (Traffic, error) {
	t, err := g.fleet.do(command{Group: g.id, Close: true})
	if err != nil {
		return t, fmt.Errorf("disconnect clients: %w", err)
	}
	return t, nil
}

func (f *Fleet) do(c command) (Traffic, error) {
	if err := f.enc.Encode(c); err != nil {
		return Traffic{}, fmt.Errorf("write to the clients' process: %w", err)
	}
	return f.read()
}

func (f *Fleet) read() (Traffic, error) {
	if err := f.out.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return Traffic{}, err
	}
	var r reply
	if err := f.dec.Decode(&r); err != nil {
		return Traffic{}, fmt.Errorf("read from the clients' process: %w", err)
	}
	if r.Err != "" {
		return r.Traffic, errors.New(r.Err)
	}
	return r.Traffic, nil
}
