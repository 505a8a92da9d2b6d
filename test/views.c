/* views.c - models and adapters over memory that somebody else owns, and over mapped files, give the bits of those that
 * are read: weights of 16, 32 and 64 bits, batches, single tokens, adapters beside and merged, training an adapter. */
#include <stddef.h>
static void *counted_calloc(size_t n, size_t size);
static void counted_free(void *p);
#define TTMM_CALLOC counted_calloc /* in place of calloc and free, in the library */
#define TTMM_FREE counted_free
#include "test.h"

static size_t allocations, frees;
static void *counted_calloc(size_t n, size_t size) { return allocations++, calloc(n, size); }
static void counted_free(void *p)
{
    frees += p != NULL;
    free(p);
}

static ttmm_error err;
static void must(int code)
{
    if (code < 0) {
        printf("%s: code %d: %s\n", test_name, code, err.text);
        exit(1);
    }
}

enum { N = 13, ALL = 4 };
static const char *folder = sizeof(real) == 8 ? "test/build/views-f64.d" : "test/build/views-f32.d";
static const ttmm_config shapes[] = {
    {.dim = 20,
     .n_layers = 2,
     .n_heads = 3,
     .n_kv_heads = 1,
     .head_dim = 6,
     .intermediate = 28,
     .vocab = 31,
     .context = 64,
     .norm_eps = 1e-5,
     .rope_theta = 100,
     .biases = 1,
     .tied = 1},
    {.dim = 64,
     .n_layers = 1,
     .n_heads = 4,
     .n_kv_heads = 2,
     .head_dim = 16,
     .intermediate = 96,
     .vocab = 80,
     .context = 64,
     .norm_eps = 1e-5,
     .rope_theta = 100},
};

/* A copy of n numbers, stored as that type, exactly as long as they are; freed at the end of a test. */
static void *stores[400];
static size_t n_stores;
static ttmm_numbers stored_as(int type, const real *x, size_t n)
{
    const size_t bytes = dtype_table[type].bytes;
    char *to = stores[n_stores++] = malloc(n * bytes + 1);
    CHECK(n_stores < sizeof stores / sizeof *stores);
    for (size_t i = 0; i < n; i++) {
        const uint64_t bits = encode_number(x, i, type);
        const uint32_t bits32 = (uint32_t)bits;
        const uint16_t bits16 = (uint16_t)bits;
        memcpy(to + i * bytes, bytes == 8 ? (const void *)&bits : bytes == 4 ? (const void *)&bits32 : &bits16, bytes);
    }
    return (ttmm_numbers){to, type};
}

static void release(void)
{
    while (n_stores) free(stores[--n_stores]);
}

/* x as it is after it was stored as that type. volatile: gcc 11 and 12 at -O3 take (double)(float)x for x, where they
 * compute two at once. */
static void round_to(int type, real *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const volatile uint64_t stored_bits = encode_number(x, i, type);
        x[i] = (real)decode_number(stored_bits, type);
    }
}

static void draw(ttmm_model *m, const ttmm_config *c, int type)
{
    must(ttmm_model_new(m, c, &err));
    test_fill(m->data, m->n, "views", (uint64_t)type);
    m->data[3] = (real)-0x1p-20, m->data[4] = (real)0x1.8p-24, m->data[5] = -0.0; /* the smallest halves */
    round_to(type, m->data, m->n);
}

static void view_model(ttmm_model *view, ttmm_numbers *tensor, const ttmm_model *m, int type)
{
    for (size_t i = 0; i < ttmm_n_tensors(&m->config); i++) {
        const ttmm_tensor t = ttmm_tensor_at(&m->config, i);
        tensor[i] = stored_as(type, m->data + t.offset, t.rows * t.cols);
    }
    must(ttmm_model_view(view, &m->config, tensor, &err));
}

static void draw_adapters(ttmm_lora *l, ttmm_lora *view, ttmm_lora_matrix *matrix, const ttmm_config *c, int type)
{
    for (int k = 0; k < 2; k++) {
        must(ttmm_lora_new(&l[k], c, 3 + 14 * k, 8, &err));
        test_fill(l[k].data, l[k].n, "adapter", (uint64_t)k);
        round_to(type, l[k].data, l[k].n);
        for (int i = 0; i < c->n_layers * TTMM_MATRICES; i++) {
            const ttmm_lora_matrix *x = &l[k].matrix[i];
            ttmm_lora_matrix *y = &matrix[k * 14 + i];
            *y = (ttmm_lora_matrix){.rank = x->rank, .scale = x->scale};
            y->view[0] = stored_as(type, x->a, (size_t)x->rank * x->in);
            y->view[1] = stored_as(type, x->b, (size_t)x->rank * x->out);
        }
        must(ttmm_lora_view(&view[k], c, matrix + k * 14, 8, &err));
    }
}

