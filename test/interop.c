/* interop.c - that the files of Hugging Face's ecosystem mean here what they mean there, without Python: test/interop
 * holds small models, an adapter and tokenizers in the forms that transformers, PEFT and tokenizers write, with what
 * these libraries make of them (test/interop.py made it; nothing in it calls ttmm). Models of Llama's and Qwen2's form,
 * in every type of weight, whole and in shards, with every kind of rotary scaling: their logits, an adapter's, and the
 * gradients agree to 1e-12 (gradients 1e-11) of the largest in the double build, to 2e-5 in the float build. Tokens and
 * the text of tokens are equal. What would be computed otherwise is refused by name. Rounding of weights is right for
 * every number of 16 bits. Sizes are right past 2^31. */
#include "test.h"

#define IS_DOUBLE (sizeof(real) == 8)
#define HERE "test/interop"
#define FOLDER (IS_DOUBLE ? "test/build/interop-f64.d" : "test/build/interop-f32.d") /* without .d: the program */

static ttmm_error err;

static const char *at(const char *top, const char *folder, const char *name) /* a path; it stays valid */
{
    static char path[64][100];
    char want[100];
    int i = 0;
    snprintf(want, sizeof want, "%s/%s%s%s", top, folder, name[0] ? "/" : "", name);
    while (i < 63 && path[i][0] && strcmp(path[i], want) != 0) i++;
    return strcpy(path[i], want);
}

typedef struct {
    size_t n;
    char at[1 << 16]; /* and a zero byte */
} contents;

static void get(contents *c, const char *path)
{
    FILE *f = fopen(path, "rb");
    c->at[c->n = f ? fread(c->at, 1, sizeof c->at - 1, f) : 0] = 0;
    if (f) fclose(f);
    CHECK(c->n > 0);
}

static void put(const char *path, const char *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, n, f) == n);
    if (f) fclose(f);
}

/* ---- Models ------------------------------------------------------------------------------------------------------ */

/* What config.json of each folder says. */
static const struct {
    const char *folder;
    ttmm_config config;
} known[] = {
    {"qwen2", {8, 2, 4, 2, 2, 12, 27, 64, 1, 1e-6, 1e6, 1, TTMM_ROPE_DEFAULT, 0, 0, 0, 0, 1, {26}, 0, 0}},
    {"llama3", {8, 2, 2, 1, 8, 14, 23, 512, 0, 1e-5, 1e4, 0, TTMM_ROPE_LLAMA3, 8, 1, 4, 64, 3, {20, 22, 21}, 0, 0}},
    {"linear", {8, 1, 4, 2, 6, 10, 19, 96, 0, 1e-3, 500, 0, TTMM_ROPE_LINEAR, 3, 0, 0, 0, 0, {0}, 0, 0}},
    {"shards", {8, 2, 1, 1, 8, 6, 19, 512, 0, 1e-6, 5e3, 1, TTMM_ROPE_LLAMA3, 32, 2, 3, 128, 2, {2, 3}, 0, 0}}};
enum { KNOWN = sizeof known / sizeof *known };

static void same_config(const char *folder, const ttmm_config *c, const ttmm_config *e)
{
    const int n = e->n_ends, ends = c->n_ends == n && memcmp(c->end, e->end, (size_t)n * sizeof *c->end) == 0;
    const int same = memcmp(c, e, 9 * sizeof(int)) == 0 && c->biases == e->biases && c->rope == e->rope && ends &&
                     c->norm_eps == e->norm_eps && c->rope_theta == e->rope_theta &&
                     (e->rope == TTMM_ROPE_DEFAULT || c->rope_factor == e->rope_factor) &&
                     (e->rope != TTMM_ROPE_LLAMA3 ||
                      (c->rope_low == e->rope_low && c->rope_high == e->rope_high && c->rope_before == e->rope_before));
    if (same) passed++;
    else test_failed(__FILE__, __LINE__, folder, "the config as the file says", "another");
}

/* Tensor `name` of expected.safetensors is what was found, to a tolerance relative to *scale (NULL: to its own largest
 * number). */
static void agrees(const char *folder, const char *name, const real *found, size_t n, double tolerance,
                   const double *scale)
{
    char path[300], what[400], off[100];
    size_t rows, cols;
    real *expected;
    double largest = 0, worst = 0;
    snprintf(path, sizeof path, "%s/%s/expected.safetensors", HERE, folder);
    snprintf(what, sizeof what, "%s: %s", path, name);
    if (!GIVES(what, ttmm_array_read(&expected, &rows, &cols, path, name, &err), TTMM_OK, "", "")) return;
    CHECK(rows * cols == n);
    for (size_t i = 0; i < n && n == rows * cols; i++) {
        const double e = fabs((double)expected[i]), d = fabs((double)found[i] - (double)expected[i]);
        largest = e > largest ? e : largest, worst = d > worst || d != d ? d : worst; /* NaN stays */
    }
    if (scale) largest = *scale;
    snprintf(off, sizeof off, "off by %g", worst / largest);
    if (worst <= tolerance * largest) passed++;
    else test_failed(__FILE__, __LINE__, what, "agreement", off);
    free(expected);
}

static const ttmm_array *array_of(const ttmm_trace *t, const char *name)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->array[i].name, name) == 0) return &t->array[i];
    return NULL;
}

static size_t tokens_of(int token[64], const char *folder)
{
    char path[300];
    safetensors s;
    size_t T = 0;
    snprintf(path, sizeof path, "%s/%s/expected.safetensors", HERE, folder);
    if (!DONE(open_safetensors(&s, NULL, path, &err))) return 0;
    const stored *t = find_tensor(&s, "tokens");
    if (t && t->dim[0] <= 64 && DONE(read_tensor(&s, "tokens", token, I32, t->dim[0], 1, &err))) T = t->dim[0];
    close_safetensors(&s);
    CHECK(T > 0);
    return T;
}

static void check_logits(const char *folder, const char *name, const ttmm_model *m, const ttmm_mix *mix, int cached)
{
    ttmm_trace t;
    int token[64];
    const size_t T = tokens_of(token, folder);
    if (T == 0 || !DONE(ttmm_trace_new(&t, m, mix, NULL, token, T, cached, 0, &err))) return;
    const ttmm_array *logits = array_of(&t, "logits");
    agrees(folder, name, logits->data, logits->rows * logits->cols, IS_DOUBLE ? 1e-12 : 2e-5, NULL);
    ttmm_trace_free(&t);
}

/* Read, computed, in one go and token by token; written and read again. */
static void models(void)
{
    for (int i = 0; i < KNOWN; i++) {
        const char *folder = known[i].folder;
        ttmm_model m, again;
        if (!DONE(ttmm_model_read(&m, at(HERE, folder, ""), &err))) continue;
        same_config(folder, &m.config, &known[i].config);
        check_logits(folder, "logits", &m, NULL, 0), check_logits(folder, "logits", &m, NULL, 1);
        if (DONE(ttmm_model_write(&m, at(FOLDER, folder, ""), TTMM_REAL, "", &err)) &&
            DONE(ttmm_model_read(&again, at(FOLDER, folder, ""), &err))) {
            same_config(folder, &again.config, &known[i].config);
            CHECK(again.n == m.n && memcmp(again.data, m.data, m.n * sizeof(real)) == 0);
            ttmm_model_free(&again);
        }
        ttmm_model_free(&m);
    }
}

/* An adapter of PEFT's for some of the matrices, with ranks and alphas of their own and rsLoRA: beside the weights and
 * merged. Of the layers' q, v, o and up: rank and scale alpha / sqrt(rank). */
static void adapter(void)
{
    static const int kind[4] = {TTMM_Q, TTMM_V, TTMM_O, TTMM_UP};
    static const double rank[2][4] = {{2, 2, 2, 1}, {3, 2, 2, 1}}, alpha[2][4] = {{3, 5, 3, 2}, {3, 5, 3, 7}};
    const real one = 1;
    ttmm_model m, merged;
    ttmm_lora l;
    if (!DONE(ttmm_model_read(&m, HERE "/qwen2", &err)) || !DONE(ttmm_model_copy(&merged, &m, &err)) ||
        !DONE(ttmm_lora_read(&l, &m.config, HERE "/qwen2/adapter", &err)))
        return;
    for (int i = 0; i < 8; i++) {
        const ttmm_lora_matrix *matrix = &l.matrix[i / 4 * TTMM_MATRICES + kind[i % 4]];
        CHECK_EQUAL(matrix->rank, rank[i / 4][i % 4]);
        CHECK_RELATIVE(matrix->scale, alpha[i / 4][i % 4] / sqrt(rank[i / 4][i % 4]), IS_DOUBLE ? 1e-15 : 1e-7, 0);
        CHECK_EQUAL(l.matrix[i / 4 * TTMM_MATRICES + (i % 2 ? TTMM_K : i % 4 ? TTMM_GATE : TTMM_DOWN)].rank, 0);
    }
    const ttmm_lora *only = &l;
    const ttmm_mix mix = {1, &only, &one};
    real *scratch = malloc(ttmm_merge_scratch(&m.config, &mix) * sizeof *scratch);
    ttmm_merge(&merged, &m, &mix, scratch);
    check_logits("qwen2", "adapter_logits", &m, &mix, 0), check_logits("qwen2", "adapter_logits", &m, &mix, 1);
    check_logits("qwen2", "adapter_logits", &merged, NULL, 0);
    free(scratch), ttmm_lora_free(&l), ttmm_model_free(&merged), ttmm_model_free(&m);
}

/* The loss's gradients by all weights, biases among them. A bias of k moves a row's scores nearly alike, so its
 * gradient is a small rest of large numbers: all are measured by the largest of all. */
