# What is done often. `make test` needs Go, Java and Maven; what else it needs it gets itself, into ./.cache.

# Packages whose tests need one process each run with the race detector, where there is a C compiler for it. SQLite itself runs without it,
# which makes it several times faster: it is C, translated, and is not ours to check. Only its lib, which has no generic code: the linker
# keeps one copy of an instance of generic code, and one without the detector would hide from it what sync orders.
RACE := $(shell command -v gcc >/dev/null 2>&1 && [ "$$(go env CGO_ENABLED)" = 1 ] && echo -race -gcflags=modernc.org/sqlite/lib=-race=false)
# Packages in which nothing runs at the same time, nor in what they import of ours, so that there is nothing to find; test/house checks it.
SEQUENTIAL = common/id common/pdu roomserver/auth roomserver/stateres
ALL   = $(shell go list ./...)
ALONE = $(SEQUENTIAL:%=github.com/matrix-org/dendrite/%)
UNIT  = $(filter-out $(ALONE) github.com/matrix-org/dendrite/test/%,$(ALL))
# How many of the tests that mostly wait, as for the start of a process that was killed, run at the same time.
WAITING = 4
FLAGS ?=

.PHONY: build test soak bench polylith check

build:
	CGO_ENABLED=0 go build -trimpath -o dendrite ./cmd/dendrite

# Every test, against a real Postgres and a real Kafka: by the unit, and the whole server three ways.
test:
	go run ./scripts/testparts sh -c 'status=0; go test $(RACE) -parallel $(WAITING) $(FLAGS) $(UNIT) || status=1; go test -timeout 40m -parallel $(WAITING) $(FLAGS) $(ALONE) ./test/... || status=1; exit $$status'

# The long versions of what `make test` does a slice of: kills, models, replicas, comparisons, and fuzzing. It takes some hours.
# DENDRITE_TEST_SEED repeats what a run printed.
soak:
	DENDRITE_TEST_SOAK=1 go run ./scripts/testparts go test -count 1 -timeout 24h $(FLAGS) ./...
	sh .ci/fuzz 10m

# All components as processes, with Postgres and Kafka, at http://127.0.0.1:8008. Ctrl-C stops all of it.
polylith:
	@mkdir -p polylith-data
	@go build -o polylith-data/polylith ./scripts/polylith
	@exec ./polylith-data/polylith

# How fast it is: the parts by Go's benchmarks, and the monolith beside Synapse by matrixbench (docs/benchmarks.md). BENCH has arguments
# for matrixbench, such as -quick.
bench:
	go run ./scripts/testparts go test -run '^$$' -bench . $(FLAGS) ./...
	sh scripts/bench-synapse.sh $(BENCH)

check:
	sh .ci/check