#define SAME(x, y, n) CHECK(memcmp(x, y, (n) * sizeof *(x)) == 0)

static void same_answers(const ttmm_model *m, const ttmm_mix *mix, const ttmm_model *v, const ttmm_mix *vmix)
{
    static const int token[N] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 30, 0, 7};
    const ttmm_pass_size whole = {.tokens = N, .sequences = 2, .logits = N, .rank = 17, .backward = 1};
    const ttmm_pass_size steps = {.tokens = 1, .sequences = 1, .cache = N, .logits = 1, .rank = 17};
    const size_t start[] = {0, 8, N}, one[] = {0, 1}, V = (size_t)m->config.vocab;
    ttmm_pass *p, *q;
    must(ttmm_pass_new(&p, &m->config, &whole, &err)), must(ttmm_pass_new(&q, &m->config, &whole, &err));
    must(ttmm_forward(p, m, mix, token, start, 2)), must(ttmm_forward(q, v, vmix, token, start, 2));
    SAME(ttmm_logits(p, m, 0, N), ttmm_logits(q, v, 0, N), N * V);
    CHECK_EQUAL(ttmm_backward(p, m, mix, NULL, NULL), ttmm_backward(q, v, vmix, NULL, NULL));
    SAME(p->dx, q->dx, N * (size_t)m->config.dim);
    ttmm_pass_free(p), ttmm_pass_free(q);
    must(ttmm_pass_new(&p, &m->config, &steps, &err)), must(ttmm_pass_new(&q, &m->config, &steps, &err));
    for (int t = 0; t < N; t++) {
        must(ttmm_forward(p, m, mix, token + t, one, 1)), must(ttmm_forward(q, v, vmix, token + t, one, 1));
        SAME(ttmm_logits(p, m, 0, 1), ttmm_logits(q, v, 0, 1), V);
    }
    ttmm_pass_free(p), ttmm_pass_free(q);
}

/* Test-time training beside a frozen view. */
static void same_training(ttmm_model *m, ttmm_model *v)
{
    int token[N] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 7};
    size_t ends[] = {0, 6, N};
    const ttmm_corpus c = {.n_tokens = N, .n_documents = 1, .n_sequences = 2, .token = token, .sequence = ends};
    const ttmm_recipe r = {{0.01, 0, 0, 0}, 0.9, 0.98, 1e-8, 0, 1, 1, 0, 1};
    ttmm_lora l[2];
    double loss;
    for (int k = 0; k < 2; k++) {
        ttmm_trainer *t;
        must(ttmm_lora_new(&l[k], &m->config, 2, 4, &err));
        ttmm_lora_init(&l[k], 1, 0);
        must(ttmm_trainer_new(&t, k ? v : m, &l[k], &c, &r, &err));
        ttmm_trainer_start(t, NULL, 0, 4, 0, 0);
        while (ttmm_trainer_step(t, &loss)) {
        }
        ttmm_trainer_free(t);
    }
    SAME(l[0].data, l[1].data, l[0].n);
    ttmm_lora_free(&l[0]), ttmm_lora_free(&l[1]);
}

