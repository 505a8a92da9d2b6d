/* faults.c - what happens when the machine fails: of every function that allocates, each allocation fails once, and of
 * every function that reads or writes files, each call of the system does. A failed allocation is told (TTMM_NO_ROOM
 * and a sentence). Whatever fails, all that was allocated until then is freed, all files are closed, no temporary file
 * stays, and what was in the folder before is there still, byte for byte. A disk that fills up: the same at every size
 * of file. test/exhausted.sh does this with the programs. */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NEVER = -1 };
static long memory_left = NEVER, files_left = NEVER; /* calls before the one that fails */
static long in_use, open_files;                      /* that are in use */

static int fails(long *left)
{
    if (*left == NEVER) return 0;
    if (*left > 0) return --*left, 0;
    *left = NEVER;
    errno = left == &files_left ? EIO : ENOMEM;
    return 1;
}

static void *counted(void *block)
{
    in_use += block != NULL;
    return block;
}

static void *fault_malloc(size_t n) { return fails(&memory_left) || n > PTRDIFF_MAX ? NULL : counted(malloc(n)); }
static void *fault_calloc(size_t n, size_t size) { return fails(&memory_left) ? NULL : counted(calloc(n, size)); }
static void *fault_realloc(void *old, size_t n)
{
    if (fails(&memory_left)) return NULL;
    return old ? realloc(old, n) : counted(malloc(n));
}
static void fault_free(void *block)
{
    in_use -= block != NULL;
    free(block);
}

static FILE *fault_fopen(const char *path, const char *mode)
{
    FILE *f = fails(&files_left) ? NULL : fopen(path, mode);
    open_files += f != NULL;
    return f;
}
static int fault_fclose(FILE *f)
{
    const int failed = fails(&files_left), code = fclose(f);
    open_files--;
    return failed ? EOF : code;
}
static size_t fault_fread(void *to, size_t size, size_t n, FILE *f)
{
    return fails(&files_left) ? 0 : fread(to, size, n, f);
}
static int fault_fseeko(FILE *f, off_t at, int whence) { return fails(&files_left) ? -1 : fseeko(f, at, whence); }
static off_t fault_ftello(FILE *f) { return fails(&files_left) ? -1 : ftello(f); }
static int fault_fsync(int file) /* without waiting for the disk */
{
    (void)file;
    return fails(&files_left) ? -1 : 0;
}
static int fault_rename(const char *from, const char *to) { return fails(&files_left) ? -1 : rename(from, to); }
static int fault_mkdir(const char *path, mode_t mode) { return fails(&files_left) ? -1 : mkdir(path, mode); }

#undef fseeko /* some libraries have macros of these names */
#undef ftello
#define malloc fault_malloc
#define calloc fault_calloc
#define realloc fault_realloc
#define free fault_free
#define fopen fault_fopen
#define fclose fault_fclose
#define fread fault_fread
#define fseeko fault_fseeko
#define ftello fault_ftello
#define fsync fault_fsync
#define rename fault_rename
#define mkdir fault_mkdir
#include "test.h"

#include "encoder.h"

#ifdef TTMM_DOUBLE
#define FOLDER "test/build/faults-f64.d"
#else
#define FOLDER "test/build/faults-f32.d"
#endif
static const ttmm_config config = {.dim = 8,
                                   .n_layers = 2,
                                   .n_heads = 2,
                                   .n_kv_heads = 1,
                                   .head_dim = 4,
                                   .intermediate = 12,
                                   .vocab = TTMM_BYTES,
                                   .context = 32,
                                   .tied = 1,
                                   .norm_eps = 1e-5,
                                   .rope_theta = 1e4,
                                   .n_ends = 1,
                                   .end = {TTMM_END}};
static ttmm_error err;

static const char *at(const char *name) /* a path in FOLDER; it stays valid for three calls */
{
    static char path[4][200];
    static int next;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[next], "%s/%s", FOLDER, name);
    return path[next];
}

/* Each of these does its work and undoes it, and returns what the call that failed returned. What could not be made or
 * read needs no freeing. */