static void gradients(void)
{
    ttmm_model m;
    ttmm_trace t;
    int token[64];
    const size_t T = tokens_of(token, "qwen2");
    size_t biases = 0;
    if (!DONE(ttmm_model_read(&m, HERE "/qwen2", &err))) return;
    if (T && DONE(ttmm_trace_new(&t, &m, NULL, NULL, token, T, 0, 1, &err))) {
        double largest = 0;
        for (int measured = 0; measured < 2; measured++)
            for (size_t i = 0; i < ttmm_n_tensors(&m.config); i++) {
                const ttmm_tensor w = ttmm_tensor_at(&m.config, i);
                char name[100];
                snprintf(name, sizeof name, "grad.%s", w.name);
                const ttmm_array *g = array_of(&t, name);
                const size_t n = w.rows * w.cols;
                CHECK(g && g->rows * (g->cols ? g->cols : 1) == n);
                for (size_t k = 0; g && !measured && k < n; k++)
                    largest = fabs((double)g->data[k]) > largest ? fabs((double)g->data[k]) : largest;
                if (g && measured) agrees("qwen2", name, g->data, n, IS_DOUBLE ? 1e-11 : 2e-5, &largest);
                biases += measured && strstr(name, "_proj.bias") != NULL;
            }
        ttmm_trace_free(&t);
    }
    CHECK_EQUAL(biases, 6);
    ttmm_model_free(&m);
}

/* Writes the tensors of a tied model, and lm_head.weight, into a folder; head NULL: none. embed: the embedding, too. */
static void put_tied(const char *folder, const ttmm_model *m, const real *head, int embed)
{
    static ttmm_array array[64];
    const size_t tensors = ttmm_n_tensors(&m->config);
    size_t n = 0;
    for (size_t i = 0; i < tensors; i++) {
        const ttmm_array a = ttmm_model_tensor_at(m, i);
        if (embed || strcmp(a.name, "model.embed_tokens.weight") != 0) array[n++] = a;
    }
    const size_t V = (size_t)m->config.vocab, D = (size_t)m->config.dim;
    if (head) array[n++] = (ttmm_array){"lm_head.weight", V, D, head, NULL};
    DONE(ttmm_arrays_write(array, n, at(FOLDER, folder, "model.safetensors"), "", &err));
}

/* A head that is stored although config.json says tied: twice the embedding gives twice the logits, to the bit, and is
 * written again; the same numbers are tied; a head alone is the embedding, too. */
static void stored_head(void)
{
    ttmm_model m, r;
    ttmm_trace t[2];
    real head[27 * 8];
    static contents config;
    const int token[3] = {4, 26, 1};
    const char *folder = at(FOLDER, "head", "");
    get(&config, HERE "/qwen2/config.json");
    if (!DONE(ttmm_model_read(&m, HERE "/qwen2", &err)) || !DONE(ttmm_make_folder(folder, &err))) return;
    put(at(FOLDER, "head", "config.json"), config.at, config.n);
    const size_t n = sizeof head / sizeof *head;
    for (int how = 0; how < 3; how++) { /* another, the same, alone */
        for (size_t i = 0; i < n; i++) head[i] = ttmm_weight(&m, 0, TTMM_EMBED)[i] * (how == 0 ? 2 : 1);
        put_tied("head", &m, head, how < 2);
        if (!DONE(ttmm_model_read(&r, folder, &err))) continue;
        CHECK(r.config.tied == (how > 0) && r.n == m.n + (how > 0 ? 0 : n));
        for (int k = 0; k < 2; k++) DONE(ttmm_trace_new(&t[k], k ? &r : &m, NULL, NULL, token, 3, 0, 0, &err));
        const ttmm_array *a = array_of(&t[0], "logits"), *b = array_of(&t[1], "logits");
        long wrong = 0;
        for (size_t i = 0; i < 3 * 27; i++) wrong += b->data[i] != a->data[i] * (how == 0 ? 2 : 1);
        CHECK_EQUAL(wrong, 0);
        ttmm_trace_free(&t[0]), ttmm_trace_free(&t[1]);
        DONE(ttmm_model_write(&r, at(FOLDER, "head", "again"), TTMM_REAL, "", &err));
        ttmm_model_free(&r);
        if (!DONE(ttmm_model_read(&r, at(FOLDER, "head", "again"), &err))) continue;
        CHECK(r.config.tied == (how > 0) && memcmp(ttmm_weight(&r, 0, TTMM_HEAD), head, sizeof head) == 0);
        ttmm_model_free(&r);
    }
    put_tied("head", &m, NULL, 0);
    GIVES("none", ttmm_model_read(&r, folder, &err), TTMM_BAD_INPUT, "model.embed_tokens.weight is missing", "");
    ttmm_model_free(&m);
}

/* ---- Tokenizers -------------------------------------------------------------------------------------------------- */

enum { MOST = 1 << 16 };

/* 6162*3+63 is abababc; - nothing. Returns the number of bytes. */
static size_t from_hex(char *out, const char *hex)
{
    static const char digit[] = "0123456789abcdef";
    size_t n = 0;
    for (; *hex != ' ' && *hex != '-'; hex += *hex == '+') {
        size_t length = 0;
        for (const char *a, *b; *hex && (a = strchr(digit, hex[0])) && (b = strchr(digit, hex[1])); hex += 2)
            out[n + length++] = (char)(unsigned char)(16 * (a - digit) + (b - digit));
        long times = *hex == '*' ? strtol(hex + 1, (char **)&hex, 10) : 1;
        for (; times > 1 && n + 2 * length < MOST; times--, n += length) memcpy(out + n + length, out + n, length);
        n += length;
        if (!strchr("+ ", *hex)) return 0;
    }
    return n;
}

/* The bytes of a text's tokens, a token without any as TTMM_END: byte [their number, which is returned] or NULL. */
static size_t all_bytes(int *byte, const ttmm_tokenizer *k, const int *token, size_t n)
{
    size_t count = 0, length;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *text = ttmm_token_bytes(k, token[i], &length);
        for (size_t b = 0; byte && b < length; b++) byte[count + b] = text[b];
        if (byte && length == 0) byte[count] = TTMM_END;
        count += length ? length : 1;
    }
    return count;
}

static size_t decode(char *out, const ttmm_tokenizer *k, const int *token, size_t n) /* special tokens left out */
{
    ttmm_utf8 waiting = {{0}, 0};
    size_t length = 0, bytes;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *byte = ttmm_token_bytes(k, token[i], &bytes);
        for (size_t b = 0; b < bytes; b++) {
            const size_t put = ttmm_put_utf8(out + length, &waiting, byte[b]);
            CHECK(put <= 7); /* a U+FFFD and a whole character at most: out [8] is enough */
            length += put;
        }
    }
    return length + ttmm_put_utf8(out + length, &waiting, -1);
}

static void same_numbers(const char *where, const int *found, size_t n, const int *expected, size_t m)
{
    char e[80], f[80];
    size_t i = 0;
    while (i < n && i < m && found[i] == expected[i]) i++;
    if (i == n && i == m) {
        passed++;
        return;
    }
    snprintf(e, sizeof e, "%zu numbers, %d at %zu", m, i < m ? expected[i] : -1, i);
    snprintf(f, sizeof f, "%zu numbers, %d there", n, i < n ? found[i] : -1);
    test_failed(__FILE__, __LINE__, where, e, f);
}

static void same_text(const char *where, const char *found, size_t n, const char *expected, size_t m)
{
    static int a[MOST + 8], b[MOST + 8];
    for (size_t i = 0; i < n; i++) a[i] = (unsigned char)found[i];
    for (size_t i = 0; i < m; i++) b[i] = (unsigned char)expected[i];
    same_numbers(where, a, n, b, m);
}

static const char *const form[] = {"bpe-gpt2", "bpe-llama3", "bpe-qwen2", "bpe-smollm2", "bpe-digits"};

/* cases.txt: each line a text (? none), what its tokens stand for (= the text), and the tokens. */
static void tokenizers(void)
{
    static contents file;
    static char text[MOST + 8], expected[MOST + 8], found[MOST + 8];
    static int token[MOST];
    for (int i = 0; i < 5; i++) {
        ttmm_tokenizer *k;
        int line = 0;
        get(&file, at(HERE, form[i], "cases.txt"));
        if (!DONE(ttmm_tokenizer_read(&k, at(HERE, form[i], ""), &err))) continue;
        CHECK(k != NULL);
        for (char *p = file.at, *end; (end = strchr(p, '\n')) != NULL; p = end + 1) {
            char where[60];
            size_t n = 0, found_n;
            *end = 0;
            snprintf(where, sizeof where, "%s, case %d", form[i], ++line);
            char *to = strchr(p, ' ') + 1, *id = to + strcspn(to, " ");
            while (*id) {
                const int t = (int)strtol(id, &id, 10);
                for (long times = *id == '*' ? strtol(id + 1, &id, 10) : 1; times > 0 && n < MOST; times--)
                    token[n++] = t;
            }
            const size_t bytes = *p == '?' ? 0 : from_hex(text, p);
            if (*p != '?') {
                int *tokens = NULL;
                char *copy = malloc(bytes + 1); /* a block of its own, so that reading outside is seen */
                memcpy(copy, text, bytes);
                if (GIVES(where, ttmm_tokenize(&tokens, &found_n, k, copy, bytes, &err), TTMM_OK, "", ""))
                    same_numbers(where, tokens, found_n, token, n);
                free(tokens), free(copy);
            }
            const size_t m = *to == '=' ? bytes : from_hex(expected, to);
            found_n = decode(found, k, token, n);
            same_text(where, found, found_n, *to == '=' ? text : expected, m);
        }
        CHECK(line > 100);
        ttmm_tokenizer_free(k);
    }
}