static void in_memory(void)
{
    for (size_t s = 0; s < 2; s++)
        for (int type = 0; type < ALL; type++) {
            const ttmm_config *c = &shapes[s];
            ttmm_model m, v, merged[3];
            ttmm_lora l[2], lv[2];
            ttmm_lora_matrix matrix[28];
            ttmm_numbers tensor[40];
            const real weight[] = {(real)0.7, (real)0.3};
            const ttmm_lora *some[] = {&l[0], &l[1]}, *views[] = {&lv[0], &lv[1]};
            const ttmm_mix mix = {2, some, weight}, vmix = {2, views, weight};
            draw(&m, c, type), view_model(&v, tensor, &m, type), draw_adapters(l, lv, matrix, c, type);
            same_answers(&m, NULL, &v, NULL);
            same_answers(&m, &mix, &v, &vmix);
            same_training(&m, &v);
            real *scratch = malloc(ttmm_merge_scratch(c, &mix) * sizeof *scratch);
            must(ttmm_model_copy(&merged[0], &m, &err)), must(ttmm_model_copy(&merged[1], &v, &err));
            SAME(merged[0].data, merged[1].data, m.n);
            ttmm_merge(&merged[0], &m, &mix, scratch), ttmm_merge(&merged[1], &v, &vmix, scratch);
            SAME(merged[0].data, merged[1].data, m.n);
            free(scratch);
            for (int i = 0; i < 2; i++) ttmm_model_free(&merged[i]), ttmm_lora_free(&l[i]), ttmm_lora_free(&lv[i]);
            ttmm_model_free(&m), ttmm_model_free(&v), release();
        }
}

static void mapped(void)
{
    for (size_t s = 0; s < 2; s++)
        for (int type = 0; type < ALL; type++) {
            ttmm_model m, read, opened;
            ttmm_lora l, lread, lopened;
            const real one = 1;
            const ttmm_lora *some[] = {&lread}, *views[] = {&lopened};
            const ttmm_mix mix = {1, some, &one}, vmix = {1, views, &one};
            draw(&m, &shapes[s], type);
            must(ttmm_lora_new(&l, &shapes[s], 3, 6, &err)), test_fill(l.data, l.n, "adapter", 1);
            must(ttmm_model_write(&m, folder, type, "", &err)), must(ttmm_lora_write(&l, folder, "", &err));
            must(ttmm_model_read(&read, folder, &err)), must(ttmm_model_open(&opened, folder, &err));
            must(ttmm_lora_read(&lread, &m.config, folder, &err)),
                must(ttmm_lora_open(&lopened, &m.config, folder, &err));
            CHECK((opened.view != NULL) == test_can_map() && (lopened.data == NULL) == test_can_map());
            SAME(read.data, m.data, m.n);
            CHECK(ttmm_model_hash(&opened) == ttmm_model_hash(&m));
            same_answers(&read, &mix, &opened, &vmix);
            read.config.norm_eps *= 2; /* what is computed with it is another model's */
            CHECK(ttmm_model_hash(&read) != ttmm_model_hash(&m));
            read.config = m.config, read.data[read.n - 1] += 1;
            CHECK(ttmm_model_hash(&read) != ttmm_model_hash(&m));
            ttmm_model_free(&m), ttmm_model_free(&read), ttmm_model_free(&opened);
            ttmm_lora_free(&l), ttmm_lora_free(&lread), ttmm_lora_free(&lopened);
        }
}

/* A file's header becomes one blank longer: no number lies as it needs to. */
static void shift(const char *name)
{
    static char all[400000];
    char path[100];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    const size_t n = f ? fread(all, 1, sizeof all, f) : 0, length = n ? (size_t)load_bytes((unsigned char *)all, 8) : 0;
    if (f) fclose(f);
    store_bytes((unsigned char *)all, length + 1, 8);
    f = fopen(path, "wb");
    CHECK(f && fwrite(all, 1, 8 + length, f) == 8 + length && fputc(' ', f) == ' ' &&
          fwrite(all + 8 + length, 1, n - 8 - length, f) == n - 8 - length && fclose(f) == 0);
}

/* Where tensors do not lie as their numbers need it, they are read instead. */
static void misaligned(void)
{
    ttmm_model m, opened;
    ttmm_lora l, lopened;
    draw(&m, &shapes[1], TTMM_F32);
    must(ttmm_lora_new(&l, &m.config, 3, 6, &err)), test_fill(l.data, l.n, "adapter", 1);
    must(ttmm_model_write(&m, folder, TTMM_REAL, "", &err)), must(ttmm_lora_write(&l, folder, "", &err));
    shift("model.safetensors"), shift("adapter_model.safetensors");
    must(ttmm_model_open(&opened, folder, &err)), must(ttmm_lora_open(&lopened, &m.config, folder, &err));
    CHECK(opened.view == NULL && lopened.n == l.n);
    SAME(m.data, opened.data, m.n);
    SAME(l.data, lopened.data, l.n);
    ttmm_model_free(&m), ttmm_model_free(&opened), ttmm_lora_free(&l), ttmm_lora_free(&lopened);
}

