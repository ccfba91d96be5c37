# SSDS. `make demo` and `make test` need a Rust toolchain, Python 3 and network; everything else is installed or named by them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

ORT_VERSION  := 1.31.1
RUNTIME      := runtime
ORT_LIB      := $(RUNTIME)/libonnxruntime.so.$(ORT_VERSION)
CHECKER      := $(RUNTIME)/checker/python
DEMO_SECONDS ?= 0
DEMO_DIR     ?= demo-out
CARGO        ?= cargo
# Where scripts/cross.sh leaves the daemon.
AARCH64_PROGRAM := $(or $(CARGO_TARGET_DIR),target)/cross/aarch64-unknown-linux-gnu/release/ssds
# One feature set for building and testing, so that dependencies are compiled once.
TEST_FEATURES := embedded-broker,train,genicam

.PHONY: help
help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# -- set-up ---------------------------------------------------------------------------------------------------------------------
.PHONY: deps deps-test
deps: ## system packages for building (apt-get as root, else the list of what is missing)
	@scripts/install-packages.sh build
deps-test: ## the same for the tests
	@scripts/install-packages.sh build test

$(ORT_LIB): scripts/fetch-onnxruntime.sh
	@scripts/fetch-onnxruntime.sh $(RUNTIME)
.PHONY: runtime
runtime: $(ORT_LIB) ## ONNX Runtime's CPU library into runtime/ (from the PyPI wheel, by pinned checksum)

.PHONY: runtime-gpu
runtime-gpu: ## ONNX Runtime's GPU build with CUDA and cuDNN into runtime/gpu/, for a PC with an NVIDIA card (2 GB)
	@scripts/fetch-onnxruntime-gpu.sh $(RUNTIME)/gpu

$(CHECKER): scripts/fetch-checker.sh
	@scripts/fetch-checker.sh $(RUNTIME)/checker
.PHONY: checker
checker: $(CHECKER) ## a Python with onnx.checker and ONNX Runtime in runtime/checker/, for the tests of exported models

# -- build ----------------------------------------------------------------------------------------------------------------------
.PHONY: build train
build: deps ## the daemon, release
	$(CARGO) build --release --locked --bin ssds
train: ## the trainer, release
	$(CARGO) build --release --locked --no-default-features --features train --bin ssds-train

# -- demo -----------------------------------------------------------------------------------------------------------------------
.PHONY: demo
demo: deps runtime ## inspect recorded frames with an embedded broker, live results; DEMO_SECONDS=20 stops by itself
	$(CARGO) build --release --locked --features embedded-broker --bin ssds
	scripts/demo.sh $(abspath $(DEMO_DIR)) $(DEMO_SECONDS)

# -- benches --------------------------------------------------------------------------------------------------------------------
.PHONY: bench-infer
bench-infer: deps runtime ## our inference stage beside Python's onnxruntime, the line beside its slowest stage, an idle daemon, the network's arithmetic
	$(CARGO) build --release --locked --bin ssds
	scripts/bench-infer.sh $(ORT_LIB) $(ORT_VERSION)
# -- boards: docs/deploy.md ---------------------------------------------------------------------------------------------------------
HOST         ?=
DEPLOY_FLAGS ?=
.PHONY: cross cross-release pages deb deb-amd64 deb-arm64 deb-jetson rpm deploy test-board
cross: ## the daemon for aarch64, quick way (gcc); prints and checks the glibc it needs; CROSS_FEATURES=genicam for more
	@scripts/install-packages.sh build cross
	@scripts/cross.sh --arch aarch64 --way quick --features "$(CROSS_FEATURES)"
cross-release: ## the same for glibc 2.31 and newer (JetPack 5), by zig
	@scripts/install-packages.sh build
	@scripts/cross.sh --arch aarch64 --way release --features "$(CROSS_FEATURES)"
pages: ## manual pages and shell completions of packaging/, anew from the command line's own description (a test compares)
	$(CARGO) run --quiet --locked --example cli_pages -- packaging
deb: deb-amd64 deb-arm64 ## Debian packages for amd64 and arm64 into target/package, each with its bill of materials
deb-amd64 deb-arm64: deb-%:
	@scripts/install-packages.sh build package
	@scripts/package.sh deb $*
deb-jetson: ## ssds-jetson for arm64: without ONNX Runtime, with the GPU opened
	@scripts/install-packages.sh build package
	@scripts/package.sh deb arm64 ssds-jetson
rpm: ## RPM packages for x86-64 and aarch64 into target/package
	@scripts/install-packages.sh build package
	@scripts/package.sh rpm amd64
	@scripts/package.sh rpm arm64
deploy: ## this version to a board: make deploy HOST=user@board [DEPLOY_FLAGS="--dry-run --name ssds-jetson --timeout 300"]
	@scripts/deploy.sh $(DEPLOY_FLAGS) $(HOST)
test-board: ## the whole of it on a virtual aarch64 board with a virtual camera (QEMU); skipped where that is missing
	@scripts/install-packages.sh build cross package board || echo "test-board: going on without them"
	@tests/board/test.sh