/* Bytes that are not UTF-8, among others, come back from the tokens as they were. */
static void ill_formed(void)
{
    static const char *const text[] = {"\xff\xfe",
                                       "caf\xc3",
                                       "\xed\xa0\x80x",
                                       "\xf4\x90\x80\x80",
                                       "a\x80\x81 b\xbf.",
                                       "e\xcc",
                                       "\xc3(1",
                                       " \xe2\x82 \xe2\x82",
                                       "'\xf0\x9f\x99\n\xf0\x9f\x99\n",
                                       "\xc0\xaf"};
    for (int i = 0; i < 4; i++) {
        ttmm_tokenizer *k = NULL;
        if (i < 3 && !DONE(ttmm_tokenizer_read(&k, at(HERE, form[i], ""), &err))) continue;
        for (size_t t = 0; t < sizeof text / sizeof *text; t++) {
            const size_t bytes = strlen(text[t]);
            size_t n, m = 0, same = 0;
            int *token = NULL, byte[64];
            if (DONE(ttmm_tokenize(&token, &n, k, text[t], bytes, &err)) && all_bytes(NULL, k, token, n) < 64)
                m = all_bytes(byte, k, token, n);
            size_t from = m > bytes && byte[0] == TTMM_END; /* what a template puts there */
            while (same < bytes && from + same < m && byte[from + same] == (unsigned char)text[t][same]) same++;
            CHECK(same == bytes && m == from + bytes);
            free(token);
        }
        ttmm_tokenizer_free(k);
    }
}

/* An added token is looked for in its NFC and stands for its content as it is spelled, as in tokenizers 0.22. NFC makes
 * three of U+1D160, of twelve bytes. */
static void added_tokens(void)
{
    static const char *const hex[][2] = {{"7a65cc817a ", "7ac3a97a "},
                                         {"f09d85a0*1000 ", "f09d8598f09d85a5f09d85ae*1000 "}};
    static const char end[] = "],\"normalizer\"";
    static contents config, file;
    static char text[MOST], content[MOST], found[MOST + 8], json_file[1 << 17];
    const char *folder = at(FOLDER, "added", "");
    get(&config, HERE "/bpe-qwen2/config.json"), get(&file, HERE "/bpe-qwen2/tokenizer.json");
    DONE(ttmm_make_folder(folder, &err)), put(at(FOLDER, "added", "config.json"), config.at, config.n);
    const char *rest = strstr(file.at, end);
    for (int i = 0; i < 2; i++) {
        ttmm_tokenizer *k;
        const int id = 423; /* one more than there are; 430, as the file says, is not asked for */
        const size_t n = from_hex(content, hex[i][0]);
        const int length = snprintf(json_file, sizeof json_file,
                                    "%.*s,{\"id\":%d,\"normalized\":true,\"content\":\"%.*s\"}%s",
                                    (int)(rest - file.at), file.at, i ? 430 : id, (int)n, content, rest);
        put(at(FOLDER, "added", "tokenizer.json"), json_file, (size_t)length);
        if (!DONE(ttmm_tokenizer_read(&k, folder, &err))) continue;
        for (int nfc = 0; nfc < 2; nfc++) {
            const size_t bytes = from_hex(text, hex[i][nfc]);
            int *token = NULL;
            size_t tokens = 0;
            DONE(ttmm_tokenize(&token, &tokens, k, text, bytes, &err));
            same_numbers(hex[i][nfc], token, tokens, &id, 1);
            free(token);
        }
        same_text(hex[i][0], found, decode(found, k, &id, 1), content, n);
        ttmm_tokenizer_free(k);
    }
}

static int read_and_tokenize(const char *folder, const char *text)
{
    ttmm_tokenizer *k;
    int *token = NULL, code = ttmm_tokenizer_read(&k, folder, &err);
    size_t n;
    if (code) return code;
    code = ttmm_tokenize(&token, &n, k, text, strlen(text), &err);
    ttmm_tokenizer_free(k), free(token);
    return code;
}

/* What is wrong with a few tokens is said of the texts that hold them; other texts are read. What transformers does with
 * them was seen with transformers 5.12.1: it gives new ids to tokens that only other files name, or strips blanks. */
static void tokens_in_texts(void)
{
#define BEGIN "<|begin_of_text|>"
#define FLAGS(lstrip, normalized) \
    "{\"content\":\"" BEGIN "\",\"lstrip\":" lstrip ",\"normalized\":" normalized ",\"special\":true}"
    static const struct {
        const char *file, *content, *text,
            *named; /* the file and what is in it; a text, what its refusal names or NULL */
    } table[] = {
        {"tokenizer_config.json", "{\"pad_token\":\"<pad>\"}", "a <pad>", "<pad>"},
        {"tokenizer_config.json", "{\"pad_token\":\"<pad>\",\"eos_token\":\"<|eot_id|>\"}", "a <pa <|eot_id|>", 0},
        {"tokenizer_config.json", "{\"image_token\":\"\\u003cx>\"}", "a<x>", "<x>"},
        {"tokenizer_config.json", "{\"bos_token\":{\"__type\":\"AddedToken\",\"content\":\"<x>\"}}", "a<x>", "<x>"},
        {"tokenizer_config.json", "{\"add_bos_token\":true,\"chat_template\":\"a\",\"pad_token\":null}", "a", 0},
        {"tokenizer_config.json", "{\"additional_special_tokens\":[\"<x>\",{\"content\":\"<y>\"}]}", "<y>", "<y>"},
        {"tokenizer_config.json", "{\"extra_special_tokens\":[\"<x>\"]}", "<x>", "<x>"},
        {"tokenizer_config.json", "{\"extra_special_tokens\":{\"image\":\"<x>\"}}", "<x>", "<x>"},
        {"tokenizer_config.json", "{\"extra_special_tokens\":{\"<x>\":\"<y>\"}}", "<x>", 0},
        {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"500\":{\"content\":\"<x>\"}}}", "<x>", "<x>"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"0\":" FLAGS("true", "false") "}}", "a " BEGIN, BEGIN},
        {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"0\":" FLAGS("false", "true") "}}", BEGIN, BEGIN},
        {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"0\":" FLAGS("false", "false") "}}", BEGIN, 0},
        {"tokenizer_config.json", "{\"pad_token\":\"he\"}", "the", "he"}, /* is in the vocabulary, and would cut */
        {"tokenizer_config.json", "{\"split_special_tokens\":true}", "a", "split_special_tokens"},
        {"tokenizer_config.json", "{\"split_special_tokens\":false}", "a", 0},
        {"special_tokens_map.json", "{\"unk_token\":\"<x>\",\"extra_special_tokens\":[\"<y>\"]}", "a<y>", "<y>"},
        {"added_tokens.json", "{\"<x>\":500}", "a<x>", "<x>"},
        {"added_tokens.json", "{\"<x>\":500}", "a<500", 0},
    };
    static contents config, file;
    const char *folder = at(FOLDER, "beside", "");
    get(&config, HERE "/bpe-llama3/config.json"), get(&file, HERE "/bpe-llama3/tokenizer.json");
    DONE(ttmm_make_folder(folder, &err)), put(at(FOLDER, "beside", "config.json"), config.at, config.n);
    put(at(FOLDER, "beside", "tokenizer.json"), file.at, file.n);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *named = table[i].named, *path = at(FOLDER, "beside", table[i].file);
        put(path, table[i].content, strlen(table[i].content));
        GIVES(table[i].content, read_and_tokenize(folder, table[i].text), named ? TTMM_BAD_INPUT : TTMM_OK,
              named ? named : "", "");
        if (named && named[0] != 's') DONE(read_and_tokenize(folder, "a")); /* other texts are read */
        remove(path);
    }
    static const char lists[] = "{\"added_tokens_decoder\":{}}", map[] = "{\"unk_token\":\"<x>\"}";
    put(at(FOLDER, "beside", "tokenizer_config.json"), lists, strlen(lists)); /* with it the other does not count */
    put(at(FOLDER, "beside", "special_tokens_map.json"), map, strlen(map));
    DONE(read_and_tokenize(folder, "<x>"));
}

static int number_of(const contents *c, const char *key) /* in JSON */
{
    const char *p = strstr(c->at, key);
    return p ? atoi(p + strlen(key) + 2) : -1;
}

/* A document is its text's tokens, with the template's, and the model's end token. */
static void corpus_of_tokens(void)
{
    static const char *const document[] = {"the cat's 12345\n", "caf\xc3\xa9 \xed\x95\x9c\n"};
    char text[100];
    const char *path = at(FOLDER, "two.txt", "");
    snprintf(text, sizeof text, "%s<|endoftext|>\n%s", document[0], document[1]);
    put(path, text, strlen(text));
    for (int i = 0; i < 3; i++) {
        static contents config;
        ttmm_tokenizer *k;
        ttmm_corpus c;
        if (!DONE(ttmm_tokenizer_read(&k, at(HERE, form[i], ""), &err))) continue;
        get(&config, at(HERE, form[i], "config.json"));
        if (DONE(ttmm_corpus_from_files(&c, k, &path, 1, 1000, &err))) {
            CHECK(c.n_documents == 2 && c.n_sequences == 2);
            for (size_t d = 0; d < 2 && c.n_documents == 2; d++) {
                int *token, expected[100];
                size_t n;
                DONE(ttmm_tokenize(&token, &n, k, document[d], strlen(document[d]), &err));
                memcpy(expected, token, n * sizeof *token), expected[n] = number_of(&config, "eos_token_id");
                same_numbers(form[i], c.token + c.document[d], c.document[d + 1] - c.document[d], expected, n + 1);
                free(token);
            }
            ttmm_corpus_free(&c);
        }
        const ptrdiff_t begin = i == 1 ? 415 : -1; /* <|begin_of_text|>: of a document, so of its first piece alone */
        if (DONE(ttmm_corpus_from_files(&c, k, &path, 1, 4, &err))) {
            CHECK(c.n_documents == 2 && c.n_sequences > 4);
            for (size_t s = 0; s < c.n_sequences; s++) {
                const size_t at_document = c.document[c.sequence_document[s]] == c.sequence[s];
                for (size_t t = c.sequence[s]; t < c.sequence[s + 1]; t++)
                    CHECK((c.token[t] == begin) == (begin >= 0 && at_document && t == c.sequence[s]));
            }
            ttmm_corpus_free(&c);
        }
        ttmm_tokenizer_free(k);
    }
}