static void refused(void)
{
    ttmm_model m, v;
    ttmm_lora l[2], lv[2];
    ttmm_lora_matrix matrix[28];
    ttmm_numbers tensor[40];
    const ttmm_config *c = &shapes[0];
    draw(&m, c, TTMM_BF16), view_model(&v, tensor, &m, TTMM_BF16), draw_adapters(l, lv, matrix, c, TTMM_BF16);
    const ttmm_numbers good = tensor[5];
    tensor[5].data = (const char *)good.data + 1;
    GIVES("a view", ttmm_model_view(&v, c, tensor, &err), TTMM_BAD_USE, "up_proj", "not aligned to their size");
    tensor[5] = (ttmm_numbers){NULL, TTMM_BF16};
    GIVES("a view", ttmm_model_view(&v, c, tensor, &err), TTMM_BAD_USE, "up_proj", "no numbers");
    tensor[5] = (ttmm_numbers){good.data, 9};
    GIVES("a view", ttmm_model_view(&v, c, tensor, &err), TTMM_BAD_USE, "up_proj", "four types");
    matrix[2].view[1].type = -1;
    GIVES("an adapter", ttmm_lora_view(&lv[0], c, matrix, 8, &err), TTMM_BAD_USE, "matrix 2", "four types");
    tensor[5] = good;
    must(ttmm_model_view(&v, c, tensor, &err));
    int token[4] = {1, 2, 3, 4};
    size_t ends[] = {0, 4};
    const ttmm_corpus corpus = {.n_tokens = 4, .n_documents = 1, .n_sequences = 1, .token = token, .sequence = ends};
    const ttmm_recipe r = {.batch = 1};
    ttmm_trainer *t;
    GIVES("training", ttmm_trainer_new(&t, &v, NULL, &corpus, &r, &err), TTMM_BAD_USE, "view", "cannot be trained");
    ttmm_mixture x = {.base = &m};
    size_t bytes;
    int rounded;
    const real kept = m.data[0];
    m.data[0] = (real)3.4e38;
    GIVES("an image", ttmm_image_write(&x, NULL, TTMM_BF16, "test/build/huge.bin", &bytes, &rounded, &err),
          TTMM_BAD_INPUT, "not written", "too large");
    m.data[0] = kept;
    GIVES("writing", ttmm_model_write(&v, folder, TTMM_BF16, "", &err), TTMM_BAD_USE, "view", "not written");
    GIVES("writing", ttmm_lora_write(&lv[1], folder, "", &err), TTMM_BAD_USE, "view", "not written");
    GIVES("training", ttmm_trainer_new(&t, &m, &lv[1], &corpus, &r, &err), TTMM_BAD_USE, "view", "cannot be trained");
    ttmm_model_free(&m), ttmm_lora_free(&l[0]), ttmm_lora_free(&l[1]), release();

    draw(&m, &shapes[1], TTMM_F32); /* a number that is not finite is found in place, too */
    must(ttmm_model_write(&m, folder, TTMM_BF16, "", &err));
    char path[100];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    FILE *f = fopen(path, "r+b");
    fseek(f, -2, SEEK_END), fwrite("\x80\x7f", 1, 2, f), fclose(f);
    REFUSED(ttmm_model_open(&v, folder, &err), "lm_head.weight", "not finite");
    ttmm_model_free(&m);
}

