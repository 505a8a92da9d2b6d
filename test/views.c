/* views.c - models and adapters over memory that somebody else owns, and over mapped files, give the bits of those that
 * are read: weights of 16, 32 and 64 bits, batches, single tokens, adapters beside and merged, training an adapter. */
#include "test.h"

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

/* x as it is after it was stored as that type. */
static void round_to(int type, real *x, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = (real)decode_number(encode_number(x, i, type), type);
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

static int can_map(void) /* little-endian files, by a system that maps */
{
#ifdef __wasi__
    return 0;
#else
    const uint16_t one = 1;
    return *(const unsigned char *)&one == 1;
#endif
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
            CHECK((opened.view != NULL) == can_map() && (lopened.data == NULL) == can_map());
            SAME(read.data, m.data, m.n);
            same_answers(&read, &mix, &opened, &vmix);
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
    GIVES("a view", ttmm_model_view(&v, c, tensor, &err), TTMM_BAD_USE, "up_proj", "not aligned to the 2 bytes");
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

int main(void)
{
    RUN(in_memory), RUN(mapped), RUN(misaligned), RUN(refused);
    return test_end("views");
}