/* Without a tokenizer, and with the tokenizer.json written for the byte vocabulary: bytes, and the end token. */
static void byte_vocabulary(void)
{
    static const ttmm_config c = {2, 1, 1, 1, 2, 2, TTMM_BYTES, 8, 1, 1e-5, 1e4, .n_ends = 1, .end = {TTMM_END}};
    static const char end[] = "<|endoftext|>";
    ttmm_tokenizer *k[2] = {NULL, NULL};
    ttmm_model m;
    char text[700];
    int expected[700], *token;
    size_t n = 0, bytes = 0;
    for (int i = 0; i < 3; i++) { /* all bytes, the end token, all bytes backwards, a part of it, twice */
        for (int b = 0; b < 256 && i < 2; b++) expected[n++] = (unsigned char)(text[bytes++] = (char)(i ? 255 - b : b));
        if (i == 1)
            for (int b = 0; b < 12; b++) expected[n++] = text[bytes++] = end[b];
        memcpy(text + bytes, end, 13), bytes += 13, expected[n++] = TTMM_END;
    }
    memcpy(text + bytes, end, 13), bytes += 13, expected[n++] = TTMM_END;
    if (DONE(ttmm_model_new(&m, &c, &err))) DONE(ttmm_model_write(&m, at(FOLDER, "bytes", ""), TTMM_F16, "", &err));
    DONE(ttmm_tokenizer_read(&k[1], at(FOLDER, "bytes", ""), &err));
    for (int i = 0; i < 2; i++) {
        size_t count;
        int byte[700];
        if (!DONE(ttmm_tokenize(&token, &count, k[i], text, bytes, &err))) continue;
        same_numbers(i ? "read" : "NULL", token, count, expected, n);
        CHECK_EQUAL(all_bytes(byte, k[i], expected, n), n);
        same_numbers(i ? "read" : "NULL", byte, n, expected, n);
        free(token);
        if (DONE(ttmm_tokenize(&token, &count, k[i], "", 0, &err))) free(token);
        CHECK_EQUAL(count, 0);
        for (int t = -2; t < 600; t++) {
            const unsigned char *found = ttmm_token_bytes(k[i], t, &count);
            CHECK(t >= 0 && t < TTMM_END ? count == 1 && *found == t : count == 0);
        }
    }
    ttmm_tokenizer_free(k[1]), ttmm_model_free(&m);
    CHECK(DONE(ttmm_make_folder(at(FOLDER, "empty", ""), &err)) &&
          DONE(ttmm_tokenizer_read(&k[0], at(FOLDER, "empty", ""), &err)) && k[0] == NULL);
    GIVES("none", ttmm_tokenizer_read(&k[0], HERE "/llama3", &err), TTMM_BAD_INPUT, "llama3/tokenizer.json", "");
}