static int make_model(void)
{
    ttmm_model m, copy = {0};
    int code = ttmm_model_new(&m, &config, &err);
    if (code == TTMM_OK) {
        ttmm_model_init(&m, 1);
        code = ttmm_model_copy(&copy, &m, &err);
    }
    if (code == TTMM_OK) code = ttmm_model_write(&copy, at("model"), TTMM_BF16, "note", &err);
    ttmm_model_free(&m);
    ttmm_model_free(&copy);
    return code;
}

static int read_models(void)
{
    static const char *const folder[] = {"test/interop/qwen2", "test/interop/shards"};
    int code = TTMM_OK;
    for (int i = 0; i < 2 && code == TTMM_OK; i++) {
        ttmm_model m;
        code = ttmm_model_read(&m, folder[i], &err);
        if (code == TTMM_OK) ttmm_model_free(&m);
    }
    return code;
}

static int adapters(void)
{
    ttmm_lora l;
    ttmm_config c;
    int code = ttmm_config_read(&c, "test/interop/qwen2", &err);
    if (code == TTMM_OK) code = ttmm_lora_read(&l, &c, "test/interop/qwen2/adapter", &err);
    if (code) return code;
    ttmm_lora_free(&l);
    if ((code = ttmm_lora_new(&l, &config, 2, 4, &err)) != TTMM_OK) return code;
    ttmm_lora_init(&l, 1, 0);
    code = ttmm_lora_write(&l, at("adapter"), "note", &err);
    ttmm_lora_free(&l);
    return code;
}

/* Text with everything a tokenizer does: added tokens, merges, words, marks to be composed. */
static int tokenizers(void)
{
    static const char *const folder[] = {"test/interop/bpe-gpt2", "test/interop/bpe-llama3", "test/interop/bpe-qwen2"};
    static const char text[] = "The caf\x65\xcc\x81 isn't 1234 open<|endoftext|>   \n\n it's";
    int code = TTMM_OK;
    for (int i = 0; i < 3 && code == TTMM_OK; i++) {
        ttmm_tokenizer *k;
        int *token = NULL;
        size_t n;
        if ((code = ttmm_tokenizer_read(&k, folder[i], &err)) != TTMM_OK) return code;
        code = ttmm_tokenize(&token, &n, k, text, sizeof text - 1, &err);
        free(token);
        ttmm_tokenizer_free(k);
    }
    return code;
}

static const char *const text_file[] = {FOLDER "/text"};

static int make_corpus(void)
{
    ttmm_tokenizer *k = NULL;
    ttmm_corpus c = {0};
    static real centroid[3 * TTMM_EMBED_DIM], rows[200];
    int code = ttmm_tokenizer_read(&k, "test/interop/bpe-qwen2", &err);
    if (code == TTMM_OK) code = ttmm_corpus_from_files(&c, k, text_file, 1, 32, &err);
    if (code == TTMM_OK) code = ttmm_corpus_embed(&c, k, &err);
    if (code == TTMM_OK) code = ttmm_cluster(c.cluster, centroid, c.embedding, c.n_sequences, c.dim, 3, 1, &err);
    c.clustered = 1;
    for (size_t i = 0; i < 200; i++) rows[i] = 1;
    if (code == TTMM_OK) code = ttmm_corpus_write(&c, at("model"), "note", &err);
    if (code == TTMM_OK) code = ttmm_corpus_set_embeddings(&c, rows, 2, &err);
    ttmm_corpus_free(&c);
    ttmm_tokenizer_free(k);
    return code;
}

static int read_corpus(void)
{
    ttmm_corpus c;
    real *idf = NULL;
    size_t rows, cols;
    char note[20];
    int code = ttmm_corpus_read(&c, at("old"), 1 << 20, &err);
    if (code) return code;
    code = ttmm_array_read(&idf, &rows, &cols, at("old/corpus.safetensors"), "idf", &err);
    if (code == TTMM_OK) code = ttmm_note(note, sizeof note, at("old/corpus.safetensors"), &err);
    if (code == TTMM_OK) code = ttmm_copy(at("model"), at("old"), "corpus.safetensors", &err);
    free(idf);
    ttmm_corpus_free(&c);
    return code;
}

