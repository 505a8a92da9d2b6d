/* fuzz.c - every reader on input that clang's libFuzzer thinks out, under the address and undefined-behaviour
 * sanitizers; test/fuzz.sh (make fuzz) builds it, makes first inputs and runs it:
 *
 *     test/build/fuzz TARGET [libFuzzer's options] [folders of inputs, or a file that made it stop]
 *
 * Files are in memory: ttmm.c is included with the calls that open, read and map files replaced, so that an input
 * takes microseconds. An input is the files of one call, each after MARKS and a letter, which says (by the target's
 * list) which one; of a safetensors file a capital letter says that what follows are header, byte 0xfe and numbers: the
 * length before the header is filled in here. Other targets take text.
 *
 * What must hold beside what the sanitizers look for: a failure has one of the codes and a sentence; all that was
 * allocated is freed and all files are closed; memory is a MEMORY-fold of the input at most; what is said in each
 * target below. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MUST(condition) \
    ((condition) ? (void)0 : (fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition), abort()))

/* The files. A FILE * points to one of `reader`; nothing looks inside. */
enum { FILES = 16, READERS = 4 };
static struct {
    char path[64];
    unsigned char *data;
    size_t size;
} in_memory[FILES];
static int n_in_memory;
static struct {
    int file; /* its number plus 1, 0: not in use */
    size_t at;
} reader[READERS];

static int file_of(const char *path)
{
    for (int i = 0; i < n_in_memory; i++)
        if (strcmp(in_memory[i].path, path) == 0) return i;
    errno = ENOENT;
    return -1;
}
static FILE *fuzz_fopen(const char *path, const char *mode)
{
    const int file = file_of(path);
    MUST(strcmp(mode, "rb") == 0);
    for (int i = 0; i < READERS && file >= 0; i++)
        if (reader[i].file == 0) {
            reader[i].file = file + 1, reader[i].at = 0;
            return (FILE *)&reader[i];
        }
    MUST(file < 0); /* so many are not open at once */
    return NULL;
}
#define READER(f) (*(__typeof__(&reader[0]))(f))
static int fuzz_fclose(FILE *f) { return READER(f).file = 0; }
static size_t fuzz_fread(void *to, size_t size, size_t n, FILE *f)
{
    const size_t all = in_memory[READER(f).file - 1].size, at = READER(f).at, left = at < all ? all - at : 0;
    const size_t items = size == 0 ? 0 : left / size < n ? left / size : n;
    if (items) memcpy(to, in_memory[READER(f).file - 1].data + at, items * size);
    READER(f).at += items < n ? left : items * size;
    return items;
}
static int fuzz_fseeko(FILE *f, off_t at, int whence)
{
    if (whence == SEEK_END) at += (off_t)in_memory[READER(f).file - 1].size;
    if (at < 0) return -1;
    READER(f).at = (size_t)at;
    return 0;
}
static off_t fuzz_ftello(FILE *f) { return (off_t)READER(f).at; }
static int fuzz_ferror(FILE *f) { return (void)f, 0; }
static int fuzz_open(const char *path, int flags) { return (void)flags, file_of(path); }
static int fuzz_access(const char *path, int mode) { return (void)mode, file_of(path) < 0 ? -1 : 0; }
static int fuzz_close(int file) { return (void)file, 0; }
static int fuzz_fstat(int file, struct stat *s)
{
    s->st_size = (off_t)in_memory[file].size;
    return 0;
}
static long mapped;
static void *fuzz_mmap(void *at, size_t n, int protection, int flags, int file, off_t offset)
{
    (void)at, (void)n, (void)protection, (void)flags, (void)offset;
    mapped++;
    return in_memory[file].data;
}
static int fuzz_munmap(void *data, size_t n) { return (void)data, (void)n, mapped--, 0; }

