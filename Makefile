# Everything a newcomer needs, by one word each; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

target   := target/x86_64-unknown-linux-gnu
settings := variables/target.yml
# More for ansible-playbook, in each target that runs one: make up ARGS='-e understudy_app_port=8080'
ARGS     ?=
# This machine, also in a shell whose inventory is that of EC2 (scripts/envexports).
playbook := .venv/bin/ansible-playbook -i inventory/local.yml -e @$(settings)
# Passwords that are neither given (by ARGS) nor stored are made; nothing is asked for.
unattended := -e understudy_generate_passwords=true -e understudy_database_password= -e understudy_replication_password=
# The one that is there: cargo-nextest runs the same tests, each in a process of its own.
nextest  := $(shell command -v cargo-nextest)
run_tests = $(if $(nextest),cargo nextest run --locked $(1) $(2),cargo test --locked $(1) -- $(3))

##@ Run it
.PHONY: up
up: preflight setup build ## Set up everything this machine lacks, then run the pair, the app and failover-check
	$(playbook) playbooks/run_containers.yml $(unattended) $(ARGS)
	@scripts/say-what-next $(settings) $(ARGS)

.PHONY: status
status: setup ## Show who is primary, how the standby follows, and what failover-check thinks of it
	@$(playbook) playbooks/status.yml $(ARGS)

.PHONY: down
down: setup ## Take the containers and the schedule away; data, record and secrets stay for the next `make up`
	$(playbook) playbooks/remove_containers.yml $(ARGS)

##@ Rehearse it
# Another provider than a container: make rehearse VAGRANT_PROVIDER=virtualbox
VAGRANT_PROVIDER ?= docker
export VAGRANT_PROVIDER

.PHONY: rehearse
rehearse: setup build $(if $(filter docker,$(VAGRANT_PROVIDER)),rehearsal-image) ## A machine by Vagrant, the playbooks, a killed primary, the failover, a report
	@scripts/rehearse

.PHONY: rehearse-down
rehearse-down: ## Take the rehearsal's machine away, with its data; image and key stay
	@scripts/rehearse down

##@ Make it
.PHONY: preflight
preflight: # Whether `make up` can work at all, asked before anything changes
	@scripts/preflight $(settings) $(ARGS)

.PHONY: setup
setup: .venv/requirements ## Make the virtual environment with Ansible and the linters

.venv/requirements: ansible-requirements.txt
	@scripts/make-virtual-environment

.PHONY: engine
engine: setup # A Docker Engine where none runs; the tests look for what an interrupted run left before they lay anything down
	@$(playbook) playbooks/docker_engine.yml

.PHONY: build
build: ## Build the release programs, and put the two modules where Ansible looks for them
	cargo build --release --locked --bins
	install -m 0755 $(target)/release/postgres_promote $(target)/release/postgres_recovery_conf library/

##@ Check it
.PHONY: test
test: ## Every check but test-rehearsal, downloads-slow, scenarios-slow and soak (an hour on two cores)
	$(MAKE) lint check simulate servers seeing downloads
	# Side by side: they mostly wait, for packages, for reboots, for answers. The longest first; three at once are too much for two cores.
	$(MAKE) --jobs=2 test-host playbooks ec2
	# By themselves: they measure time.
	$(MAKE) scenarios

