/* encode.c - what test/encoder.py compares with others: of the texts in a file, each ended by a zero byte,
 *     encode FOLDER ids TEXTS             a line of token ids each, cut as the encoder cuts them
 *     encode FOLDER embed TEXTS OUT       their embeddings, "embeddings" [n, E], in a safetensors file
 *     encode FOLDER time TEXTS TIMES      seconds for all of them together, the least of so many times: by the clock,
 *                                         and of the processor */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "../ttmm.c"

static ttmm_error err;

static void must(int code)
{
    if (code < 0) exit((fprintf(stderr, "%s\n", err.text), 1));
}

int main(int argc, char **argv)
{
    ttmm_encoder *e;
    char *all;
    size_t bytes, n = 0;
    if (argc < 4) return 2;
    must(ttmm_encoder_read(&e, argv[1], &err));
    must(read_whole_file(&all, &bytes, argv[3], &err));
    const char **text = calloc(bytes + 1, sizeof *text);
    size_t *length = calloc(bytes + 1, sizeof *length);
    for (size_t at = 0; at < bytes; at += length[n++] + 1) text[n] = all + at, length[n] = strlen(all + at);
    const size_t E = ttmm_encoder_dim(e);
    real *out = calloc(n * E + 1, sizeof *out);
    if (strcmp(argv[2], "ids") == 0)
        for (size_t i = 0; i < n; i++) {
            text_list x = {.n = 0};
            const int code = list_text(&x, e, text[i], length[i], &err);
            if (code) printf("%s", err.text);
            for (size_t t = 0; code == TTMM_OK && t < x.list.n; t++) printf("%s%d", t ? " " : "", x.list.token[t]);
            printf("\n");
            free(x.list.token), free(x.start);
        }
    else if (strcmp(argv[2], "embed") == 0) {
        const ttmm_array a = {"embeddings", n, E, out, NULL};
        must(ttmm_encode(out, e, text, length, n, &err));
        must(ttmm_arrays_write(&a, 1, argv[4], "", &err));
    } else {
        double best[2] = {INFINITY, INFINITY};
        for (int i = 0; i < atoi(argv[4]); i++) {
            const double began = ttmm_seconds();
            const clock_t before = clock();
            must(ttmm_encode(out, e, text, length, n, &err));
            const double cpu = (double)(clock() - before) / CLOCKS_PER_SEC, wall = ttmm_seconds() - began;
            best[0] = wall < best[0] ? wall : best[0], best[1] = cpu < best[1] ? cpu : best[1];
        }
        printf("%.6f %.6f\n", best[0], best[1]);
    }
    ttmm_encoder_free(e);
    free(out), free(text), free(length), free(all);
    return 0;
}