/* Memory: what is in use, and how much may be. */
static size_t in_use, most_in_use = SIZE_MAX;
static int too_much;
static void *count_up(void *block)
{
    in_use += malloc_usable_size(block);
    return block;
}
static void count_down(void *block) { in_use -= malloc_usable_size(block); }
static int fuzz_refuses(size_t n, size_t size)
{
    if (size == 0 || (in_use < most_in_use && n <= (most_in_use - in_use) / size)) return 0;
    return too_much = 1;
}
static void *fuzz_malloc(size_t n) { return fuzz_refuses(n, 1) ? NULL : count_up(malloc(n)); }
static void *fuzz_calloc(size_t n, size_t size) { return fuzz_refuses(n, size) ? NULL : count_up(calloc(n, size)); }
static void *fuzz_realloc(void *old, size_t n)
{
    if (fuzz_refuses(n, 1)) return NULL;
    count_down(old);
    return count_up(realloc(old, n));
}
static void fuzz_free(void *block)
{
    count_down(block);
    free(block);
}

#define malloc fuzz_malloc
#define calloc fuzz_calloc
#define realloc fuzz_realloc
#define free fuzz_free
#define fopen fuzz_fopen
#define fclose fuzz_fclose
#define fread fuzz_fread
#define fseeko fuzz_fseeko
#define ftello fuzz_ftello
#define ferror fuzz_ferror
#define access fuzz_access
#define open fuzz_open
#define close fuzz_close
#define fstat fuzz_fstat
#define mmap fuzz_mmap
#define munmap fuzz_munmap
#undef _POSIX_C_SOURCE /* glibc 2.42: _GNU_SOURCE means a later one */
#include "../ttmm.c"
#undef fopen
#undef fclose
#undef fread
#undef malloc
#undef free

static ttmm_error err;

/* The code of a call that has set err, or not. */
static int fine(int code)
{
    MUST(code >= TTMM_OK || (code >= TTMM_NO_ROOM && code <= TTMM_BAD_USE && code == err.code && err.text[0]));
    err.code = 1, err.text[0] = 0;
    return code >= TTMM_OK;
}

/* header: 0, or of a safetensors file the bytes before the one that stands between header and numbers. */
static void put_file(const char *path, const unsigned char *body, size_t n, size_t header)
{
    if (file_of(path) >= 0 || n_in_memory == FILES) return;                         /* the first of that name counts */
    unsigned char *data = in_memory[n_in_memory].data = malloc(header ? n + 7 : n); /* just so much */
    snprintf(in_memory[n_in_memory].path, sizeof in_memory->path, "%s", path);
    in_memory[n_in_memory++].size = header ? n + 7 : n;
    if (n) memcpy(header ? data + 7 : data, body, n);
    if (header) memmove(data + 8, body, header), store_bytes(data, header, 8);
}

static const unsigned char MARKS[] = {0xff, 0xff, 0xfe};

/* The files that an input holds. names: of the letters a, b ...; those between blanks. */
static void put_files(const char *names, const unsigned char *data, size_t size)
{
    char path[64];
    for (size_t at = 0, end; at + sizeof MARKS < size; at = end) {
        for (end = at + 1; end < size && (end + sizeof MARKS > size || memcmp(data + end, MARKS, sizeof MARKS) != 0);)
            end++;
        if (memcmp(data + at, MARKS, sizeof MARKS) != 0) continue;
        const unsigned char *body = data + at + sizeof MARKS + 1;
        const size_t n = end - at - sizeof MARKS - 1;
        const char *name = names;
        for (int skip = (body[-1] | 0x20) - 'a'; skip > 0 && name; skip--)
            if ((name = strchr(name, ' ')) != NULL) name++;
        if (name == NULL) continue;
        snprintf(path, sizeof path, "%.*s", (int)strcspn(name, " "), name);
        const unsigned char *cut = n && !(body[-1] & 0x20) ? memchr(body, 0xfe, n) : NULL;
        put_file(path, body, n, cut ? (size_t)(cut - body) : 0);
    }
}