# -- checks ---------------------------------------------------------------------------------------------------------------------
.PHONY: test fmt clippy deny docs check
test: deps-test runtime checker ## every test: unit, integration with a real mosquitto, trainer smoke run
	ORT_DYLIB_PATH=$(abspath $(ORT_LIB)) SSDS_PYTHON=$(abspath $(CHECKER)) $(CARGO) test --locked --features $(TEST_FEATURES) --lib --bins --test it
.PHONY: fault-test
fault-test: deps-test runtime ## the fault harness in its long form (FAULTS=300): broker and daemon killed at random moments, counts and the 95 % bound
	$(CARGO) test --locked --features $(TEST_FEATURES) --test it --no-run
	$(CARGO) test --locked --features $(TEST_FEATURES) --test it faults:: -- --list 2>/dev/null | sed -n 's/: test$$//p' | \
	    FAULTS=$(or $(FAULTS),300) xargs -P 12 -I{} $(CARGO) test --locked --features $(TEST_FEATURES) --test it -- --exact {} --nocapture
.PHONY: test-v4l2 test-v4l2-aarch64 camera-cycles
test-v4l2: deps-test runtime ## the program on the kernel's virtual camera in a QEMU guest; says so where it has to be skipped
	@scripts/install-packages.sh guest || echo "test-v4l2: going on without them"
	V4L2_GUEST=1 ORT_DYLIB_PATH=$(abspath $(ORT_LIB)) $(CARGO) test --locked --features $(TEST_FEATURES) --test it v4l2:: -- --nocapture
test-v4l2-aarch64: deps-test runtime ## the same in an aarch64 guest, with the program cross-built
	@scripts/install-packages.sh guest board cross || echo "test-v4l2-aarch64: going on without them"
	@scripts/cross.sh --arch aarch64 --way quick --features embedded-broker
	@scripts/fetch-onnxruntime.sh --arch aarch64 $(RUNTIME)/aarch64
	V4L2_GUEST=1 GUEST_ARCH=aarch64 GUEST_SECONDS=1800 GUEST_PROGRAM=$(abspath $(AARCH64_PROGRAM)) GUEST_LIBRARY=$(abspath $(RUNTIME)/aarch64/libonnxruntime.so) \
	    ORT_DYLIB_PATH=$(abspath $(ORT_LIB)) $(CARGO) test --locked --features $(TEST_FEATURES) --test it v4l2:: -- --nocapture
camera-cycles: deps-test ## CAMERA_CYCLES (200) times a GigE camera is unplugged and plugged in again: leaks, times
	CAMERA_CYCLES=$(or $(CAMERA_CYCLES),200) $(CARGO) test --locked --features $(TEST_FEATURES) --lib gige:: -- --nocapture
.PHONY: test-vulkan
test-vulkan: deps ## training's step on a Vulkan device, beside the processor's: the GPU's, or Mesa's software device
	@scripts/install-packages.sh vulkan || echo "test-vulkan: going on without them"
	SSDS_VULKAN_REQUIRED=1 $(CARGO) test --locked --no-default-features --features train-vulkan --lib train::engine:: -- --nocapture
.PHONY: test-aarch64
test-aarch64: ## registration's tests as an aarch64 program under qemu-user (NEON and plain)
	@scripts/install-packages.sh build cross emulate
	@scripts/test-aarch64.sh
fmt: ## formatting
	$(CARGO) fmt --check
clippy: deps-test ## lints for everything that the tests build
	$(CARGO) clippy --locked --all-targets --features $(TEST_FEATURES) -- -D warnings
.PHONY: clippy-all
# DOCS_RS: burn's `cuda` would otherwise load an LLVM from GitHub to link with, of which lints need nothing.
clippy-all: clippy ## lints for the other feature sets too
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features --features train -- -D warnings
	DOCS_RS=1 $(CARGO) clippy --locked --all-targets --no-default-features --features train-vulkan,train-cuda -- -D warnings
deny: ## licences, bans, sources, and advisories when their database can be fetched; installs cargo-deny below target/ when missing
	@$(CARGO) deny --version >/dev/null 2>&1 || test -x target/tools/bin/cargo-deny || \
	    $(CARGO) install cargo-deny --debug --locked --version 0.20.2 --root target/tools
	@export PATH="$(CURDIR)/target/tools/bin:$$PATH"; set -e; \
	$(CARGO) deny check bans licenses sources; \
	if $(CARGO) deny fetch db 2>/dev/null; then $(CARGO) deny check advisories; \
	else echo "deny: advisories skipped, their database cannot be fetched from here"; fi
docs: deps-test ## API documentation without warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items --features $(TEST_FEATURES)
check: fmt clippy-all test docs deny ## everything above

# -- benches --------------------------------------------------------------------------------------------------------------------
.PHONY: bench bench-align
bench: ## criterion: registration's parts and the whole of it
	$(CARGO) bench --locked --bench align
bench-align: ## registration beside OpenCV on pairs with truth, into docs/bench/align.md; needs ../shared, about 20 min (QUICK=1: a fifth)
	@scripts/bench-align.sh

.PHONY: clean
clean: ## build output, runtime library, demo output
	$(CARGO) clean
	rm -rf $(RUNTIME) demo-out