/* Bytes and what comes of them, ? for U+FFFD: the tables 3-8 to 3-11 of Unicode 16, section 3.9, and more. */
static void utf8_as_it_comes(void)
{
    static const struct {
        const char *bytes, *expected;
    } table[] = {{"", ""},
                 {"a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x99\x82z", "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x99\x82z"},
                 {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", "????????A"},
                 {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", "????????A"},
                 {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", "?????A??B"},
                 {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "????A"},
                 {"\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64", "a???b?c??d"},
                 {"\x80", "?"},
                 {"\xbf\xbf", "??"},
                 {"\xc3", "?"},
                 {"\xc1\xbf", "??"},
                 {"\xc2\x7f", "?\x7f"},
                 {"\xc2\xc2\xa9", "?\xc2\xa9"},
                 {"\xe2\x82", "?"},
                 {"\xe2\x82"
                  "A",
                  "?A"},
                 {"\xe2"
                  "A\x82",
                  "?A?"},
                 {"\xe2\x82\xe2\x82\xac", "?\xe2\x82\xac"},
                 {"\xe0\x9f\xbf", "???"},
                 {"\xe0\xa0", "?"},
                 {"\xe0\xa0\x80", "\xe0\xa0\x80"},
                 {"\xed\x9f\xbf\xed\xa0", "\xed\x9f\xbf??"},
                 {"\xee\x80\x80\xef\xbf\xbf", "\xee\x80\x80\xef\xbf\xbf"},
                 {"\xf0\x8f\xbf\xbf", "????"},
                 {"\xf0\x90\x80\x80", "\xf0\x90\x80\x80"},
                 {"\xf0\x90\x80", "?"},
                 {"\xf0\x90\xf0\x90\x80\x80", "?\xf0\x90\x80\x80"},
                 {"\xf0\x9f\x99\xc3\xa9", "?\xc3\xa9"},
                 {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},
                 {"\xf4\x90\x80\x80", "????"},
                 {"\xf5\x80\x80\x80", "????"},
                 {"\xf8\x88\x80\x80\x80", "?????"},
                 {"\xfe\xff", "??"}};
    long wrong = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char out[100], expected[100], what[20];
        size_t n = 0, m = 0, k = 0;
        ttmm_utf8 waiting = {{0}, 0};
        for (const char *p = table[i].bytes; *p; p++) n += ttmm_put_utf8(out + n, &waiting, (unsigned char)*p);
        n += ttmm_put_utf8(out + n, &waiting, -1);
        for (; table[i].expected[k]; k++) {
            const int bad = table[i].expected[k] == '?';
            memcpy(expected + m, bad ? "\xef\xbf\xbd" : table[i].expected + k, bad ? 3 : 1), m += bad ? 3 : 1;
        }
        snprintf(what, sizeof what, "sequence %zu", i);
        same_text(what, out, n, expected, m);
    }
    for (uint32_t c = 0; c < 0x110000; c++) { /* every character, as soon as its last byte is there */
        const size_t length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const unsigned first[5] = {0, 0, 0xc0, 0xe0, 0xf0};
        char byte[4], out[8];
        ttmm_utf8 waiting = {{0}, 0};
        for (size_t i = 0; i < length; i++)
            byte[i] = (char)((i ? 0x80 : first[length]) |
                             (c >> 6 * (length - 1 - i) & (i || length == 1 ? 0x7f : 0x3f)));
        for (size_t i = 1; i < length; i++) byte[i] = (char)((byte[i] & 0x3f) | 0x80);
        for (size_t i = 0; i < length && (c < 0xd800 || c > 0xdfff); i++)
            wrong += ttmm_put_utf8(out, &waiting, (unsigned char)byte[i]) != (i + 1 < length ? 0 : length);
        if (c < 0xd800 || c > 0xdfff) wrong += memcmp(out, byte, length) != 0 || ttmm_put_utf8(out, &waiting, -1) != 0;
    }
    CHECK_EQUAL(wrong, 0);
}

/* ---- What is refused --------------------------------------------------------------------------------------------- */

/* A text with the first `from` replaced by `to`, where ' stands for " in both; good until the next call. */
static const char *edited(const char *text, const char *from, const char *to)
{
    static char out[1 << 16], part[2][600];
    for (int i = 0; i < 2; i++) {
        snprintf(part[i], sizeof part[i], "%s", i ? to : from);
        for (char *p = part[i]; *p; p++) *p = *p == '\'' ? '"' : *p;
    }
    const char *place = strstr(text, part[0]);
    if (place == NULL) test_failed(__FILE__, __LINE__, from, "in the text", "not");
    snprintf(out, sizeof out, "%.*s%s%s", place ? (int)(place - text) : 0, text, part[1],
             place ? place + strlen(part[0]) : "");
    return out;
}

typedef struct {
    const char *from, *to, *named; /* NULL: it is accepted */
} change;

static int read_model(void)
{
    ttmm_model m;
    const int code = ttmm_model_read(&m, at(FOLDER, "model", ""), &err);
    if (code == TTMM_OK) ttmm_model_free(&m);
    return code;
}

static int read_a_tokenizer(void)
{
    ttmm_tokenizer *k;
    const int code = ttmm_tokenizer_read(&k, at(FOLDER, "model", ""), &err);
    if (code == TTMM_OK) ttmm_tokenizer_free(k);
    return code;
}

static void apply(const char *file, const char *text, const change *c, size_t n, int (*read)(void))
{
    const char *path = at(FOLDER, "model", file);
    put(path, text, strlen(text));
    GIVES("as it is", read(), TTMM_OK, "", "");
    for (size_t i = 0; i < n; i++) {
        const char *changed = edited(text, c[i].from, c[i].to);
        put(path, changed, strlen(changed));
        GIVES(c[i].to, read(), c[i].named ? TTMM_BAD_INPUT : TTMM_OK, c[i].named ? path : "",
              c[i].named ? c[i].named : "");
    }
    put(path, text, strlen(text));
}

#define APPLY(file, text, list, read) apply(file, text, list, sizeof list / sizeof *list, read)

static void models_refused(void)
{
    static const change both[] = {
        {"{", "{'quantization_config': {'quant_method': 'awq', 'bits': 4},", "quantization_config"},
        {"'silu'", "'gelu'", "hidden_act"},
        {"{", "{'partial_rotary_factor': 0.5,", "partial_rotary_factor"},
        {"{", "{'eos_token_ids': [1, [2, {}]], 'auto_map': {'x': null}, 'is_composition': true, 'pad_token_id': -1,",
         0},
        {"{", "{'quantization_config': null, 'partial_rotary_factor': 1.0, 'NaN': [NaN, Infinity, -Infinity],", 0},
        {"'eos_token_id':", "'eos_token_id': '</s>', 'was':", "eos_token_id is \"</s>\", expected a token id"},
        {"{", "{'hidden_act': 'silu',", "has the key \"hidden_act\" twice"},
        {"'hidden_act'", "'hidden\\u005fact'", 0},
        {"{", "{'quantization_config': {\n  'bits': 4,\n  'group_size': 128, 'version': 'gemm', 'zero_point': true},",
         "quantization_config is { \"bits\": 4, \"group_size\": 128, \"version\": \"gemm\", \"zero_poi..., expected "
         "null"},
        {"'rms_norm_eps': 1", "'rms_norm_eps': NaN, 'was': 1", "rms_norm_eps is NaN, expected a number"},
        {"'eos_token_id':", "'eos_token_id': [1, -2], 'was':", "eos_token_id"},
        {"'eos_token_id':", "'eos_token_id': [1, 2, 3, 4, 5, 6, 7, 8], 'was':", 0},
        {"'eos_token_id':", "'eos_token_id': [1, 2, 3, 4, 5, 6, 7, 8, 9], 'was':", "eos_token_id"},
        {"'eos_token_id':", "'eos_token_id': null, 'was':", 0},
    };
    static const change qwen2[] = {
        {"'qwen2'", "'mistral'", "model_type"},
        {"'qwen2'", "'qwen3'", "model_type"},
        {"'qwen2'", "'qwen2_moe'", "model_type"},
        {"{", "{'rope_parameters': {'rope_type': 'yarn', 'factor': 4.0, 'rope_theta': 1e4},", "rope_type"},
        {"{", "{'rope_parameters': {'partial_rotary_factor': 0.5},", "partial_rotary_factor"},
        {"{", "{'rope_scaling': {'type': 'yarn', 'factor': 4.0},", "rope_type"},
        {"{", "{'rope_scaling': {'rope_type': 'dynamic', 'factor': 4.0},", "rope_type"},
        {"{", "{'rope_scaling': {'rope_type': 'longrope', 'short_factor': [1], 'long_factor': [2]},", "rope_type"},
        {"{", "{'rope_scaling': {'type': 'mrope', 'mrope_section': [1]},", "rope_type"},
        {"{", "{'rope_scaling': {'type': 'linear', 'factor': 4.0},", 0},
        {"{", "{'rope_scaling': {'type': 'linear'},", "factor"},
        {"{", "{'rope_scaling': {'rope_type': 'linear', 'factor': 0},", "factor"},
        {"{", "{'rope_scaling': {'rope_type': 'linear', 'factor': -2.0},", "factor"},
        {"{", "{'rope_scaling': {'rope_type': 'linear', 'factor': '2'},", "factor"},
        {"{", "{'rope_scaling': {'rope_type': 'default'},", 0},
        {"{", "{'rope_scaling': 2.0,", "rope_scaling"},
        {"'use_sliding_window': false", "'use_sliding_window': true", 0}, /* from layer 2 on, and there are two */
        {"'max_window_layers': 2", "'max_window_layers': 0", 0},          /* but they are not used */
        {"{", "{'layer_types': ['full_attention', 'full_attention'],", 0},
        {"{", "{'layer_types': ['full_attention', 'sliding_attention'],", "layer_types"},
        {"{", "{'is_causal': false,", "is_causal is false, expected true"},
        {"{", "{'is_causal': null,", 0},
        {"{", "{'transformers_weights': 'other.safetensors',", "transformers_weights"},
        {"{", "{'configuration_files': ['config.4.0.0.json'],", "configuration_files"},
        {"{", "{'configuration_files': [],", 0},
    };
    static const change slides[] = {{"'use_sliding_window': false", "'use_sliding_window': true", "sliding_window"}};
    static const change does_not[] = {{"'use_sliding_window': false", "'use_sliding_window': true", 0}};
    static const change llama[] = {
        {"'llama'", "'mistral'", "model_type"},
        {"'attention_bias': false", "'attention_bias': true", "attention_bias"},
        {"'mlp_bias': false", "'mlp_bias': true", "mlp_bias"},
        {"'low_freq_factor': 1.0,", "", "low_freq_factor"},
        {"'high_freq_factor': 4.0,", "", "high_freq_factor"},
        {"'high_freq_factor': 4.0,", "'high_freq_factor': 1.0,", "high_freq_factor"},
        {"'factor': 8.0,", "", "factor"},
        {"'factor': 8.0,", "'factor': 0,", "factor"},
        {"'factor': 8.0,", "'factor': -8.0,", "factor"},
        {"'original_max_position_embeddings': 64", "'original_max_position_embeddings': 0",
         "original_max_position_embeddings"},
        {"'rope_type': 'llama3'", "'rope_type': 'yarn'", "rope_type"},
        {"{", "{'sliding_window': 8,", "sliding_window is 8, expected null"},
        {"{", "{'sliding_window': 131072, 'attention_chunk_size': false,", 0},
        {"{", "{'attention_chunk_size': 8,", "attention_chunk_size is 8, expected null"},
        {"{", "{'sliding_window': 8, 'layer_types': ['full_attention', 'full_attention'],", 0},
    };
    static contents config, weights;
    const char *path = at(FOLDER, "model", "model.safetensors");
    DONE(ttmm_make_folder(at(FOLDER, "model", ""), &err));
    get(&config, HERE "/llama3/config.json"), get(&weights, HERE "/llama3/model.safetensors");
    put(at(FOLDER, "model", "model.safetensors"), weights.at, weights.n);
    APPLY("config.json", config.at, both, read_model), APPLY("config.json", config.at, llama, read_model);
    get(&config, HERE "/qwen2/config.json"), get(&weights, HERE "/qwen2/model.safetensors");
    put(at(FOLDER, "model", "model.safetensors"), weights.at, weights.n);
    APPLY("config.json", config.at, both, read_model), APPLY("config.json", config.at, qwen2, read_model);
    snprintf(config.at, sizeof config.at, "%s", edited(config.at, "'max_window_layers': 2", "'max_window_layers': 1"));
    APPLY("config.json", config.at, slides, read_model);
    const char *absent = edited(config.at, "'sliding_window': 64,", ""); /* 4096 */
    static contents without;
    snprintf(without.at, sizeof without.at, "%s", absent);
    APPLY("config.json", without.at, slides, read_model);
    snprintf(config.at, sizeof config.at, "%s", edited(config.at, "'sliding_window': 64", "'sliding_window': null"));
    APPLY("config.json", config.at, does_not, read_model);
    for (char *p = weights.at; p < weights.at + weights.n - 30; p++)
        if (memcmp(p, "1.self_attn.k_proj.bias", 23) == 0) p[22] = 'z'; /* ... .biaz */
    put(path, weights.at, weights.n);
    GIVES("bias", read_model(), TTMM_BAD_INPUT, path, "model.layers.1.self_attn.k_proj.bias");
}

/* Which of two layers' seven matrices an adapter of all of them touches: config, then a letter for each matrix that has
 * a rank: qkvogud in layer 0, QKVOGUD in 1; or what the sentence says. */
static void adapters(void)
{
    static const char *const cases[][2] = {
        {"'target_modules': ['q_proj']", "qQ"},
        {"'target_modules': null", "qvQV"},
        {"'odd': [NaN]", "qvQV"},
        {"'target_modules': 'all-linear'", "qkvogudQKVOGUD"},
        {"'target_modules': ['roj', '_proj', 'xq_proj', '', 5, 'lm_head', 'self_attn.o_proj']", "oO"},
        {"'target_modules': ['\\u0071_proj', 'model.layers.1.mlp.up_proj', 'layers.0.mlp.gate_proj']", "qgQU"},
        {"'target_modules': ['q_proj', 'model.layers.1.mlp.up_proj'], 'layers_to_transform': [0]", "qU"},
        {"'target_modules': ['q_proj'], 'layers_to_transform': 1, 'layers_pattern': 'layers'", "Q"},
        {"'target_modules': ['q_proj', 'k_proj'], 'layers_to_transform': [], 'layers_pattern': []", "qkQK"},
        {"'layers_to_transform': [3, 1]", "QV"},
        {"'target_modules': 'all-linear', 'exclude_modules': ['mlp.up_proj', 'layers.0.self_attn.q_proj']",
         "kvogdQKVOGD"},
        {"'target_modules': ['q_proj'], 'init_lora_weights': 'gaussian', 'velora_config': {}, 'new_key': [1]", "qQ"},
        {"'target_modules': ['q_proj'], 'init_lora_weights': 'eva', 'eva_config': {'rho': 2}", "qQ"},
        {"'target_modules': ['q_proj'], 'init_lora_weights': 'orthogonal', 'modules_to_save': []", "qQ"},
        {"'target_modules': ['q_proj'], 'init_lora_weights': false", "qQ"},
        {"'init_lora_weights': 'pissa'", "init_lora_weights is \"pissa\""},
        {"'init_lora_weights': 'pissa_niter_16'", "init_lora_weights is \"pissa_niter_16\""},
        {"'init_lora_weights': 'olora'", "init_lora_weights is \"olora\""},
        {"'init_lora_weights': 'corda'", "init_lora_weights is \"corda\""},
        {"'init_lora_weights': 'loftq'", "init_lora_weights is \"loftq\""},
        {"'init_lora_weights': 'lora_ga'", "init_lora_weights is \"lora_ga\""},
        {"'init_lora_weights': 'to_come'", "init_lora_weights is \"to_come\""},
        {"'init_lora_weights': 1", "init_lora_weights is 1"},
        {"'target_modules': '.*q_proj'", "target_modules is \".*q_proj\""},
        {"'target_modules': []", "none of its tensors"},
        {"'target_modules': ['lm_head']", "none of its tensors"},
        {"'layers_to_transform': 2", "none of its tensors"},
        {"'layers_to_transform': '1'", "layers_to_transform"},
        {"'layers_pattern': 'h'", "layers_pattern"},
        {"'exclude_modules': '.*up.*'", "exclude_modules"},
        {"'modules_to_save': ['embed_tokens']", "modules_to_save is [\"embed_tokens\"]"},
        {"'kasa_config': {}", "kasa_config"},
        {"'use_bdlora': {'nblocks': 2}", "use_bdlora"},
        {"'monteclora_config': {}", "monteclora_config"},
        {"'trainable_token_indices': [3]", "trainable_token_indices"},
        {"'target_parameters': ['x']", "target_parameters"},
        {"'r': 1", "has the key \"r\" twice"},
    };
    static const char letter[] = "qkvogud", upper[] = "QKVOGUD";
    static ttmm_array array[64];
    static char text[600];
    const char *path = at(FOLDER, "adapter", "adapter_model.safetensors");
    ttmm_model m;
    ttmm_lora all, l;
    if (!DONE(ttmm_model_read(&m, HERE "/llama3", &err)) || !DONE(ttmm_lora_new(&all, &m.config, 1, 2, &err))) return;
    test_fill(all.data, all.n, "adapter", 0);
    DONE(ttmm_lora_write(&all, at(FOLDER, "adapter", ""), "", &err));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char touched[20] = "";
        size_t n = (size_t)snprintf(text, sizeof text, "{'r': 1, 'lora_alpha': 2, %s}", cases[i][0]), found = 0;
        for (char *p = text; *p; p++) *p = *p == '\'' ? '"' : *p;
        put(at(FOLDER, "adapter", "adapter_config.json"), text, n);
        const int good = strchr(cases[i][1], ' ') == NULL && strchr(cases[i][1], '_') == NULL;
        const char *folder = at(FOLDER, "adapter", "");
        if (!GIVES(cases[i][0], ttmm_lora_read(&l, &m.config, folder, &err), good ? TTMM_OK : TTMM_BAD_INPUT,
                   good ? "" : "adapter_config.json: ", good ? "" : cases[i][1]) ||
            !good)
            continue;
        for (int k = 0; k < 14; k++)
            if (l.matrix[k].rank) touched[found++] = k < 7 ? letter[k] : upper[k - 7];
        same_text(cases[i][0], touched, found, cases[i][1], strlen(cases[i][1]));
        ttmm_lora_free(&l);
    }
    const char *config =
        "{\"r\": 1, \"lora_alpha\": 2, \"init_lora_weights\": false, \"target_modules\": \"all-linear\"}";
    put(at(FOLDER, "adapter", "adapter_config.json"), config, strlen(config));
    const size_t n = ttmm_lora_tensors(&all);
    for (int how = 0; how < 4; how++) { /* PEFT's names in memory; both; of a deeper model; without one's tensors */
        static const char *const named[] = {"", "twice", "layer 2, the model has layers 0 to 1",
                                            "layers.1.mlp.down_proj"};
        for (size_t i = 0; i < n; i++) array[i] = ttmm_lora_tensor_at(&all, i);
        for (size_t i = 0; i < n && how == 0; i++) {
            char *end = strstr(array[i].name, ".weight");
            snprintf(end, 20, ".default.weight");
        }
        array[n] = array[0];
        snprintf(array[n].name, sizeof array[n].name,
                 "base_model.model.model.layers.%d.self_attn.q_proj.lora_A%s.weight", how == 2 ? 2 : 0,
                 how == 2 ? "" : ".default");
        DONE(ttmm_arrays_write(array, how == 3 ? n - 2 : how == 0 ? n : n + 1, path, "", &err));
        if (!GIVES("names", ttmm_lora_read(&l, &m.config, at(FOLDER, "adapter", ""), &err),
                   how ? TTMM_BAD_INPUT : TTMM_OK, named[how], "") ||
            how)
            continue;
        CHECK(l.n == all.n && memcmp(l.data, all.data, l.n * sizeof(real)) == 0);
        ttmm_lora_free(&l);
    }
    ttmm_lora_free(&all), ttmm_model_free(&m);
}

/* What config.json and generation_config.json say, and what is noted of it. */
static void settings(void)
{
    static const struct {
        const char *from, *to, *generation; /* of llama3's; NULL: there is none */
        int n_ends, first, bos, pad;
        double before;
        const char *note;
    } cases[] = {
        {"{", "{", NULL, 3, 20, 20, 0, 64, ""},
        {"{", "{'pad_token_id': 5,", "{'eos_token_id': 7, 'pad_token_id': 1}", 1, 7, 20, 6, 64, ""},
        {"'bos_token_id': 19", "'bos_token_id': null, 'pad_token_id': -1", NULL, 3, 20, 0, 0, 64, ""},
        {"'bos_token_id': 19,", "", NULL, 3, 20, -1, 0, 64, ""},
        {"{", "{'original_max_position_embeddings': 32,", NULL, 3, 20, 20, 0, 32, ""},
        {"'original_max_position_embeddings': 64,", "", NULL, 3, 20, 20, 0, 512, ""},
        {"'rope_scaling': {", "'rope_scaling': {}, 'rope_parameters': {", NULL, 3, 20, 20, 0, 64, ""},
        {"{", "{'temperature': 0.5,", NULL, 3, 20, 20, 0, 64, "passed over: temperature 0.5"},
        {"{", "{",
         "{'eos_token_id': [99, 3, 23], 'top_k': 20, 'top_p': null, 'use_cache': true,\n\t'bad_words_ids': [[1,\n 2]]}",
         1, 3, 20, 0, 64,
         "passed over: top_k 20, bad_words_ids [[1, 2]]; eos_token_id 99 is past the vocabulary, 23, and ignored; "
         "eos_token_id 23 is past the vocabulary, 23, and ignored"},
        {"{", "{", "{'eos_token_id': 99}", 0, 0, 20, 0, 64, "eos_token_id 99 is past the vocabulary, 23, and ignored"},
        {"{", "{", "{'\\u0065os_token_id': 3}", 1, 3, 20, 0, 64, ""},
        {"{", "{", "{}", 3, 20, 20, 0, 64, "no eos_token_id: that of config.json counts"},
    };
    static contents config;
    char note[600];
    get(&config, HERE "/llama3/config.json");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ttmm_config c;
        const char *text = edited(config.at, cases[i].from, cases[i].to), *name = "generation_config.json";
        static char changed[1 << 16];
        snprintf(changed, sizeof changed, "%s", text);
        put(at(FOLDER, "model", "config.json"), changed, strlen(changed));
        remove(at(FOLDER, "model", name));
        if (cases[i].generation) {
            text = edited(cases[i].generation, "", "");
            snprintf(changed, sizeof changed, "%s", text);
            for (char *p = changed; *p; p++) *p = *p == '\'' ? '"' : *p;
            put(at(FOLDER, "model", name), changed, strlen(changed));
        }
        if (!DONE(ttmm_config_read(&c, at(FOLDER, "model", ""), &err))) continue;
        CHECK_EQUAL(c.n_ends, cases[i].n_ends), CHECK_EQUAL(c.bos, cases[i].bos), CHECK_EQUAL(c.pad, cases[i].pad);
        CHECK(c.rope_before == cases[i].before && (c.n_ends == 0 || c.end[0] == cases[i].first));
        DONE(ttmm_config_note(note, sizeof note, &c, at(FOLDER, "model", ""), &err));
        same_text(cases[i].to, note, strlen(note), cases[i].note, strlen(cases[i].note));
        for (size_t size = 1; size <= strlen(cases[i].note); size += 7) { /* cut where it must be */
            char *small = malloc(size);
            DONE(ttmm_config_note(small, size, &c, at(FOLDER, "model", ""), &err));
            CHECK(strlen(small) == size - 1 && strncmp(small, cases[i].note, size - 1) == 0);
            free(small);
        }
    }
    remove(at(FOLDER, "model", "generation_config.json"));
}