/* Made once, at the beginning. */
static ttmm_tokenizer *tokenizers[6];
static const ttmm_config tiny = {.dim = 2,
                                 .n_layers = 1,
                                 .n_heads = 1,
                                 .n_kv_heads = 1,
                                 .head_dim = 2,
                                 .intermediate = 2,
                                 .vocab = 5,
                                 .context = 32,
                                 .tied = 1,
                                 .norm_eps = 1e-5,
                                 .rope_theta = 1e4};
static ttmm_config adapted; /* of vectors/model */
static ttmm_model model;
static ttmm_corpus corpus;
static ttmm_trainer *trainer;

static void fuzz_config(void)
{
    ttmm_config c;
    char note[200];
    size_t bytes;
    if (!fine(ttmm_config_read(&c, "m", &err))) return;
    MUST(ttmm_config_check(&c, &err) == TTMM_OK && c.n_ends <= TTMM_ENDS);
    fine(ttmm_config_note(note, sizeof note, &c, "m", &err));
    fine(ttmm_stored_bytes(&bytes, &c, "m", &err));
}

/* A view has the same numbers as what is read. */
static void fuzz_model(void)
{
    ttmm_model m, view;
    real a[64], b[64];
    const int read = ttmm_model_read(&m, "m", &err), good = fine(read), opened = ttmm_model_open(&view, "m", &err);
    fine(opened);
    MUST(read == opened);
    for (size_t i = 0; good && i < ttmm_n_tensors(&m.config); i++) {
        const ttmm_tensor t = ttmm_tensor_at(&m.config, i);
        const size_t n = t.rows * t.cols;
        for (size_t k = 0; k < n; k += 64) {
            const size_t some = n - k < 64 ? n - k : 64;
            to_reals(a, weight(&m, t.layer, t.kind), k, some), to_reals(b, weight(&view, t.layer, t.kind), k, some);
            MUST(memcmp(a, b, some * sizeof *a) == 0 && a[0] - a[0] == 0);
        }
    }
    if (good) ttmm_model_free(&m), ttmm_model_free(&view);
}

static void fuzz_adapter(void)
{
    ttmm_lora l, view;
    const int read = ttmm_lora_read(&l, &adapted, "m", &err), good = fine(read);
    const int opened = ttmm_lora_open(&view, &adapted, "m", &err);
    fine(opened);
    MUST(read == opened);
    for (size_t i = 0; good && i < ttmm_lora_tensors(&l) / 2; i++)
        MUST(l.matrix[i].rank == view.matrix[i].rank &&
             memcmp(&l.matrix[i].scale, &view.matrix[i].scale, sizeof(real)) == 0);
    if (good) ttmm_lora_free(&l), ttmm_lora_free(&view);
}

/* What is read can be gone through. */
static void fuzz_corpus(void)
{
    ttmm_corpus c;
    if (!fine(ttmm_corpus_read(&c, "m", TTMM_BYTES, &err))) return;
    size_t sum = ttmm_longest_sequence(&c);
    ttmm_corpus_hash(&c, NULL, 0);
    for (size_t i = 0; i < c.n_sequences; i++) {
        sum += strlen(c.file[c.document_file[c.sequence_document[i]]]);
        for (size_t t = c.sequence[i]; t < c.sequence[i + 1]; t++) MUST(c.token[t] >= 0 && c.token[t] < TTMM_BYTES);
    }
    MUST(sum > 0);
    ttmm_corpus_free(&c);
}

/* Bytes in, UTF-8 out; and what is UTF-8 stays as it is. */
static void check_utf8(const unsigned char *s, size_t n)
{
    ttmm_utf8 waiting = {{0}, 0};
    unsigned char *out = malloc(3 * n + 8);
    size_t made = 0, length;
    int good = 1;
    for (size_t i = 0; i <= n; i++) made += ttmm_put_utf8((char *)out + made, &waiting, i < n ? s[i] : -1);
    MUST(made <= 3 * n + 8);
    for (size_t i = 0; i < made; i += length) MUST(utf8_get(out + i, made - i, &length) < NOT_UTF8);
    for (size_t i = 0; i < n; i += length) good &= utf8_get(s + i, n - i, &length) < NOT_UTF8;
    if (good) MUST(made == n && (n == 0 || memcmp(out, s, n) == 0));
    free(out);
}