static int train(void)
{
    const ttmm_recipe recipe = {.schedule = {.lr = 1e-3}, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .batch = 2};
    ttmm_model m = {0};
    ttmm_lora l = {0};
    ttmm_corpus c;
    ttmm_trainer *t = NULL;
    double loss;
    int code = ttmm_corpus_from_files(&c, NULL, text_file, 1, config.context, &err);
    if (code) return code;
    code = ttmm_model_new(&m, &config, &err);
    if (code == TTMM_OK) code = ttmm_lora_new(&l, &config, 2, 4, &err);
    if (code == TTMM_OK) code = ttmm_trainer_new(&t, &m, &l, &c, &recipe, &err);
    if (code == TTMM_OK) {
        ttmm_model_init(&m, 1), ttmm_lora_init(&l, 1, 0);
        ttmm_trainer_start(t, NULL, 0, 3, 0, 0);
        code = ttmm_trainer_load(t, at("old/checkpoint.safetensors"), "settings", &err);
        code = code > 0 ? TTMM_OK : code;
        ttmm_trainer_step(t, &loss);
    }
    if (code == TTMM_OK) code = ttmm_trainer_save(t, at("checkpoint.safetensors"), "settings", &err);
    ttmm_trainer_free(t);
    ttmm_lora_free(&l);
    ttmm_corpus_free(&c);
    ttmm_model_free(&m);
    return code;
}

static int encoders(void)
{
    static const char *const text[] = {"Melt the <mask> butter", "zz"};
    static real out[2 * ENC_D];
    ttmm_encoder *e;
    ttmm_corpus c = {0};
    ttmm_trace t = {0};
    int code = ttmm_encoder_read(&e, at("encoder"), &err);
    if (code == TTMM_OK) code = ttmm_encode(out, e, text, (const size_t[]){22, 2}, 2, &err);
    if (code == TTMM_OK) code = ttmm_corpus_from_files(&c, NULL, text_file, 1, 32, &err);
    if (code == TTMM_OK) code = ttmm_corpus_encode(&c, e, NULL, 0, c.n_sequences, &err);
    if (code == TTMM_OK) code = ttmm_encoder_trace(&t, e, text[0], 22, &err);
    ttmm_trace_free(&t);
    ttmm_corpus_free(&c);
    ttmm_encoder_free(e);
    return code;
}

static void no_report(void *context, const ttmm_difference *d) { (void)context, (void)d; }

static int trace_of(int cached, int gradients, int adapter)
{
    static const int token[] = {5, 6, 7, 8};
    const real one = 1;
    ttmm_model m;
    ttmm_lora l = {0};
    ttmm_trace t = {0};
    const ttmm_lora *only = &l;
    const ttmm_mix mix = {(size_t)adapter, &only, &one};
    size_t failures;
    int code = ttmm_model_new(&m, &config, &err);
    if (code == TTMM_OK) code = ttmm_lora_new(&l, &config, 2, 4, &err);
    if (code == TTMM_OK) code = ttmm_trace_new(&t, &m, &mix, NULL, token, 4, cached, gradients, &err);
    if (code == TTMM_OK) code = ttmm_arrays_write(t.array, t.n, at("trace"), "", &err);
    if (code == TTMM_OK)
        code = ttmm_compare(at("trace"), at("old/corpus.safetensors"), 0, 0, 0, no_report, NULL, &failures, &err);
    ttmm_trace_free(&t);
    ttmm_lora_free(&l);
    ttmm_model_free(&m);
    return code;
}

static int trace_cached(void) { return trace_of(1, 0, 0); }
static int trace_weights(void) { return trace_of(0, 1, 0); }
static int trace_adapter(void) { return trace_of(0, 1, 1); }

static const struct {
    const char *name;
    int (*run)(void);
    const char *writes; /* files that must be whole, the old or the new one, and have no temporary one beside them */
} work[] = {
    {"make_model", make_model, "model/config.json model/tokenizer.json model/model.safetensors"},
    {"read_models", read_models, ""},
    {"adapters", adapters, "adapter/adapter_config.json adapter/adapter_model.safetensors"},
    {"tokenizers", tokenizers, ""},
    {"make_corpus", make_corpus, "model/corpus.safetensors"},
    {"read_corpus", read_corpus, "model/corpus.safetensors"},
    {"train", train, "checkpoint.safetensors"},
    {"trace_cached", trace_cached, "trace"},
    {"trace_weights", trace_weights, "trace"},
    {"trace_adapter", trace_adapter, "trace"},
    {"encoders", encoders, ""},
};
enum { WORKS = sizeof work / sizeof *work };