#define INSTEAD(key, value) "'" key "':", "'" key "':" value ",'was':" /* the object of that key is another */
#define MERGES "'merges':["

static void tokenizers_refused(void)
{
    static const change all[] = {
        {INSTEAD("pre_tokenizer", "{'type':'Whitespace'}"), "Whitespace"},
        {INSTEAD("pre_tokenizer", "{'type':'Metaspace','replacement':'_','prepend_scheme':'always'}"), "Metaspace"},
        {INSTEAD("pre_tokenizer", "null"), "pre_tokenizer"},
        {INSTEAD("pre_tokenizer", "{'type':'Digits','individual_digits':true}"), "Digits"},
        {INSTEAD("pre_tokenizer", "{'type':'Sequence','pretokenizers':[]}"), "ByteLevel"},
        {INSTEAD("pre_tokenizer", "{'type':'Sequence','pretokenizers':[{'type':'Digits','individual_digits':true}]}"),
         "Digits"},
        {INSTEAD("pre_tokenizer", "{'type':'Sequence','pretokenizers':[{'type':'ByteLevel','add_prefix_space':false},"
                                  "{'type':'Digits','individual_digits':true}]}"),
         "ByteLevel"},
        {INSTEAD("pre_tokenizer", "{'type':'Sequence','pretokenizers':[{'type':'Punctuation'},{'type':'ByteLevel',"
                                  "'add_prefix_space':false}]}"),
         "Punctuation"},
        {INSTEAD("normalizer", "{'type':'NFKC'}"), "NFKC"},
        {INSTEAD("normalizer", "{'type':'Lowercase'}"), "Lowercase"},
        {INSTEAD("normalizer", "{'type':'Sequence','normalizers':[{'type':'NFC'},{'type':'StripAccents'}]}"),
         "StripAccents"},
        {INSTEAD("normalizer", "{'type':'Sequence','normalizers':[{'type':'NFC'}]}"), 0},
        {INSTEAD("post_processor", "{'type':'BertProcessing','sep':['a',1],'cls':['b',2]}"), "BertProcessing"},
        {INSTEAD("post_processor", "{'type':'RobertaProcessing','sep':['a',1],'cls':['b',2],'trim_offsets':true,"
                                   "'add_prefix_space':false}"),
         "RobertaProcessing"},
        {INSTEAD("post_processor", "null"), 0},
        {INSTEAD("post_processor", "{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'<s>','type_id':0}},"
                                   "{'Sequence':{'id':'A','type_id':0}}],'special_tokens':{}}"),
         "<s>"},
        {INSTEAD("post_processor", "{'type':'TemplateProcessing','single':[{'Sequence':{'id':'A','type_id':0}},"
                                   "{'Sequence':{'id':'A','type_id':0}}],'special_tokens':{}}"),
         "the text several times"},
        {INSTEAD("post_processor",
                 "{'type':'Sequence','processors':[{'type':'TemplateProcessing','single':[{'Sequence':{'id':'A'}}],"
                 "'special_tokens':{}},{'type':'TemplateProcessing','single':[{'Sequence':{'id':'A'}}],"
                 "'special_tokens':{}}]}"),
         "a second template"},
        {INSTEAD("decoder", "null"), "decoder"},
        {INSTEAD("decoder", "{'type':'Sequence','decoders':[]}"), "decoder"},
        {INSTEAD("decoder", "{'type':'Sequence','decoders':[{'type':'ByteLevel'},{'type':'Fuse'}]}"), "Fuse"},
        {INSTEAD("decoder", "{'type':'Sequence','decoders':[{'type':'Strip','content':' ','start':1,'stop':0},"
                            "{'type':'ByteLevel'}]}"),
         "Strip"},
        {INSTEAD("decoder", "{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'_'},'content':' '},"
                            "{'type':'ByteLevel'}]}"),
         "Replace"},
        {INSTEAD("decoder", "{'type':'Sequence','decoders':[{'type':'ByteFallback'},{'type':'ByteLevel'}]}"), 0},
        {"'added_tokens':[", "'added_tokens':[{'id':0,'content':'<0x0A>'},", 0},
        {INSTEAD("decoder", "{'type':'Metaspace','replacement':'_','prepend_scheme':'always'}"), "Metaspace"},
        {"{", "{'odd':{'a':[1,2,{}]},'chat_template':'{{ }}',", 0},
        {"'vocab':", "'odd':null,'vocab':", 0},
        {"'truncation':null", "'truncation':{'direction':'Right','max_length':2,'strategy':'LongestFirst','stride':0}",
         0},
        {"'dropout':null", "'dropout':0.1", "dropout"},
        {"'dropout':null", "'dropout':0.0", 0},
        {"'continuing_subword_prefix':''", "'continuing_subword_prefix':'##'", "continuing_subword_prefix"},
        {"'end_of_word_suffix':''", "'end_of_word_suffix':'</w>'", "end_of_word_suffix"},
        {"'lstrip':false", "'lstrip':true", 0}, /* texts with that token are not read */
        {"'add_prefix_space':false", "'add_prefix_space':true", "add_prefix_space"},
        {"':255,", "':256,", "is that of another, too"},
        {"':255,", "':1000000,", "vocabulary"},
        {"':255,", "':-1,", "vocabulary"},
        {"':255,", "_':255,", "merge"},
    };
    static const change pairs[] = {
        {"'model':{'type':'BPE'", "'model':{'type':'WordPiece'", "WordPiece"},
        {"'model':{'type':'BPE'", "'model':{'type':'Unigram'", "Unigram"},
        {"'model':{'type':'BPE'", "'model':{'type':'WordLevel'", "WordLevel"},
        {"'byte_fallback':false", "'byte_fallback':true", 0},
        {"(?i:", "(?:", "pre_tokenizer"},
        {"\\\\p{N}", "\\\\p{N}{1,2}", "pre_tokenizer"},
        {"'behavior':'Isolated'", "'behavior':'Removed'", "Removed"},
        {"'invert':false", "'invert':true", "invert"},
        {"'use_regex':false", "'use_regex':true", 0},
        {MERGES, MERGES "['qq','z'],", "merge"},
        {MERGES, MERGES "['q','zz'],", "merge"},
        {MERGES, MERGES "['q','z'],", "merge"}, /* both are there, the two together are not */
        {MERGES, MERGES "['q'],", "merge"},
        {MERGES, MERGES "5,", "merge"},
    };
    static const change strings[] = {
        {"'model':{", "'model':{'type':'BPE','ignore_merges':false,", 0},
        {"'model':{", "'model':{'type':'WordPiece',", "WordPiece"},
        {"'pre_tokenizer':{", "'pre_tokenizer':{'use_regex':true,", 0},
        {"'vocab':", "'byte_fallback':true,'vocab':", 0},
        {"'vocab':{", "'byte_fallback':true,'vocab':{'<0x0A>':418,", "<0x0A>"},
        {MERGES, MERGES "'qq z',", "merge"},
        {MERGES, MERGES "'q z',", "merge"},
        {MERGES, MERGES "'qz',", "merge"},
        {MERGES, MERGES "'',", "merge"},
        {MERGES, MERGES "'#version: 0.2',", 0},
        {"':255,", "':415,", "the vocabulary has holes"},
    };
    static const struct { /* a decoder, and a token whose name it would alter */
        const char *from, *to;
        change token;
    } decoders[] = {
        {INSTEAD("decoder", "{'type':'Sequence','decoders':[{'type':'ByteFallback'},{'type':'ByteLevel'}]}"),
         {"'added_tokens':[", "'added_tokens':[{'id':0,'content':'<0x0A>'},", "<0x0A>"}},
        {INSTEAD("decoder", "{'type':'Sequence','decoders':[{'type':'Fuse'},{'type':'ByteLevel'}]}"),
         {"'added_tokens':[", "'added_tokens':[{'id':0,'content':'a b'},", "a b"}},
    };
    static contents config, file;
    const char *const folder = at(FOLDER, "model", ""), *path = at(FOLDER, "model", "tokenizer.json");
    for (int i = 0; i < 3; i++) {
        get(&config, at(HERE, form[i], "config.json")), get(&file, at(HERE, form[i], "tokenizer.json"));
        put(at(FOLDER, "model", "config.json"), config.at, config.n);
        APPLY("tokenizer.json", file.at, all, read_a_tokenizer);
        if (i == 0) APPLY("tokenizer.json", file.at, strings, read_a_tokenizer);
        else APPLY("tokenizer.json", file.at, pairs, read_a_tokenizer);
        for (size_t d = 0; d < 2 && i == 0;
             d++) { /* the others have a token that Fuse alters: <tool_call> and a newline */
            static char text[1 << 16];
            snprintf(text, sizeof text, "%s", edited(file.at, decoders[d].from, decoders[d].to));
            apply("tokenizer.json", text, &decoders[d].token, 1, read_a_tokenizer);
        }
        put(path, file.at, file.n);
        static const char *const last[3] = {"<|end", "<|\xf0\x9f\x99\x82|>",
                                            "<\xe1\xbb\x91>"}; /* past the vocabulary */
        char from[40], to[40];                                 /* it is 3 more than there are tokens */
        ttmm_tokenizer *k;
        int *token;
        size_t tokens;
        snprintf(from, sizeof from, "'vocab_size': %d", number_of(&config, "vocab_size"));
        snprintf(to, sizeof to, "'vocab_size': %d", number_of(&config, "vocab_size") - 4);
        const char *smaller = edited(config.at, from, to);
        put(at(FOLDER, "model", "config.json"), smaller, strlen(smaller));
        if (DONE(ttmm_tokenizer_read(&k, folder, &err))) {
            snprintf(to, sizeof to, "token %d", number_of(&config, "vocab_size") - 4);
            GIVES("vocab_size", ttmm_tokenize(&token, &tokens, k, last[i], strlen(last[i]), &err), TTMM_BAD_INPUT, to,
                  "vocabulary");
            if (DONE(ttmm_tokenize(&token, &tokens, k, "a", 1, &err))) free(token);
            ttmm_tokenizer_free(k);
        }
        put(at(FOLDER, "model", "config.json"), config.at, config.n);
        for (size_t n = 0; n < file.n; n += 1 + file.n / 40) { /* cut short */
            put(path, file.at, n);
            GIVES("cut", read_a_tokenizer(), TTMM_BAD_INPUT, "tokenizer.json", "");
        }
    }
    for (uint64_t i = 0; i < 20; i++) { /* random bytes; a byte changed: read, and then of use, or refused */
        ttmm_rng g = ttmm_stream(1, "bytes", i);
        char random[1000];
        for (size_t k = 0; k < sizeof random; k++) random[k] = (char)(unsigned char)ttmm_below(&g, 256);
        if (i % 2) random[0] = '{', random[999] = '}';
        put(path, random, sizeof random);
        GIVES("random", read_a_tokenizer(), TTMM_BAD_INPUT, "tokenizer.json", "");
    }
    long accepted = 0;
    for (uint64_t i = 0; i < 300; i++) {
        ttmm_rng g = ttmm_stream(1, "a byte", i);
        const size_t place = (size_t)ttmm_below(&g, file.n);
        const char before = file.at[place];
        ttmm_tokenizer *k;
        file.at[place] = (char)(i % 2 ? "0123456789-.,:[]{}\" \\"[ttmm_below(&g, 21)]
                                      : before ^ (1 << ttmm_below(&g, 8)));
        put(path, file.at, file.n);
        file.at[place] = before;
        const int code = ttmm_tokenizer_read(&k, folder, &err);
        CHECK(code == TTMM_OK || code == TTMM_BAD_INPUT);
        if (code == TTMM_OK) {
            int *token;
            size_t n;
            if (DONE(ttmm_tokenize(&token, &n, k, "it's e\xcc\x81 12<|im_end|>\n", 22, &err))) {
                CHECK(n > 3 && all_bytes(NULL, k, token, n) > 3);
                free(token);
            }
            ttmm_tokenizer_free(k), accepted++;
        }
    }
    CHECK(accepted > 20 && accepted < 280);
}