/* Of a text's bytes every one is a token, but for separators and line ends around them. */
static void fuzz_text(const unsigned char *s, size_t n)
{
    const char *path[2] = {"text.txt", "more.txt"};
    ttmm_corpus c;
    int *token;
    size_t n_tokens;
    put_file(path[0], s, n / 2, 0), put_file(path[1], s + n / 2, n - n / 2, 0);
    check_utf8(s, n);
    if (fine(ttmm_tokenize(&token, &n_tokens, NULL, (const char *)s, n, &err))) MUST(n_tokens <= n), fuzz_free(token);
    if (fine(ttmm_corpus_from_files(&c, NULL, path, 2, 5, &err))) {
        MUST(c.n_tokens <= n + c.n_documents && c.sequence[c.n_sequences] == c.n_tokens && c.document[0] == 0);
        MUST(ttmm_longest_sequence(&c) <= 5);
        ttmm_corpus_free(&c);
    }
}

static void fuzz_ids(const unsigned char *s, size_t n)
{
    const char *path = "ids";
    ttmm_corpus c;
    int *token;
    size_t n_tokens;
    put_file(path, s, n, 0);
    const int read = fine(ttmm_read_ids(&token, &n_tokens, (const char *)s, n, 300, "ids", &err));
    if (read) {
        for (size_t i = 0; i < n_tokens; i++) MUST(token[i] >= 0 && token[i] < 300);
        fuzz_free(token);
    }
    if (!fine(ttmm_corpus_from_ids(&c, 300, &path, 1, 5, &err))) return;
    MUST((c.n_tokens == n_tokens || !read) && ttmm_longest_sequence(&c) <= 5);
    ttmm_corpus_free(&c);
}

/* The text of its tokens is the text (here NFC comes first, after which NFC changes nothing), where the vocabulary has
 * every byte. */
static void check_tokens(const ttmm_tokenizer *tok, const char *text, size_t n)
{
    int *token;
    size_t n_tokens, length, at = 0;
    char *form = (char *)text, *again = NULL;
    if (tok->nfc) normalise_text(&form, &length, &tok->unicode, text, n);
    else length = n;
    if (tok->nfc) normalise_text(&again, &at, &tok->unicode, form, length);
    if (tok->nfc) MUST(at == length && memcmp(form, again, length) == 0);
    if (again != form) fuzz_free(again);
    int whole = tok->n_added == 0 && tok->n_before == 0 && tok->n_after == 0;
    for (int b = 0; b < 256; b++) whole = whole && tok->byte[b] >= 0;
    at = 0;
    if (fine(ttmm_tokenize(&token, &n_tokens, tok, text, n, &err))) {
        for (size_t i = 0; i < n_tokens; i++) {
            size_t bytes;
            MUST(token[i] >= 0 && token[i] < tok->vocab);
            const unsigned char *b = ttmm_token_bytes(tok, token[i], &bytes);
            if (whole) MUST(at + bytes <= length && memcmp(form + at, b, bytes) == 0);
            at += bytes;
        }
        if (whole) MUST(at == length);
        fuzz_free(token);
    }
    if (form != text) fuzz_free(form);
}

static void fuzz_tokenizer(void)
{
    ttmm_tokenizer *tok;
    const int text = file_of("m/text");
    if (!fine(ttmm_tokenizer_read(&tok, "m", &err)) || tok == NULL) return;
    if (text >= 0) check_tokens(tok, (const char *)in_memory[text].data, in_memory[text].size);
    for (int t = -1; t <= (int)(tok->n < 1000 ? tok->n : 1000); t++) {
        size_t n, sum = 0;
        const unsigned char *bytes = ttmm_token_bytes(tok, t, &n);
        for (size_t i = 0; i < n; i++) sum += bytes[i];
        MUST(sum <= 255 * n);
    }
    ttmm_tokenizer_free(tok);
}