/* Of the i-th file that the work writes: its path; 0 if there are no more. */
static int written(char path[200], const char *list, int i)
{
    for (; i > 0 && list; i--) list = strchr(list, ' ') ? strchr(list, ' ') + 1 : NULL;
    if (list == NULL || *list == 0) return 0;
    snprintf(path, 200, "%s/%.*s", FOLDER, (int)strcspn(list, " "), list);
    return 1;
}

static uint64_t contents(const char *path) /* a fingerprint; 0: no such file */
{
    char *text;
    size_t n;
    ttmm_error none;
    if (read_whole_file(&text, &n, path, &none) != TTMM_OK) return 0;
    const uint64_t h = hash_bytes(n, text, n);
    free(text);
    return h;
}

/* After a failure: nothing is lost, nothing is left. whole: the fingerprints of the files as a run without failure
 * writes them. */
static void is_clean(int w, const uint64_t *whole, long blocks_before, long files_before)
{
    char path[200], temporary[210];
    CHECK_EQUAL(in_use, blocks_before);
    CHECK_EQUAL(open_files, files_before);
    for (int i = 0; written(path, work[w].writes, i); i++) {
        snprintf(temporary, sizeof temporary, "%s.tmp", path);
        CHECK(contents(temporary) == 0);
        CHECK(contents(path) == whole[i]);
    }
}

static void every_failure(int w)
{
    uint64_t whole[3] = {0};
    char path[200];
    const long blocks_before = in_use, files_before = open_files;
    test_name = work[w].name;
    DONE(work[w].run());
    for (int i = 0; written(path, work[w].writes, i); i++) CHECK((whole[i] = contents(path)) != 0);
    is_clean(w, whole, blocks_before, files_before);
    for (int memory = 0; memory < 2; memory++) {
        long *left = memory ? &memory_left : &files_left;
        for (long n = 0;; n++) {
            *left = n;
            err.text[0] = 0;
            const int code = work[w].run(), over = *left != NEVER;
            *left = NEVER;
            if (over) break;
            if (memory) {
                CHECK_EQUAL(code, TTMM_NO_ROOM);
                CHECK_TEXT(err.text, "out of memory");
            } else if (code)
                CHECK(err.code == code && err.text[0]); /* some can be done without: closing what was read */
            is_clean(w, whole, blocks_before, files_before);
        }
    }
    struct rlimit limit, all;
    getrlimit(RLIMIT_FSIZE, &all);
    for (rlim_t size = 0; *work[w].writes; size += size / 2 + 13) {
        limit = all, limit.rlim_cur = size;
        setrlimit(RLIMIT_FSIZE, &limit);
        const int code = work[w].run();
        setrlimit(RLIMIT_FSIZE, &all);
        is_clean(w, whole, blocks_before, files_before);
        if (code != TTMM_NO_ROOM) {
            CHECK_EQUAL(code, TTMM_OK); /* there was room for all */
            break;
        }
        CHECK_TEXT(err.text, "cannot be written");
    }
}

int main(void)
{
    ttmm_set_threads(1);
    signal(SIGXFSZ, SIG_IGN); /* a write past the limit fails, as on a full disk */
    DONE(ttmm_make_folder(FOLDER, &err)), DONE(ttmm_make_folder(at("old"), &err));
    FILE *f = fopen(text_file[0], "w");
    for (int i = 0; i < 40; i++) fprintf(f, "%d sheep, %d wolves%s", i, i * i, i % 7 ? ", " : "\n<|endoftext|>\n");
    fclose(f);
    DONE(make_corpus()), DONE(ttmm_copy(at("old"), at("model"), "corpus.safetensors", &err));
    DONE(make_encoder(at("encoder"), 1, &err));
    ttmm_remove(FOLDER, "old/checkpoint.safetensors");
    DONE(train()), DONE(ttmm_copy(at("old"), FOLDER, "checkpoint.safetensors", &err));
    for (int w = 0; w < WORKS; w++) every_failure(w);
    return test_end("faults.c");
}