/* Every object in memory of the caller's: of just the bytes that it needs, not of one less, not misaligned. */
static void *room_of(size_t bytes)
{
    char *p = stores[n_stores++] = malloc(bytes + 1);
    CHECK(n_stores < sizeof stores / sizeof *stores);
    memset(p, 0x55, bytes + 1); /* it need not be zero */
    return p;
}
#define PLACED(bytes, place, ...)                                                                             \
    do {                                                                                                      \
        const size_t need = (bytes), before = allocations;                                                    \
        char *room = room_of(need);                                                                           \
        GIVES(#place, place(__VA_ARGS__, room, need - 1, &err), TTMM_NO_ROOM, "bytes of memory", "expected"); \
        GIVES(#place, place(__VA_ARGS__, room + 1, need, &err), TTMM_BAD_USE, "not aligned", "8 bytes");      \
        DONE(place(__VA_ARGS__, room, need, &err));                                                           \
        CHECK(room[need] == 0x55 && allocations == before);                                                   \
    } while (0)

static int tokens_seen[4][8];
static int see(void *context, int token)
{
    int *const *at = context;
    **(int **)at = token, ++*(int **)at;
    return 0;
}

static const ttmm_lora *load_from(void *context, size_t k, ttmm_error *e)
{
    (void)e;
    return (const ttmm_lora *)context + k;
}

static void placed(void)
{
    const ttmm_config *c = &shapes[1];
    ttmm_model m, mp;
    ttmm_lora l[2], lp;
    draw(&m, c, TTMM_F32);
    PLACED(ttmm_model_bytes(c), ttmm_model_place, &mp, c);
    memcpy(mp.data, m.data, m.n * sizeof *m.data);
    PLACED(ttmm_lora_bytes(c, 3), ttmm_lora_place, &lp, c, 3, 6);
    for (int k = 0; k < 2; k++)
        must(ttmm_lora_new(&l[k], c, 3, 6, &err)), test_fill(l[k].data, l[k].n, "p", (uint64_t)k);
    memcpy(lp.data, l[0].data, lp.n * sizeof *lp.data);

    const int token[N] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 7};
    const size_t start[] = {0, N}, ends[] = {0, 6, N};
    const ttmm_pass_size size = {.tokens = N, .sequences = 1, .logits = 1, .rank = 3, .backward = 1};
    const ttmm_lora *own = &l[0], *in_place = &lp;
    const real one = 1;
    const ttmm_mix mix = {1, &own, &one}, mixp = {1, &in_place, &one};
    ttmm_pass *p, *pp;
    must(ttmm_pass_new(&p, c, &size, &err));
    PLACED(ttmm_pass_bytes(c, &size), ttmm_pass_place, &pp, c, &size);
    must(ttmm_forward(p, &m, &mix, token, start, 1)), must(ttmm_forward(pp, &mp, &mixp, token, start, 1));
    SAME(ttmm_logits(p, &m, N - 1, 1), ttmm_logits(pp, &mp, N - 1, 1), (size_t)c->vocab);
    CHECK_EQUAL(ttmm_backward(p, &m, &mix, NULL, NULL), ttmm_backward(pp, &mp, &mixp, NULL, NULL));
    ttmm_pass_free(p), ttmm_pass_free(pp);

    ttmm_corpus corpus;
    GIVES("a view", ttmm_corpus_view(&corpus, token, ends + 1, 1, NULL, 0, NULL, &err), TTMM_BAD_USE, "ascend", "0");
    must(ttmm_corpus_view(&corpus, token, ends, 2, NULL, 0, NULL, &err));
    const ttmm_recipe r = {{0.01, 0, 0, 0}, 0.9, 0.98, 1e-8, 0, 1, 1, 0, 1};
    ttmm_trainer *t, *tp;
    double loss, lossp;
    must(ttmm_trainer_new(&t, &m, &l[0], &corpus, &r, &err));
    PLACED(ttmm_trainer_bytes(c, &lp, &corpus, &r), ttmm_trainer_place, &tp, &mp, &lp, &corpus, &r);
    ttmm_trainer_start(t, NULL, 0, 4, 0, 0), ttmm_trainer_start(tp, NULL, 0, 4, 0, 0);
    const size_t trained = allocations;
    while (ttmm_trainer_step(t, &loss)) CHECK(ttmm_trainer_step(tp, &lossp) && loss == lossp);
    CHECK(allocations == trained);
    SAME(l[0].data, lp.data, lp.n);
    ttmm_trainer_free(t), ttmm_trainer_free(tp);

    const real centroid[] = {1, 0, 0, 1}, query[] = {(real)0.8, (real)0.6};
    for (int i = 0; i < 4; i++) { /* allocated; placed; a token at a time; an ensemble */
        ttmm_mixture x = {.base = &m, .K = 2, .E = 2, .centroid = centroid, .load = load_from, .context = l};
        int *at = tokens_seen[i];
        size_t n = 0;
        ttmm_decoding d = {.tokens = 8, .sampler = {1, 1, 0}, .seed = 1, .token = see, .context = &at};
        x.router = (ttmm_router){0.5, 0, 2, 0};
        if (i == 2) d.piece = 1;
        if (i == 0) must(ttmm_mixture_new(&x, &err));
        else {
            PLACED(ttmm_mixture_bytes(2, 2), ttmm_mixture_place, &x);
            d.bytes = ttmm_decoding_bytes(c, N, 3, i == 3 ? 2 : 1, &d), d.memory = room_of(d.bytes);
            d.bytes--;
            GIVES("decoding", ttmm_answer(&n, &x, i == 3 ? TTMM_ENSEMBLE : TTMM_LOWRANK, token, N, query, &d, &err),
                  TTMM_NO_ROOM, "for decoding", "expected");
            d.bytes++;
        }
        const size_t allocated = allocations;
        DONE(ttmm_answer(&n, &x, i == 3 ? TTMM_ENSEMBLE : TTMM_LOWRANK, token, N, query, &d, &err));
        CHECK(n > 0 && at == tokens_seen[i] + n && (i == 0 || allocations == allocated));
        ttmm_mixture_free(&x);
    }
    CHECK(memcmp(tokens_seen[0], tokens_seen[1], sizeof tokens_seen[0]) == 0);
    CHECK(memcmp(tokens_seen[0], tokens_seen[2], sizeof tokens_seen[0]) == 0);
    ttmm_model_free(&m), ttmm_model_free(&mp), ttmm_lora_free(&l[0]), ttmm_lora_free(&l[1]), ttmm_lora_free(&lp);
    release();
}

/* The words of an image as C. */
static size_t words_of_c(uint32_t *word, const char *path)
{
    static char text[2000000];
    const int big = !test_little_endian();
    size_t n = 0;
    FILE *f = fopen(path, "rb");
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    for (char *p = strchr(strstr(text, "ttmm_flash["), '{') + 1; *p != '}'; p += strspn(p, "\n,)")) {
        if (*p == '0') word[n++] = (uint32_t)strtoul(p, &p, 16);
        else if (*p == 'H') {
            const uint32_t a = (uint32_t)strtoul(p + 2, &p, 16), b = (uint32_t)strtoul(p + 1, &p, 16);
            word[n++] = big ? a << 16 | b : a | b << 16;
        }
    }
    return n;
}

static void images(void)
{
    for (size_t s = 0; s < 2; s++)
        for (int type = TTMM_F32; type <= TTMM_BF16; type += 2) {
            const ttmm_config *c = &shapes[s];
            static uint32_t word[60000], other[60000];
            char path[100];
            ttmm_model m;
            ttmm_lora l[2], lv[2];
            ttmm_lora_matrix matrix[28];
            ttmm_image x;
            const real weight[] = {(real)0.7, (real)0.3};
            const ttmm_lora *some[] = {&l[0], &l[1]};
            real centroid[6], idf[3] = {1, (real)1.5, 2};
            size_t bytes;
            int rounded;
            draw(&m, c, type), draw_adapters(l, lv, matrix, c, type);
            l[1].matrix[2].rank = 0; /* a matrix that has none */
            test_fill(centroid, 6, "centroid", 0), round_to(TTMM_F32, centroid, 6);
            const ttmm_mixture all = {.base = &m, .K = 2, .E = 3, .centroid = centroid, .idf = s ? idf : NULL};
            snprintf(path, sizeof path, "%s/image.h", folder);
            DONE(ttmm_image_write(&all, some, type, path, &bytes, &rounded, &err));
            CHECK(!rounded && words_of_c(word, path) == bytes / 4);
            path[strlen(path) - 1] = 'b'; /* no C */
            DONE(ttmm_image_write(&all, some, type, path, &bytes, &rounded, &err));
            FILE *f = fopen(path, "rb");
            CHECK(fread(other, 1, sizeof other, f) == bytes);
            fclose(f);
            if (test_little_endian()) CHECK(memcmp(word, other, bytes) == 0);
            else REFUSED(ttmm_image_view(&x, other, bytes, NULL, 0, &err), "byte order", "");

            PLACED(ttmm_image_bytes(word, bytes), ttmm_image_view, &x, word, bytes);
            const ttmm_lora *views[] = {&x.lora[0], &x.lora[1]};
            const ttmm_mix mix = {2, some, weight}, vmix = {2, views, weight};
            CHECK(x.K == 2 && x.E == 3 && memcmp(&x.model.config, c, sizeof *c) == 0);
            same_answers(&m, &mix, &x.model, &vmix);
            SAME(x.centroid, centroid, 6);
            CHECK(s ? memcmp(x.idf, idf, sizeof idf) == 0 : x.idf == NULL);
            CHECK(x.lora[1].alpha == l[1].alpha && x.lora[1].matrix[2].rank == 0);
            ttmm_image_free(&x);

            REFUSED(ttmm_image_view(&x, word, bytes - 4, NULL, 0, &err), "cut short", "");
            REFUSED(ttmm_image_view(&x, word, 100, NULL, 0, &err), "100 bytes", "cut short");
            GIVES("a view", ttmm_image_view(&x, (char *)word + 2, bytes - 4, NULL, 0, &err), TTMM_BAD_USE, "aligned",
                  "4");
            CHECK(ttmm_image_bytes(word, bytes - 4) == 0);
            size_t accepted = 0;
            for (size_t i = 0; i < bytes / 4; i += i < 200 ? 1 : 37) { /* one bit is another */
                word[i] ^= (uint32_t)1 << i % 32;
                if (ttmm_image_view(&x, word, bytes, NULL, 0, &err) == TTMM_OK) accepted++, ttmm_image_free(&x);
                word[i] ^= (uint32_t)1 << i % 32;
            }
            CHECK(accepted == 0);
            const uint32_t no[][3] = {{IMAGE_FIXED + 1, 1 << 16, 0}, {7, 1 << 30, 2}, {2, IMAGE_FIXED, 2}};
            for (size_t i = 0; i < 3; i++) { /* layers, E or words that do not fit K and the others: take no memory */
                const uint32_t was = word[no[i][0]];
                word[no[i][0]] = no[i][1], word[6] = no[i][2];
                CHECK(ttmm_image_bytes(word, bytes) == 0);
                word[no[i][0]] = was, word[6] = 2;
            }
            word[1] = 2;
            REFUSED(ttmm_image_view(&x, word, bytes, NULL, 0, &err), "version 1", "2");
            word[1] = 1, word[0] = 0x54544d4d;
            REFUSED(ttmm_image_view(&x, word, bytes, NULL, 0, &err), "other byte order", "");
            word[0] = IMAGE_MAGIC, word[bytes / 4 - 1] ^= 1;
            REFUSED(ttmm_image_view(&x, word, bytes, NULL, 0, &err), "damaged", "hash");

            m.data[3] = (real)0.1; /* needs more digits than bf16 has */
            DONE(ttmm_image_write(&all, some, TTMM_BF16, path, &bytes, &rounded, &err));
            CHECK(rounded);
            ttmm_model_free(&m), ttmm_lora_free(&l[0]), ttmm_lora_free(&l[1]), release();
        }
}

/* A file in memory of just its size, `shift` bytes past an aligned place. */
static ttmm_file in_a_buffer(const char *name, size_t shift)
{
    char path[100], *p;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    fseek(f, 0, SEEK_END);
    const size_t n = (size_t)ftell(f);
    rewind(f);
    p = stores[n_stores++] = malloc(n + shift);
    CHECK(n_stores < sizeof stores / sizeof *stores && fread(p + shift, 1, n, f) == n);
    fclose(f);
    return (ttmm_file){name, p + shift, n};
}

static void files_in_memory(void)
{
    for (size_t s = 0; s < 2; s++)
        for (size_t shift = 0; shift < 2; shift++) { /* misaligned: copied */
            ttmm_model m, read, of;
            ttmm_lora l, lread, lof;
            ttmm_corpus text, tread, tof;
            ttmm_config c;
            ttmm_tokenizer *tokenizer;
            const char *const path[] = {"data/train/c.txt"};
            const real one = 1;
            const ttmm_lora *some[] = {&lread}, *views[] = {&lof};
            const ttmm_mix mix = {1, some, &one}, vmix = {1, views, &one};
            draw(&m, &shapes[s], TTMM_BF16);
            must(ttmm_lora_new(&l, &shapes[s], 3, 6, &err)), test_fill(l.data, l.n, "adapter", 1);
            must(ttmm_corpus_from_files(&text, NULL, path, 1, 64, &err)), must(ttmm_corpus_embed(&text, NULL, &err));
            must(ttmm_model_write(&m, folder, TTMM_BF16, "", &err)), must(ttmm_lora_write(&l, folder, "", &err));
            must(ttmm_corpus_write(&text, folder, "", &err));
            const ttmm_file config = in_a_buffer("config.json", shift), safe = in_a_buffer("model.safetensors", shift);
            const ttmm_file adapter = in_a_buffer("adapter_config.json", shift),
                            matrices = in_a_buffer("adapter_model.safetensors", shift),
                            corpus = in_a_buffer("corpus.safetensors", shift);
            DONE(ttmm_config_of(&c, &config, &err));
            must(ttmm_model_read(&read, folder, &err)), must(ttmm_lora_read(&lread, &c, folder, &err));
            must(ttmm_corpus_read(&tread, folder, TTMM_BYTES, &err));
            CHECK(memcmp(&c, &read.config, sizeof c) == 0);
            DONE(ttmm_model_of(&of, &c, &safe, &err));
            DONE(ttmm_lora_of(&lof, &c, &adapter, &matrices, &err));
            DONE(ttmm_corpus_of(&tof, &corpus, TTMM_BYTES, &err));
            CHECK((of.view != NULL) == (test_little_endian() && !shift) && (lof.data == NULL) == (of.view != NULL));
            const int in_place = (const char *)tof.embedding > (const char *)corpus.data &&
                                 (const char *)tof.embedding < (const char *)corpus.data + corpus.bytes;
            CHECK(in_place == (of.view != NULL && sizeof(real) == 4)); /* doubles do not lie at multiples of 8 there */
            same_answers(&read, &mix, &of, &vmix);
            SAME(tread.embedding, tof.embedding, tread.n_sequences * tread.dim);
            CHECK(tread.n_tokens == tof.n_tokens && memcmp(tread.token, tof.token, tof.n_tokens * sizeof(int)) == 0);

            ttmm_model_free(&read);
            ttmm_file cut = safe;
            cut.bytes--;
            REFUSED(ttmm_model_of(&read, &c, &cut, &err), "model.safetensors", "cut short?");
            cut.bytes = 7;
            REFUSED(ttmm_model_of(&read, &c, &cut, &err), "model.safetensors", "7 bytes");
            cut = config, cut.bytes -= 3;
            REFUSED(ttmm_config_of(&c, &cut, &err), "config.json", "not a JSON object");
            real *array;
            size_t rows, cols;
            DONE(ttmm_array_of(&array, &rows, &cols, &corpus, "idf", &err));
            CHECK(rows == 1 && cols == TTMM_EMBED_DIM && memcmp(array, tread.idf, cols * sizeof *array) == 0);
            free(array);
            if (s == 0) {
                const ttmm_file none = {"tokenizer.json", "{}", 2};
                REFUSED(ttmm_tokenizer_of(&tokenizer, &c, &none, &err), "tokenizer.json", "");
            }
            ttmm_model_free(&m), ttmm_model_free(&of), ttmm_lora_free(&l), ttmm_lora_free(&lread), ttmm_lora_free(&lof);
            ttmm_corpus_free(&text), ttmm_corpus_free(&tread), ttmm_corpus_free(&tof), release();
        }
    ttmm_config c; /* a tokenizer, by its file alone and by its folder */
    ttmm_tokenizer *t, *of;
    folder = "test/interop/bpe-gpt2";
    const ttmm_file config = in_a_buffer("config.json", 0), words = in_a_buffer("tokenizer.json", 0);
    int *token[2];
    size_t n[2];
    DONE(ttmm_config_of(&c, &config, &err)), must(ttmm_tokenizer_read(&t, folder, &err));
    DONE(ttmm_tokenizer_of(&of, &c, &words, &err));
    must(ttmm_tokenize(&token[0], &n[0], t, "Readers of memory, 1 and all.", 29, &err));
    must(ttmm_tokenize(&token[1], &n[1], of, "Readers of memory, 1 and all.", 29, &err));
    CHECK(n[0] == n[1] && memcmp(token[0], token[1], n[0] * sizeof(int)) == 0);
    free(token[0]), free(token[1]), ttmm_tokenizer_free(t), ttmm_tokenizer_free(of), release();
}

int main(void)
{
    RUN(in_memory), RUN(mapped), RUN(misaligned), RUN(refused), RUN(placed), RUN(images), RUN(files_in_memory);
    CHECK(allocations > 0 && allocations == frees);
    return test_end("views");
}