static void fuzz_encoder(void)
{
    ttmm_encoder *e;
    const int text = file_of("m/text");
    if (!fine(ttmm_encoder_read(&e, "m", &err))) return;
    const size_t E = ttmm_encoder_dim(e), n = text < 0 ? 0 : in_memory[text].size;
    const char *s = text < 0 ? "" : (const char *)in_memory[text].data;
    real *out = fuzz_calloc(E, sizeof *out);
    MUST(out && strlen(ttmm_encoder_fingerprint(e)) == 16);
    if (fine(ttmm_encode(out, e, &s, &n, 1, &err)))
        for (size_t i = 0; i < E; i++) MUST(!(out[i] > 2) && !(out[i] < -2)); /* of length 1, or no numbers */
    fuzz_free(out);
    ttmm_encoder_free(e);
}

/* The first byte says of which tokenizer. */
static void fuzz_tokenize(const unsigned char *s, size_t n)
{
    const size_t kinds = sizeof tokenizers / sizeof *tokenizers;
    char *text = malloc(n); /* of just this size */
    if (n) memcpy(text, s, n), check_tokens(tokenizers[s[0] % kinds], text + 1, n - 1);
    free(text);
}

static void fuzz_checkpoint(void)
{
    ttmm_trainer_start(trainer, NULL, 0, 6, 0, 0);
    fine(ttmm_trainer_load(trainer, "m/checkpoint", "settings", &err));
}

static void fuzz_array(void)
{
    real *x = NULL;
    size_t rows, cols;
    char note[40];
    if (fine(ttmm_note(note, sizeof note, "m/array", &err))) MUST(strlen(note) < sizeof note);
    if (!fine(ttmm_array_read(&x, &rows, &cols, "m/array", "embedding", &err))) return;
    for (size_t i = 0; i < rows * cols; i++) MUST(x[i] - x[i] == 0);
    fuzz_free(x);
}

/* The words of an image; its hash is filled in here. One that is accepted answers, with all its experts. */
static void fuzz_image(const unsigned char *s, size_t n)
{
    uint32_t *word = malloc(n); /* of just this size */
    ttmm_image x, own;
    if (n) memcpy(word, s, n);
    if (n >= 24 && word[2] >= 5 && word[2] <= n / 4) {
        const uint64_t hash = hash_words(IMAGE_MAGIC, word + 5, word[2] - 5, TTMM_F32);
        word[3] = (uint32_t)hash, word[4] = (uint32_t)(hash >> 32);
    }
    const size_t bytes = ttmm_image_bytes(word, n);
    void *memory = bytes ? fuzz_malloc(bytes) : NULL;
    const int code = ttmm_image_view(&x, word, n, memory, bytes, &err), good = fine(code);
    MUST(ttmm_image_view(&own, word, n, NULL, 0, &err) == code);
    if (good) {
        const ttmm_config *c = &x.model.config;
        const size_t E = x.K ? x.E : 0; /* without experts, E says nothing */
        const ttmm_router nearest = {.beta = 0.2, .active = x.K};
        const int token[2] = {0, c->vocab - 1};
        ttmm_pass_size size = {.tokens = 2, .sequences = 1, .cache = 2, .logits = 1};
        ttmm_pass *p;
        const ttmm_lora **expert = fuzz_calloc(x.K + 1, sizeof *expert);
        int *chosen = fuzz_calloc(x.K + 1, sizeof *chosen);
        real *query = fuzz_calloc(E + 2 * x.K + 1, sizeof *query), *similarity = query + E;
        size_t some = 0;
        MUST(expert && chosen && query && bytes > 0 && ttmm_config_check(c, &err) == TTMM_OK);
        for (size_t k = 0; k < x.K; k++) expert[k] = &x.lora[k];
        for (size_t i = 0; i < E; i++) query[i] = x.idf ? x.idf[i] : 1;
        const int routed = fine(
            ttmm_route(&some, chosen, similarity + x.K, similarity, query, x.centroid, x.K, x.E, &nearest, &err));
        const ttmm_mix all = {x.K, expert, similarity + x.K};
        size.rank = ttmm_mix_rank(&all);
        MUST(!routed || some <= x.K);
        if (fine(ttmm_pass_new(&p, c, &size, &err))) {
            MUST(ttmm_feed(p, &x.model, &all, token, 2) != NULL);
            ttmm_pass_free(p);
        }
        fuzz_free(expert), fuzz_free(chosen), fuzz_free(query);
        ttmm_image_free(&x), ttmm_image_free(&own);
    }
    fuzz_free(memory);
    free(word);
}