/* ---- Rounding, sizes --------------------------------------------------------------------------------------------- */

/* Number u of the 2^15 that are not negative of F16 (10 bits of fraction) or BF16 (7): at the largest exponent they go
 * on, to 2^16 and 2^128. */
static double number_at(int u, int fraction)
{
    const int low = fraction == 10 ? -24 : -133, e = u >> fraction, f = u & ((1 << fraction) - 1);
    return e ? ldexp((1 << fraction) + f, e - 1 + low) : ldexp(f, low);
}

static real beside(real x, int up) /* the next real */
{
    return (real)(IS_DOUBLE ? nextafter((double)x, up ? INFINITY : -INFINITY)
                            : (double)nextafterf((float)x, up ? INFINITY : -INFINITY));
}

/* Every finite number of 16 bits, the middle between it and the next, and what is beside the middle, of both signs:
 * written and read again they are the nearest number, and of two that are equally near the even one. */
static void rounding(void)
{
    static const ttmm_config c = {16, 1, 1, 1, 16, 16, 1 << 14, 8, 1, 1e-5, 1e4, .biases = 0};
    const char *folder = at(FOLDER, "rounded", "");
    ttmm_model m, r;
    if (!DONE(ttmm_model_new(&m, &c, &err))) return;
    real *x = ttmm_weight(&m, 0, TTMM_EMBED), *expected = calloc(1 << 18, sizeof *expected);
    for (int type = TTMM_F16; type <= TTMM_BF16; type++) {
        const int fraction = type == TTMM_F16 ? 10 : 7, numbers = type == TTMM_F16 ? 0x7c00 : 0x7f80;
        const double beyond[4] = {number_at(numbers, fraction), -number_at(numbers, fraction),
                                  (number_at(numbers, fraction) + number_at(numbers - 1, fraction)) / 2,
                                  IS_DOUBLE && type == TTMM_BF16 ? 1e300 : 3.4e38};
        size_t n = 0;
        long wrong = 0;
        memset(m.data, 0, m.n * sizeof *m.data);
        for (int u = 0; u < numbers; u++) {
            const double a = number_at(u, fraction), b = number_at(u + 1, fraction);
            const real middle = (real)((a + b) / 2);
            const real from[4] = {(real)a, beside(middle, 0), middle, beside(middle, 1)};
            const real to[4] = {(real)a, (real)a, (real)(u % 2 ? b : a), (real)b};
            for (int k = 0; k < (u + 1 < numbers ? 4 : 2); k++) {
                x[n] = from[k], expected[n++] = to[k];
                x[n] = -from[k], expected[n++] = -to[k];
            }
        }
        CHECK(n == 8 * (size_t)numbers - 4 && n <= 1 << 18);
        if (!DONE(ttmm_model_write(&m, folder, type, "", &err)) || !DONE(ttmm_model_read(&r, folder, &err))) continue;
        for (size_t i = 0; i < n; i++)
            wrong += memcmp(ttmm_weight(&r, 0, TTMM_EMBED) + i, &expected[i], sizeof *x) != 0;
        CHECK_EQUAL(wrong, 0);
        ttmm_model_free(&r);
        memset(m.data, 0, m.n * sizeof *m.data), x[0] = 1;
        DONE(ttmm_model_write(&m, folder, type, "", &err));
        for (int i = 0; i < 4; i++) { /* is refused, and the old file stays */
            x[7] = (real)beyond[i];
            GIVES("too large", ttmm_model_write(&m, folder, type, "", &err), TTMM_BAD_INPUT, folder, "");
        }
        x[7] = (real)number_at(numbers - 1, fraction), x[8] = beside((real)beyond[2], 0); /* the largest of all */
        if (DONE(ttmm_model_read(&r, folder, &err))) {
            CHECK(*ttmm_weight(&r, 0, TTMM_EMBED) == 1 && ttmm_weight(&r, 0, TTMM_EMBED)[7] == 0);
            ttmm_model_free(&r);
        }
        DONE(ttmm_model_write(&m, folder, type, "", &err));
    }
    for (int type = TTMM_F64; type <= TTMM_F32; type++) { /* a double as a float; a float is itself */
        test_fill(m.data, m.n, "weights", 0);
        x[0] = (real)-0.0, x[1] = (real)0x1p-149, x[2] = (real)0x1.8p-150, x[3] = (real)(0x1.fffffep127);
        if (!DONE(ttmm_model_write(&m, folder, type, "", &err)) || !DONE(ttmm_model_read(&r, folder, &err))) continue;
        long wrong = 0;
        for (size_t i = 0; i < m.n; i++) {
            const real e = type == TTMM_F32 ? (real)(float)m.data[i] : m.data[i];
            wrong += memcmp(&r.data[i], &e, sizeof e) != 0;
        }
        CHECK_EQUAL(wrong, 0);
        ttmm_model_free(&r);
        x[0] = (real)(IS_DOUBLE ? 0x1.ffffffp127 : 1);
        if (IS_DOUBLE && type == TTMM_F32)
            GIVES("too large", ttmm_model_write(&m, folder, type, "", &err), TTMM_BAD_INPUT, folder, "");
    }
    free(expected), ttmm_model_free(&m);
}

