package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	keystorePassword = "password"
	keystoreAlias    = "xdswal"
)

// certificate is a self-signed certificate for 127.0.0.1, in files that are named as minio
// requires it.
type certificate struct {
	cert, key string // PEM
	keystore  string // PKCS12, for servers in Java
}

func newCertificate(ctx context.Context, dir string) (certificate, error) {
	dir = filepath.Join(dir, "certificate")
	c := certificate{cert: filepath.Join(dir, "public.crt"), key: filepath.Join(dir, "private.key"), keystore: filepath.Join(dir, "keystore.p12")}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return c, err
	}
	for _, args := range [][]string{
		{"req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", c.key, "-out", c.cert, "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"},
		{"pkcs12", "-export", "-in", c.cert, "-inkey", c.key, "-out", c.keystore, "-passout", "pass:" + keystorePassword, "-name", keystoreAlias},
	} {
		if out, err := exec.CommandContext(ctx, "openssl", args...).CombinedOutput(); err != nil {
			return c, fmt.Errorf("create a certificate: %w: %s", err, out)
		}
	}
	return c, nil
}

// setenv sets the environment of the AWS SDK in this process and those that it starts.
func (c certificate) setenv() error {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": secretKey, "AWS_SESSION_TOKEN": "",
		"AWS_PROFILE": "", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CA_BUNDLE": c.cert,
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}

// isolated reports whether this process has a network of its own, with nothing but
// loopback.
func isolated() bool {
	interfaces, err := net.Interfaces()
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback == 0 {
			return false
		}
	}
	return err == nil
}