static size_t reported, wrong;
static void report(void *context, const ttmm_difference *d)
{
    (void)context, reported++, wrong += d->verdict >= TTMM_PAST;
    MUST(strlen(d->shape[0]) < 80 && strlen(d->shape[1]) < 80 && d->name);
}
static void report_file(void *context, const char *file, const ttmm_difference *d)
{
    MUST(file[0] || d);
    if (d) report(context, d);
}

/* With itself a file is the same, but for numbers that are not finite and types that are not known. */
static void fuzz_compare(void)
{
    size_t failures;
    for (int by_row = 0; by_row < 2; by_row++) {
        reported = wrong = 0;
        if (fine(ttmm_compare("m/a", "m/b", 1e-6, 1e-6, by_row, report, NULL, &failures, &err)))
            MUST(failures == (reported ? wrong : 1));
    }
}

static void fuzz_check(void)
{
    size_t failures;
    fine(ttmm_check("m", "yours", "f32", report_file, NULL, &failures, &err));
    fine(ttmm_check("m", "m", "f64", report_file, NULL, &failures, &err));
}

/* Words between line ends. */
static void fuzz_command(const unsigned char *s, size_t n)
{
    static const ttmm_verb verbs[] = {{"eval", "MODEL FILE...", "", 2, 5}, {"info", "[MODEL]", "", 0, 1}};
    int whole, flag;
    long number;
    size_t size;
    double x;
    const char *text = "";
    const ttmm_option options[] = {
        {"steps", 'i', &whole, -2, 7, " eval ", ""}, {"l", 'l', &number, 0, 9, " eval ", ""},
        {"n", 'n', &size, 1, 1e9, " info ", ""},     {"x", 'f', &x, -1, 1, " eval info ", ""},
        {"output", 'o', &text, 0, 0, " info ", ""},  {"quiet", 'b', &flag, 0, 0, " info ", ""},
        {"x", 'i', &whole, 0, 1, " base ", ""}};
    const ttmm_program p = {"run", verbs, 2, options, sizeof options / sizeof *options};
    char *words = malloc(n + 1), *word[40];
    const char *argument[40];
    size_t verb, arguments;
    int argc = 0;
    memcpy(words, s, n), words[n] = 0;
    for (char *w = words; argc < 40 && w; argc++) {
        word[argc] = w;
        if ((w = strchr(w, '\n')) != NULL) *w++ = 0;
    }
    whole = 0, x = 0;
    const int code = ttmm_command(&verb, argument, &arguments, &p, argc, word, &err);
    if (fine(code) && code == TTMM_OK)
        MUST(whole >= -2 && whole <= 7 && x >= -1 && x <= 1 && arguments >= verbs[verb].least && strlen(text) <= n);
    free(words);
}