static size_t size_of(uint64_t n) { return n < SIZE_MAX ? (size_t)n : SIZE_MAX; }

/* Llama-3.2-1B, and a matrix of 2^33 numbers, by hand; what exceeds all is SIZE_MAX, and not made. */
static void sizes(void)
{
    const ttmm_config llama = {2048, 16, 32, 8, 64, 8192, 128256, 131072, 1, 1e-5, 5e5, .biases = 0};
    const ttmm_config wide = {1 << 12, 3, 32, 32, 128, 1 << 14, 1 << 21, 1 << 12, 0, 1e-5, 1e4, .biases = 1};
    const uint64_t word = sizeof(real), D = 2048, F = 8192, G = 8 * 64, V = 128256;
    const uint64_t layer = 2 * D * D + 2 * D * G + 3 * D * F + 2 * D, whole = 16 * layer + V * D + D;
    CHECK(whole == 1235814400 && ttmm_n_weights(&llama) == size_of(whole) && ttmm_n_tensors(&llama) == 16 * 9 + 2);

    const uint64_t d = 1 << 12, v = 1 << 21, part = 4 * d * d + 3 * d * 4 * d + 2 * d + 3 * d;
    const uint64_t all = 3 * part + 2 * v * d + d;
    CHECK(ttmm_n_weights(&wide) == size_of(all) && ttmm_n_tensors(&wide) == 3 * 12 + 3);

    /* the last tensor's place and size */
    const ttmm_tensor head = ttmm_tensor_at(&wide, ttmm_n_tensors(&wide) - 1);
    CHECK(head.kind == TTMM_HEAD && (SIZE_MAX < all || head.offset == size_of(all - v * d)) && head.rows == v);

    /* A and B of the seven matrices, of rank 4096: at least these, and hardly more */
    const uint64_t in_out = 4 * (d + d) + 3 * (d + 4 * d), adapter_bytes = 3 * 4096 * in_out * word;
    const uint64_t found = ttmm_lora_bytes(&wide, 4096);
    CHECK(adapter_bytes >= (uint64_t)1 << 31);
    CHECK(SIZE_MAX <= adapter_bytes ? found == SIZE_MAX : found >= adapter_bytes && found < adapter_bytes + 100000);

    /* twice as many rows of logits take as many times V numbers more */
    const ttmm_pass_size one = {4096, 1, 0, 1024, 0, 0, 0, 0}, two = {4096, 1, 0, 2048, 0, 0, 0, 0};
    const size_t less = ttmm_pass_bytes(&wide, &one), more = ttmm_pass_bytes(&wide, &two);
    const uint64_t rows = 1024 * v * word;
    CHECK(rows >= (uint64_t)1 << 33);
    CHECK(SIZE_MAX / 2 <= rows ? more == SIZE_MAX : more != SIZE_MAX && more - less == rows && less > rows);

    const ttmm_config absurd = {1 << 20, 1 << 16, 1 << 16, 1 << 16, 1 << 16, 1 << 24,
                                1 << 28, 8,       0,       1e-5,    1e4,     .biases = 1};
    const int most = INT_MAX;
    const ttmm_config worse = {most, 1000, most, most, most, most, most, most, 0, 1e-5, 1e4, .biases = 1};
    const ttmm_pass_size large = {SIZE_MAX / 4, 1, 0, 1, 8, 0, 0, 0};
    ttmm_model m;
    ttmm_lora l;
    ttmm_pass *p;
    CHECK(ttmm_n_weights(&absurd) == SIZE_MAX && ttmm_n_weights(&worse) == SIZE_MAX);
    CHECK(ttmm_pass_bytes(&absurd, &large) == SIZE_MAX && ttmm_pass_bytes(&worse, &large) == SIZE_MAX);
    CHECK(ttmm_pass_bytes(&llama, &large) == SIZE_MAX && ttmm_lora_bytes(&worse, INT_MAX) == SIZE_MAX);
    GIVES("absurd", ttmm_model_new(&m, &absurd, &err), TTMM_NO_ROOM, "memory", "");
    GIVES("absurd", ttmm_pass_new(&p, &llama, &large, &err), TTMM_NO_ROOM, "memory", "");
    if (SIZE_MAX < all * word) GIVES("wide", ttmm_model_new(&m, &wide, &err), TTMM_NO_ROOM, "memory", "");
    if (SIZE_MAX < adapter_bytes) GIVES("wide", ttmm_lora_new(&l, &wide, 4096, 1, &err), TTMM_NO_ROOM, "memory", "");
}

int main(void)
{
    test_clear(FOLDER);
    if (!DONE(ttmm_make_folder(FOLDER, &err))) return 1;
    RUN(models), RUN(adapter), RUN(gradients), RUN(stored_head), RUN(adapters);
    RUN(tokenizers), RUN(ill_formed), RUN(added_tokens), RUN(tokens_in_texts), RUN(corpus_of_tokens),
        RUN(byte_vocabulary), RUN(utf8_as_it_comes);
    RUN(models_refused), RUN(settings), RUN(tokenizers_refused);
    RUN(rounding), RUN(sizes);
    test_clear(FOLDER);
    return test_end("interop");
}