.PHONY: lint
lint: setup build ## Formatting, clippy, yamllint, ansible-lint and shell syntax
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	.venv/bin/yamllint --strict .
	PATH="$(CURDIR)/.venv/bin:$$PATH" ansible-lint --offline --profile production
	for script in scripts/* tests/playbooks/run tests/scenarios/run bench/prepare bench/look.sh roles/*/files/* .ci/run; do \
	  case $$(head -n 1 "$$script") in *bash) bash -n "$$script" ;; *sh) sh -n "$$script" ;; esac; done

.PHONY: check
check: ## The tests that need neither containers nor servers
	$(call run_tests,--lib --bins --test integration,,)
	# Of the simulation what is told on purpose; its seeds have a target of their own.
	$(call run_tests,--test simulation,stories::,stories::)

# More worlds, or others: make simulate SEEDS=1000000 FIRST=10001. One alone is told with everything that happened in it: make simulate SEEDS=1 FIRST=1234
SEEDS ?= 10000
FIRST ?= 1

.PHONY: simulate
simulate: ## The programs in SEEDS simulated worlds from FIRST on, under random faults; and each rule broken on purpose is caught
	SEEDS=$(SEEDS) FIRST=$(FIRST) cargo test --locked --test simulation -- --nocapture --test-threads=1 --skip stories:: $(if $(filter 1,$(SEEDS)),i1_to_i6)

.PHONY: servers
servers: setup build ## The Ansible modules against real PostgreSQL 10, 11, 15 and 17
	scripts/fetch-test-servers
	$(call run_tests,--test servers,,)

.PHONY: seeing
seeing: ## The app's page in headless Chromium (pictures in target/seeing), metrics, alerts and the dashboard by promtool
	scripts/fetch-test-tools
	$(call run_tests,--test seeing,,)

.PHONY: downloads
downloads: moto ## fetch against nginx, moto's S3 and a server that breaks off; killed twenty times
	scripts/fetch-test-nginx
	$(call run_tests,--test fetch,,)

.PHONY: downloads-slow
downloads-slow: export FETCH_KILLS = 100
downloads-slow: export FETCH_LARGE_MIB = 2048
downloads-slow: moto ## The same, with a hundred kills and a file of 2 GB
	scripts/fetch-test-nginx
	cargo test --locked --test fetch endurance -- --nocapture

.PHONY: moto
moto: setup # What answers like EC2's API, and like S3's, in the tests
	@scripts/make-test-environment moto

.PHONY: ec2
ec2: setup moto ## The EC2 playbooks against moto, which answers like EC2's API; no AWS, no account
	.venv/bin/python tests/playbooks/run ec2

.PHONY: playbooks
playbooks: setup engine build ## The playbooks on this machine, in an installation of their own
	@scripts/preflight tests/playbooks/installation.yml
	.venv/bin/python tests/playbooks/run local

.PHONY: scenarios
scenarios: setup engine build ## Kill, freeze, cut and remove things of a test installation beside a real one
	@scripts/preflight tests/scenarios/installation.yml
	tests/scenarios/run

.PHONY: scenarios-slow
scenarios-slow: setup engine build ## The scenarios that take their time; one of them restarts the Docker Engine, if nothing else runs on it
	@scripts/preflight tests/scenarios/installation.yml
	tests/scenarios/run slow

.PHONY: soak
soak: setup engine build ## COUNT failovers by chance in one go (200), chosen by SEED; half an hour
	@scripts/preflight tests/scenarios/installation.yml
	tests/scenarios/run soak

.PHONY: measure
measure: setup engine build ## From the kill of a primary to the first acknowledged write, with the time of each step
	@scripts/preflight tests/scenarios/installation.yml
	tests/scenarios/run measure

.PHONY: rehearsal-image
rehearsal-image: engine # The image of a host with systemd and sshd, for the rehearsal and for test-host
	@scripts/make-rehearsal-image

.PHONY: test-host
test-host: setup engine build rehearsal-image moto ## The whole road to a host over SSH: launched (moto), configured, laid down, broken
	@scripts/make-test-environment oldest-ansible
	.venv/bin/python tests/playbooks/run host

.PHONY: test-rehearsal
test-rehearsal: setup engine build rehearsal-image ## Vagrant with a container: up, provision, reload, halt, a failover, destroy
	.venv/bin/python tests/playbooks/run rehearsal

##@ Measure it
.PHONY: bench
bench: setup engine build bench-programs ## The write outage by fault, the app, the modules, a look: docs/benchmarks.md (a quarter of an hour)
	@scripts/preflight bench/installation.yml
	bench/run outage app modules look

.PHONY: bench-clients
bench-clients: setup engine build bench-programs ## What a client that lists both nodes loses beyond the failover, and what helps it
	@scripts/preflight bench/installation.yml
	bench/run clients

.PHONY: bench-peers
bench-peers: setup engine build bench-programs ## The same faults made to repmgr, pg_auto_failover and Patroni, ours beside them (over an hour)
	@scripts/preflight bench/installation.yml
	bench/prepare peers
	bench/run outage peers

.PHONY: bench-fetch
bench-fetch: build ## fetch beside curl, aria2c, wget2 and s5cmd: small, middling and large files, with and without latency
	bench/prepare fetch
	bench/run fetch

.PHONY: bench-programs
bench-programs: # The client that writes and the server that does the least. Apart from `build`: an example brings the tests' own features of its libraries with it
	cargo build --release --locked --examples

##@ Leave it
.PHONY: clean
clean: ## Remove what was built and fetched in this folder; installations stay as they are
	rm -rf target .venv .cache .ansible library/postgres_promote library/postgres_recovery_conf

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { print "\n" substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo; echo "  ARGS='...' passes more to ansible-playbook, for example ARGS='-e understudy_app_port=8080'"