static const struct {
    const char *name;
    void (*of_files)(void);
    const char *files;
    void (*of_text)(const unsigned char *s, size_t n);
} target[] = {
    {"config", fuzz_config, "m/config.json m/generation_config.json m/model.safetensors", NULL},
    {"model", fuzz_model,
     "m/config.json m/generation_config.json m/model.safetensors m/model.safetensors.index.json m/x m/y", NULL},
    {"adapter", fuzz_adapter, "m/adapter_config.json m/adapter_model.safetensors", NULL},
    {"corpus", fuzz_corpus, "m/corpus.safetensors", NULL},
    {"tokenizer", fuzz_tokenizer,
     "m/config.json m/tokenizer.json m/tokenizer_config.json m/special_tokens_map.json m/added_tokens.json m/text",
     NULL},
    {"encoder", fuzz_encoder,
     "m/modules.json m/p/config.json m/sentence_bert_config.json m/config.json m/tokenizer.json "
     "m/tokenizer_config.json "
     "m/model.safetensors m/text",
     NULL},
    {"checkpoint", fuzz_checkpoint, "m/checkpoint", NULL},
    {"array", fuzz_array, "m/array", NULL},
    {"compare", fuzz_compare, "m/a m/b", NULL},
    {"check", fuzz_check, "m/manifest.json m/x yours/x m/y yours/y", NULL},
    {"tokenize", NULL, NULL, fuzz_tokenize},
    {"text", NULL, NULL, fuzz_text},
    {"ids", NULL, NULL, fuzz_ids},
    {"image", NULL, NULL, fuzz_image},
    {"command", NULL, NULL, fuzz_command},
};
static size_t which;

static void clear_files(void)
{
    while (n_in_memory > 0) free(in_memory[--n_in_memory].data);
}

static void load(const char *path, const char *from)
{
    static unsigned char data[1 << 16];
    FILE *f = fopen(from, "rb");
    MUST(f != NULL);
    put_file(path, data, fread(data, 1, sizeof data, f), 0);
    fclose(f);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const folder[] = {"test/build/vectors/bpe",   "test/interop/bpe-gpt2",
                                         "test/interop/bpe-llama3",  "test/interop/bpe-qwen2",
                                         "test/interop/bpe-smollm2", "test/interop/bpe-digits"};
    const size_t n = sizeof target / sizeof *target;
    const char *ids = "ids";
    char path[200];
    while (which < n && (*argc < 2 || strcmp(target[which].name, (*argv)[1]) != 0)) which++;
    if (which == n) {
        for (which = 0; which < n; which++) printf("%s\n", target[which].name);
        exit(*argc > 1);
    }
    (*argv)[1] = (*argv)[0], ++*argv, --*argc;
    for (int i = 0; i < 6; i++) {
        snprintf(path, sizeof path, "%s/config.json", folder[i]), load("t/config.json", path);
        snprintf(path, sizeof path, "%s/tokenizer.json", folder[i]), load("t/tokenizer.json", path);
        MUST(ttmm_tokenizer_read(&tokenizers[i], "t", &err) == TTMM_OK && tokenizers[i]);
        clear_files();
    }
    load("m/config.json", "test/build/vectors/model/config.json");
    MUST(ttmm_config_read(&adapted, "m", &err) == TTMM_OK);
    put_file(ids, (const unsigned char *)"0 1 2 3 4 0 2", 13, 0);
    MUST(ttmm_model_new(&model, &tiny, &err) == TTMM_OK);
    ttmm_model_init(&model, 1);
    MUST(ttmm_corpus_from_ids(&corpus, tiny.vocab, &ids, 1, 16, &err) == TTMM_OK);
    const ttmm_recipe recipe = {{0.05, 0.2, 0.1, 1}, 0.9, 0.99, 1e-8, 0.01, 1, 2, 1, 7};
    MUST(ttmm_trainer_new(&trainer, &model, NULL, &corpus, &recipe, &err) == TTMM_OK);
    clear_files();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { MEMORY = 300, BESIDE_INPUT = 1 << 20 };
    const size_t before = in_use;
    most_in_use = in_use + BESIDE_INPUT + MEMORY * size, too_much = 0;
    if (target[which].files) put_files(target[which].files, data, size), target[which].of_files();
    else target[which].of_text(data, size);
    clear_files();
    MUST(in_use == before && mapped == 0);
    MUST(!too_much ||
         target[which].of_files == fuzz_tokenizer || /* a token's id may be any below config.json's number */
         target[which].of_files == fuzz_encoder);    /* and of its layers there is a list */
    for (int i = 0; i < READERS; i++) MUST(reader[i].file == 0);
    return 0;
}
