# xdswal. `make help` lists the targets.

GO           ?= go
TOOLS        := $(CURDIR)/.tools/bin
GOLANGCI     := $(TOOLS)/golangci-lint
GOLANGCI_VER := v2.5.0
GOTESTSUM    := $(TOOLS)/gotestsum
GOTESTSUM_VER := v1.13.0
PROTOC_GEN_GO_VER := v1.36.11
VERSION      := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS      := -s -w -X main.version=$(VERSION)
PLATFORMS    := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: ## Serve the quickstart's resources: xDS on :18000, admin on :19000, data in .xdswal
	$(GO) run ./cmd/xdswal serve --dir .xdswal/data --backend file://$(CURDIR)/.xdswal/backend --resources examples/quickstart/resources

.PHONY: envoy
envoy: ## Run an Envoy on the resources that "make run" serves: HTTP on :8080, HTTPS on :8443
	@scripts/deps envoy
	.tools/bin/envoy --config-path examples/quickstart/envoy.yaml --disable-hot-restart --log-level warning

.PHONY: demo
demo: build ## Kill the daemon under an Envoy with updates and traffic, and count failed requests (20 seconds)
	@scripts/deps envoy
	@$(GO) run ./internal/demo

.PHONY: run-s3
run-s3: build ## The same with a local S3 server, which restores .xdswal/data after it was deleted
	scripts/run-s3 bin/xdswal serve --dir .xdswal/data --backend S3_URL --resources examples/quickstart/resources

.PHONY: build
build: ## Build bin/xdswal
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/xdswal ./cmd/xdswal

.PHONY: build-cloud
build-cloud: ## Build bin/xdswal-cloud, which also ships to Google Cloud Storage and Azure
	cd backends/cloud && $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o ../../bin/xdswal-cloud ./cmd/xdswal

.PHONY: deps
deps: ## Install the tools of the tests, as root on Debian; without them, tests are skipped
	@scripts/deps

.PHONY: test
test: deps $(GOTESTSUM) ## Run all tests, including the crash loop of 50 kills, and list what was skipped
	$(GOTESTSUM) -- -timeout 30m ./...
	cd bench && $(GOTESTSUM) -- ./...
	cd backends/cloud && $(GOTESTSUM) -- -timeout 10m ./...

.PHONY: race
race: $(GOTESTSUM) ## Run all tests under the race detector, with a shorter crash loop
	$(GOTESTSUM) -- -race -short -timeout 40m ./...
	cd backends/cloud && $(GOTESTSUM) -- -race -timeout 15m ./...

.PHONY: fuzz
fuzz: ## Run each fuzz target for 20 seconds
	@scripts/fuzz 20s

.PHONY: lint
lint: $(GOLANGCI) ## Run the linters
	$(GOLANGCI) run ./...
	cd bench && $(GOLANGCI) run --config ../.golangci.yml ./...
	cd backends/cloud && $(GOLANGCI) run --config ../../.golangci.yml ./...
	$(GO) mod tidy -diff
	cd bench && $(GO) mod tidy -diff
	cd backends/cloud && $(GO) mod tidy -diff

$(GOTESTSUM):
	GOBIN=$(TOOLS) $(GO) install gotest.tools/gotestsum@$(GOTESTSUM_VER)

$(GOLANGCI):
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VER)

.PHONY: bench
bench: ## Run the benchmarks (about 20 minutes); BENCHFLAGS=-short for two minutes
	cd bench && $(GO) run . $(BENCHFLAGS)

.PHONY: stores
stores: ## Test with nine S3, GCS and Azure servers (about 10 minutes), and write the table in docs/s3.md
	@scripts/stores $(STORESFLAGS)

.PHONY: cross
cross: ## Build for linux and darwin on amd64 and arm64, into dist/
	@for p in $(PLATFORMS); do \
		echo "build $$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -trimpath -ldflags '$(LDFLAGS)' \
			-o dist/xdswal-$${p%/*}-$${p#*/} ./cmd/xdswal || exit 1; \
	done

.PHONY: proto
proto: ## Generate internal/event/eventpb from internal/event/xdswal.proto
	GOBIN=$(TOOLS) $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VER)
	PATH=$(TOOLS):$$PATH $(GO) generate ./internal/event/...

.PHONY: ci
ci: ## Run all checks of CI
	@.ci/run

.PHONY: clean
clean: ## Remove the binaries and the data of the quickstart
	rm -rf bin dist .xdswal
