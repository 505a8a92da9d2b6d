/* run.c - the test-time side of ttmm: route a prompt to the experts, merge them, decode, and measure it all against the
 * base model, the fine-tuned baseline and test-time training. It parses arguments, loads what a verb needs and prints
 * tables; the mathematics is in ttmm.c. Results go to standard output, notes and progress to standard error. */
#include <stdlib.h>
#include <string.h>

#include "ttmm.h"

/* clang-format off */
static struct {
    double beta, tau, temperature, top_p, ttt_lr;
    double atol, rtol;
    size_t max, active, prefix, tokens, top_k, neighbours, ttt_prompts, batch, bench_experts;
    int passes, seed, threads, quiet, no_experts, ttt, route, cached, grad, print_ids, context, bench_context, rank;
    const char *shape, *only;
    const char *merge, *adapter, *experts, *centroids, *query, *file, *ids, *select, *output, *dtype, *tsv;
} option = {.tau = 0.01, .max = 50, .prefix = 50, .tokens = 200, .temperature = 0.8, .top_p = 0.95, .ttt_lr = 8e-3,
            .neighbours = 20, .passes = 6, .ttt_prompts = 48, .rtol = 1e-5, .seed = 1, .select = "nn",
            .batch = 8, .bench_context = 256, .rank = 8, .bench_experts = 10};
/* clang-format on */

#define EVERY " generate route eval merge trace compare tokenize info bench "
#define ROUTED " generate route eval merge trace "
#define FOLDERS " generate route eval merge trace info "
#define PROMPTED " generate route merge trace "
#define TRAINED " generate eval "
#define TIMED " generate eval bench "
static const ttmm_option options[] = {
    {"beta", 'f', &option.beta, 1e-6, 1e6, ROUTED, "width of the kernel (0.12; with outside embeddings 0.2)"},
    {"tau", 'f', &option.tau, 0, 1, ROUTED, "experts of a lower weight are left out (0.01)"},
    {"max", 'n', &option.max, 1, 1e6, ROUTED, "at most so many experts (50)"},
    {"active", 'n', &option.active, 1, 1e6, ROUTED "info ",
     "exactly so many experts, the nearest (eval: in the row ttmm)"},
    {"prefix", 'n', &option.prefix, 1, 1e6, ROUTED, "tokens of the prompt that are embedded (50)"},
    {"query", 's', &option.query, 0, 0, PROMPTED "eval ",
     "safetensors file with the query embedding [D] (eval: of all its prompts [n, D])"},
    {"experts", 's', &option.experts, 0, 0, FOLDERS, "folder of the experts 0, 1 ... (MODEL/experts)"},
    {"centroids", 's', &option.centroids, 0, 0, FOLDERS,
     "safetensors file with their centroids [K, D] (MODEL/centroids.safetensors)"},
    {"merge", 's', &option.merge, 0, 0, " generate eval trace ",
     "dense (into the weights), lowrank (beside them) or ensemble (generate: the faster of the first two)"},
    {"adapter", 's', &option.adapter, 0, 0, " generate trace ", "folder of one adapter, instead of routing"},
    {"route", 'b', &option.route, 0, 1, " trace ",
     "with experts, chosen for the prompt (without: the base model alone)"},
    {"cached", 'b', &option.cached, 0, 1, " trace ", "token by token through the key/value cache"},
    {"grad", 'b', &option.grad, 0, 1, " trace ",
     "the gradients of the mean next-token loss: by the adapters beside the weights, else by the weights"},
    {"atol", 'f', &option.atol, 0, 1e300, " compare ", "absolute tolerance (0)"},
    {"rtol", 'f', &option.rtol, 0, 1e300, " compare ", "tolerance relative to a tensor's largest value (1e-5)"},
    {"no-experts", 'b', &option.no_experts, 0, 1, " generate ", "the base model alone"},
    {"ttt", 'b', &option.ttt, 0, 1, " generate ", "test-time training instead of merging"},
    {"neighbours", 'n', &option.neighbours, 1, 1e6, TIMED, "sequences that TTT trains on (20)"},
    {"passes", 'i', &option.passes, 1, 1e4, TIMED, "passes over them (6)"},
    {"ttt-lr", 'f', &option.ttt_lr, 0, 10, TRAINED, "learning rate of TTT (0.008)"},
    {"select", 's', &option.select, 0, 0, TRAINED, "how TTT selects them: nn (nearest) or sift"},
    {"ttt-prompts", 'n', &option.ttt_prompts, 0, 1e9, " eval ", "prompts that TTT is evaluated on (48; 0: none)"},
    {"tokens", 'n', &option.tokens, 1, 1e6, " generate ", "most tokens to generate (200)"},
    {"temperature", 'f', &option.temperature, 0, 100, " generate ", "of sampling; 0 is greedy (0.8)"},
    {"top-k", 'n', &option.top_k, 0, 1e9, " generate ", "sample from the k likeliest tokens (0: all)"},
    {"top-p", 'f', &option.top_p, 0, 1, " generate ", "sample from the fewest tokens that make up p (0.95)"},
    {"file", 's', &option.file, 0, 0, " generate route merge trace tokenize ", "take the prompt from a file"},
    {"ids", 's', &option.ids, 0, 0, PROMPTED, "take the prompt from a file of token ids"},
    {"print-ids", 'b', &option.print_ids, 0, 1, " generate ", "the ids of the new tokens, instead of text"},
    {"context", 'i', &option.context, 2, 1 << 22, " eval tokenize info ",
     "longest sequence (eval: the model's, at most 1024; tokenize: documents are whole); info: prompt and answer"},
    {"dtype", 's', &option.dtype, 0, 0, " merge ", "how weights are stored: f32 (as computed), f16 or bf16"},
    {"output", 's', &option.output, 0, 0, " merge trace tokenize ", "(-o) where to write"},
    {"seed", 'i', &option.seed, 0, 2147483647, TRAINED, "of all random numbers (1)"},
    {"shape", 's', &option.shape, 0, 0, " bench ",
     "random weights of dim,layers,heads,kv,intermediate,vocab instead of MODEL"},
    {"only", 's', &option.only, 0, 0, " bench ", "some of train lora prefill decode embed route merge lowrank ttt"},
    {"batch", 'n', &option.batch, 1, 65536, " bench ", "sequences of a training step (8)"},
    {"context", 'i', &option.bench_context, 16, 1 << 20, " bench ", "tokens of a sequence (256)"},
    {"rank", 'i', &option.rank, 1, 4096, " bench ", "of the adapters (8)"},
    {"experts", 'n', &option.bench_experts, 1, 1e6, " bench ", "that are routed to and merged (10)"},
    {"threads", 'i', &option.threads, 1, 1024, EVERY,
     "threads (all processors, and no more); the results do not depend on it"},
    {"tsv", 's', &option.tsv, 0, 0, " route eval compare bench ", "write the table to a file, tab-separated"},
    {"quiet", 'b', &option.quiet, 0, 1, EVERY, "no notes, no progress"},
};

static ttmm_error err;

static FILE *tsv; /* the table of --tsv, if it is asked for */

static int open_tsv(const char *columns)
{
    if (option.tsv == NULL) return TTMM_OK;
    if ((tsv = fopen(option.tsv, "w")) == NULL)
        return ttmm_fail(&err, TTMM_NO_ROOM, "%s: cannot be written", option.tsv);
    fprintf(tsv, "%s\n", columns);
    return TTMM_OK;
}

static int close_tsv(void)
{
    const int bad = tsv && ferror(tsv);
    if (tsv && (fclose(tsv) != 0 || bad)) return ttmm_fail(&err, TTMM_NO_ROOM, "%s: cannot be written", option.tsv);
    return TTMM_OK;
}

static void clear_line(void)
{
    if (!option.quiet && ttmm_is_terminal(stderr)) fprintf(stderr, "\r\033[K");
}

/* ---- What a verb loads ------------------------------------------------------------------------------------------- */

static struct {
    const char *folder;
    ttmm_model base, merged;
    ttmm_tokenizer *tokenizer; /* NULL: bytes, or not loaded */
    ttmm_corpus corpus;        /* of the training text; n_sequences is 0 if there is none */
    real *centroid;            /* [K, E] */
    size_t K, E;
    ttmm_lora *expert;        /* [K], loaded when they are first chosen (matrix is NULL before) */
    const ttmm_lora **chosen; /* [K] of a route ... */
    int *index;               /* ... their numbers */
    real *weight, *similarity;
    size_t n_chosen;
    real *query;
    real *scratch; /* of ttmm_merge */
    size_t scratch_size;
} model;

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static double larger_of(double a, double b) { return a > b ? a : b; }

static real *new_reals(size_t n) { return n > SIZE_MAX / sizeof(real) ? NULL : malloc(n * sizeof(real)); }

static int load_base(const char *folder)
{
    model.folder = folder;
    return ttmm_model_read(&model.base, folder, &err);
}

/* The shape alone: weights are sizes. */
static int load_config(const char *folder)
{
    model.folder = folder;
    int code = ttmm_config_read(&model.base.config, folder, &err);
    if (code == TTMM_OK) model.base.n = ttmm_n_weights(&model.base.config);
    return code;
}

static int load_corpus(void)
{
    int code = ttmm_corpus_read(&model.corpus, model.folder, model.base.config.vocab, &err);
    model.E = model.corpus.dim; /* the centroids', if there are any, take its place */
    return code;
}

static void path_of_expert(char path[4096], size_t k)
{
    snprintf(path, 4096, "%s%s/%zu", option.experts ? option.experts : model.folder, option.experts ? "" : "/experts",
             k);
}

static int load_centroids(void)
{
    char path[4096];
    snprintf(path, sizeof path, "%s%s", option.centroids ? option.centroids : model.folder,
             option.centroids ? "" : "/centroids.safetensors");
    int code = ttmm_array_read(&model.centroid, &model.K, &model.E, path, "embeddings", &err);
    if (code) return code;
    const size_t K = model.K;
    model.expert = calloc(K, sizeof *model.expert);
    model.chosen = calloc(K, sizeof *model.chosen);
    model.index = calloc(K, sizeof *model.index);
    model.weight = calloc(K, sizeof *model.weight);
    model.similarity = calloc(K, sizeof *model.similarity);
    if (!model.expert || !model.chosen || !model.index || !model.weight || !model.similarity)
        return ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for the list of experts");
    return TTMM_OK;
}

static int load_expert(size_t k)
{
    char folder[4096];
    if (model.expert[k].matrix) return TTMM_OK;
    path_of_expert(folder, k);
    return ttmm_lora_read(&model.expert[k], &model.base.config, folder, &err);
}

static int has_experts(void)
{
    char first[4096];
    path_of_expert(first, 0);
    return (option.centroids || ttmm_exists(model.folder, "centroids.safetensors")) &&
           ttmm_exists(first, "adapter_config.json");
}

/* The query: that of --query, or the built-in embedding of the prompt's first tokens. */
static int load_query(const int *token, size_t T)
{
    if (option.query) {
        size_t rows, cols;
        free(model.query);
        int code = ttmm_array_read(&model.query, &rows, &cols, option.query, "embedding", &err);
        if (code) return code;
        if (rows * cols == model.E) return TTMM_OK;
        return ttmm_fail(&err, TTMM_BAD_INPUT, "%s: the query has %zu numbers, expected %zu as the centroids",
                         option.query, rows * cols, model.E);
    }
    if (model.corpus.idf == NULL)
        return ttmm_fail(&err, TTMM_BAD_INPUT,
                         "%s: has no index of its own embeddings: the prompt's must come by --query", model.folder);
    if (model.E != TTMM_EMBED_DIM)
        return ttmm_fail(&err, TTMM_BAD_INPUT, "%s: the centroids have %zu numbers, the built-in embedding %d",
                         model.folder, model.E, TTMM_EMBED_DIM);
    const size_t prefix = T < option.prefix ? T : option.prefix;
    int *byte = malloc((ttmm_to_bytes(NULL, model.tokenizer, token, prefix) + 1) * sizeof *byte);
    if (model.query == NULL) model.query = malloc(TTMM_EMBED_DIM * sizeof *model.query);
    if (byte && model.query)
        ttmm_embed(model.query, byte, ttmm_to_bytes(byte, model.tokenizer, token, prefix), model.corpus.idf);
    free(byte);
    return byte && model.query ? TTMM_OK : ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for the query");
}

static int merge_is(const char *how) { return strcmp(option.merge ? option.merge : "dense", how) == 0; }

static double beta(void) { return option.beta > 0 ? option.beta : model.corpus.idf ? 0.12 : 0.2; }

/* Choose experts for the query and load them. */
static int route(size_t active)
{
    const ttmm_router r = {beta(), option.tau, option.max, active};
    int code = ttmm_route(&model.n_chosen, model.index, model.weight, model.similarity, model.query, model.centroid,
                          model.K, model.E, &r, &err);
    for (size_t i = 0; i < model.n_chosen && code == TTMM_OK; i++) {
        code = load_expert((size_t)model.index[i]);
        model.chosen[i] = &model.expert[model.index[i]];
    }
    return code;
}

/* All that routing a prompt needs, and the route: model.chosen, model.weight. */
static int load_and_route(const int *token, size_t T)
{
    int code = ttmm_exists(model.folder, "corpus.safetensors") ? load_corpus() : TTMM_OK;
    if (code == TTMM_OK) code = load_centroids();
    if (code == TTMM_OK) code = load_query(token, T);
    return code ? code : route(option.active);
}

static int merge_into(ttmm_model *to, const ttmm_mix *mix)
{
    const size_t need = ttmm_merge_scratch(&model.base.config, mix);
    if (need > model.scratch_size) {
        free(model.scratch);
        model.scratch = new_reals(need);
        model.scratch_size = model.scratch ? need : 0;
        if (model.scratch == NULL) return ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for merging");
    }
    ttmm_merge(to, &model.base, mix, model.scratch);
    return TTMM_OK;
}

static struct {
    ttmm_ttt how;
    ttmm_lora lora;
    ttmm_trainer *trainer;
    size_t *neighbour;
    real *scratch;
} ttt;

static int load_ttt(void)
{
    ttmm_lora like = {0};
    char folder[4096];
    int rank = 8;
    double alpha = 16;
    const ttmm_recipe recipe = {.schedule = {.lr = option.ttt_lr, .last = 0.05},
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8,
                                .clip = 1,
                                .batch = 1,
                                .seed = (uint64_t)option.seed};
    const size_t wanted = option.neighbours, all = model.corpus.n_sequences;
    if (model.corpus.dim == 0)
        return ttmm_fail(&err, TTMM_BAD_INPUT, "%s: has no indexed text for TTT: run train index", model.folder);
    path_of_expert(folder, 0);
    if (ttmm_exists(folder, "adapter_config.json")) { /* of the experts' form */
        int read = ttmm_lora_read(&like, &model.base.config, folder, &err);
        if (read) return read;
        rank = (int)ttmm_lora_rank(&like), alpha = like.alpha;
        ttmm_lora_free(&like);
    }
    ttt.how.neighbours = wanted < all ? wanted : all;
    ttt.how.passes = option.passes, ttt.how.sift = strcmp(option.select, "sift") == 0;
    int code = ttmm_lora_new(&ttt.lora, &model.base.config, rank, alpha, &err);
    if (code == TTMM_OK) code = ttmm_trainer_new(&ttt.trainer, &model.base, &ttt.lora, &model.corpus, &recipe, &err);
    ttt.neighbour = malloc(ttt.how.neighbours * sizeof *ttt.neighbour);
    ttt.scratch = new_reals(ttmm_ttt_scratch(&ttt.how, &model.corpus));
    if (code == TTMM_OK && (!ttt.neighbour || !ttt.scratch))
        code = ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for TTT");
    return code;
}

/* Of decoding: a prompt goes in pieces; and of scoring a sequence. */
enum { PIECE = 256 };
static ttmm_pass_size decoding_size(size_t tokens, size_t positions, size_t rank)
{
    return (ttmm_pass_size){
        .tokens = tokens < PIECE ? tokens : PIECE, .sequences = 1, .cache = positions, .logits = 1, .rank = rank};
}

static ttmm_pass_size scoring_size(size_t T, size_t rank)
{
    return (ttmm_pass_size){.tokens = T, .sequences = 1, .logits = T < 64 ? T : 64, .rank = rank};
}

/* ---- Prompts ----------------------------------------------------------------------------------------------------- */

static int *prompt;
static size_t prompt_tokens;

static int read_stream(char **text, size_t *n, FILE *f, const char *name)
{
    size_t room = 1 << 16;
    *n = 0;
    *text = malloc(room + 1);
    while (*text) {
        *n += fread(*text + *n, 1, room - *n, f);
        if (*n < room) break;
        char *more = realloc(*text, 2 * room + 1);
        if (more == NULL) free(*text);
        *text = more, room *= 2;
    }
    if (*text == NULL) return ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for the prompt");
    if (ferror(f)) {
        free(*text);
        return ttmm_fail(&err, TTMM_BAD_INPUT, "%s: cannot be read", name);
    }
    (*text)[*n] = 0;
    return TTMM_OK;
}

/* Token ids separated by blanks, each less than the vocabulary. text [n] ends in a zero byte. */
static int parse_ids(const char *text, size_t n, const char *name)
{
    for (const char *p = text;;) {
        char *end;
        while (*p && strchr(" \t\r\n", *p)) p++;
        if (p == text + n) return TTMM_OK;
        const long id = strtol(p, &end, 10);
        if (end == p || (*end && !strchr(" \t\r\n", *end)) || *p == '-' || id >= model.base.config.vocab) {
            return ttmm_fail(&err, TTMM_BAD_INPUT, "%.300s: token %zu is %.20s, expected an id from 0 to %d", name,
                             prompt_tokens + 1, p, model.base.config.vocab - 1);
        }
        prompt[prompt_tokens++] = (int)id;
        p = end;
    }
}

/* The prompt: the argument, --file, --ids, or standard input. */
static int load_prompt(const char *argument)
{
    const char *name = option.ids ? option.ids : option.file ? option.file : argument ? "the prompt" : "standard input";
    char *text = NULL;
    size_t n = 0;
    int code = TTMM_OK;
    if ((argument != NULL) + (option.file != NULL) + (option.ids != NULL) > 1)
        return ttmm_fail(&err, TTMM_BAD_USE, "a prompt comes as an argument, by --file or by --ids: one of these");
    if (option.ids || option.file) {
        FILE *f = fopen(name, "rb");
        if (f == NULL) return ttmm_fail(&err, TTMM_BAD_INPUT, "%s: cannot be opened", name);
        code = read_stream(&text, &n, f, name);
        fclose(f);
    } else if (argument == NULL) {
        if (ttmm_is_terminal(stdin) && !option.quiet) fprintf(stderr, "prompt (end with Ctrl-D): ");
        code = read_stream(&text, &n, stdin, name);
    }
    if (code) return code;
    if (argument && !text) n = strlen(argument);
    if (option.ids) {
        ttmm_error none; /* ids are all that is needed: without a tokenizer they are what is printed, too */
        prompt = n < SIZE_MAX / sizeof *prompt ? malloc((n + 1) * sizeof *prompt) : NULL;
        code = prompt ? parse_ids(text, n, name) : ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for the prompt");
        option.print_ids = ttmm_tokenizer_read(&model.tokenizer, model.folder, &none) != TTMM_OK || option.print_ids;
    } else {
        code = ttmm_tokenizer_read(&model.tokenizer, model.folder, &err);
        if (code == TTMM_OK)
            code = ttmm_tokenize(&prompt, &prompt_tokens, model.tokenizer, text ? text : argument, n, &err);
    }
    free(text);
    if (code == TTMM_OK && (n == 0 || prompt_tokens == 0)) code = ttmm_fail(&err, TTMM_BAD_INPUT, "%s is empty", name);
    return code;
}

/* ---- route ------------------------------------------------------------------------------------------------------- */

/* How many of an expert's sequences came from each training file: count [n_files] */
static void count_origins(size_t *count, int expert)
{
    const ttmm_corpus *c = &model.corpus;
    memset(count, 0, c->n_files * sizeof *count);
    for (size_t i = 0; i < c->n_sequences; i++)
        if (c->cluster[i] == expert) count[c->document_file[c->sequence_document[i]]]++;
}

static size_t first_largest(const size_t *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* "cookbook 14, garden 3": the files that the expert's sequences came from. */
static void print_origins(FILE *f, int expert)
{
    const ttmm_corpus *c = &model.corpus;
    size_t *count = calloc(c->n_files + 1, sizeof *count);
    if (count && c->clustered) count_origins(count, expert);
    for (int shown = 0; count && shown < 3; shown++) {
        const size_t most = first_largest(count, c->n_files);
        if (count[most] == 0) break;
        fprintf(f, "%s%s %zu", shown ? ", " : "", c->file[most], count[most]);
        count[most] = 0;
    }
    free(count);
}

static int verb_route(const char *const *argument, size_t n)
{
    (void)argument, (void)n;
    int code = load_and_route(prompt, prompt_tokens);
    if (code) return code;
    if ((code = open_tsv("expert\tsimilarity\tweight")) != TTMM_OK) return code;
    if (model.n_chosen == 0) printf("no expert has a weight above tau: the base model answers\n");
    else printf("expert  similarity  weight\n");
    for (size_t shown = 0; shown < model.n_chosen; shown++) { /* heaviest first */
        size_t i = 0;
        for (size_t j = 1; j < model.n_chosen; j++)
            if (model.weight[j] > model.weight[i]) i = j;
        const double s = (double)model.similarity[model.index[i]], w = (double)model.weight[i];
        printf("%6d  %10.4f  %6.4f  %-25.*s ", model.index[i], s, w, (int)(25 * w + 0.5), "#########################");
        print_origins(stdout, model.index[i]);
        printf("\n");
        if (tsv) fprintf(tsv, "%d\t%.9g\t%.9g\n", model.index[i], s, w);
        model.weight[i] = -1;
    }
    return close_tsv();
}

/* ---- generate ---------------------------------------------------------------------------------------------------- */

static int is_end(int token)
{
    const ttmm_config *c = &model.base.config;
    int i = 0;
    while (i < c->n_ends && c->end[i] != token) i++;
    return i < c->n_ends;
}

/* A token as text; only whole characters are printed. token < 0: what is left at the end. */
static void put_token(int token)
{
    static ttmm_utf8 waiting;
    char out[8];
    const size_t n = token < 0 ? 1 : ttmm_to_bytes(NULL, model.tokenizer, &token, 1);
    int *byte = malloc(n * sizeof *byte);
    if (byte == NULL) return; /* what is generated does not depend on it */
    if (token < 0) byte[0] = -1;
    else ttmm_to_bytes(byte, model.tokenizer, &token, 1);
    for (size_t i = 0; i < n && byte[i] != TTMM_END; i++) fwrite(out, 1, ttmm_put_utf8(out, &waiting, byte[i]), stdout);
    free(byte);
    fflush(stdout);
}

/* The tokens after those before, at most PIECE at a time; returns how many the last piece has. */
static size_t forward_pieces(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, const int *token, size_t T)
{
    size_t n = 0;
    for (size_t from = 0; from < T; from += n) {
        const size_t start[2] = {0, n = T - from < PIECE ? T - from : PIECE};
        ttmm_forward(p, m, mix, token + from, start, 1);
    }
    return n;
}

/* Decode from the prompt: one pass with mix beside the weights, or (ensemble) one pass for each adapter of mix, whose
 * probabilities are averaged. */
static int decode(const ttmm_model *m, const ttmm_mix *mix, int ensemble)
{
    const size_t context = (size_t)m->config.context, V = (size_t)m->config.vocab, n = ensemble ? mix->n : 1;
    size_t room = context - prompt_tokens, limit = option.tokens, rank = 0, generated = 0;
    const size_t cache = limit < room ? prompt_tokens + limit : context;
    const real one = 1;
    const ttmm_sampler sampler = {option.temperature, option.top_p, option.top_k};
    ttmm_rng g = ttmm_stream((uint64_t)option.seed, "sample", 0);
    for (size_t k = 0; mix && k < mix->n; k++) rank = larger(rank, ttmm_lora_rank(mix->lora[k]));
    const ttmm_pass_size size = decoding_size(prompt_tokens, cache, rank);
    ttmm_pass **pass = calloc(n, sizeof *pass);
    real *mean = malloc(V * sizeof *mean);
    void *scratch = malloc(ttmm_sample_scratch(V));
    int code = pass && mean && scratch ? TTMM_OK : ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for decoding");
    for (size_t k = 0; k < n && code == TTMM_OK; k++) code = ttmm_pass_new(&pass[k], &m->config, &size, &err);
    for (size_t t = 0; t < prompt_tokens && code == TTMM_OK && !option.print_ids; t++) put_token(prompt[t]);
    const int *token = prompt;
    int next = -1;
    const double began = ttmm_seconds();
    while (code == TTMM_OK && generated < limit && generated < room) {
        const size_t T = generated ? 1 : prompt_tokens;
        const real *logits = NULL;
        if (ensemble) memset(mean, 0, V * sizeof *mean);
        for (size_t k = 0; k < n; k++) {
            const ttmm_mix alone = {1, mix ? mix->lora + k : NULL, &one};
            const size_t rows = forward_pieces(pass[k], m, ensemble ? &alone : mix, token, T);
            logits = ttmm_logits(pass[k], m, rows - 1, 1);
            if (ensemble) ttmm_add_probabilities(mean, logits, V, mix->weight[k]);
        }
        if (ensemble)
            for (size_t v = 0; v < V; v++) mean[v] = (real)ttmm_log((double)mean[v]);
        next = ttmm_sample(ensemble ? mean : logits, V, &sampler, &g, scratch);
        generated++;
        if (option.print_ids) printf("%s%d", generated > 1 ? " " : "", next), fflush(stdout);
        if (is_end(next)) break;
        if (!option.print_ids) put_token(next);
        token = &next;
    }
    if (code == TTMM_OK && !option.print_ids) put_token(-1);
    if (code == TTMM_OK) printf("\n");
    if (code == TTMM_OK && !option.quiet)
        fprintf(stderr, "%zu tokens, %.0f a second%s\n", generated, (double)generated / (ttmm_seconds() - began),
                generated && is_end(next)           ? "; the text ended"
                : generated == room && room < limit ? "; the context is full"
                                                    : "");
    for (size_t k = 0; k < n && pass; k++) ttmm_pass_free(pass[k]);
    free(pass);
    free(mean);
    free(scratch);
    return code;
}

static int generate_with(const ttmm_lora *adapter)
{
    const real one = 1;
    const ttmm_mix mix = {1, &adapter, &one};
    return decode(&model.base, &mix, 0);
}

static int generate_with_adapter(void)
{
    ttmm_lora adapter;
    int code = ttmm_lora_read(&adapter, &model.base.config, option.adapter, &err);
    if (code == TTMM_OK) code = generate_with(&adapter);
    ttmm_lora_free(&adapter);
    return code;
}

static int generate_with_ttt(void)
{
    int code = load_corpus();
    if (code == TTMM_OK) code = load_query(prompt, prompt_tokens);
    if (code == TTMM_OK) code = load_ttt();
    if (code) return code;
    const double began = ttmm_seconds();
    ttmm_ttt_train(ttt.trainer, &ttt.how, model.query, ttt.neighbour, ttt.scratch);
    if (!option.quiet)
        fprintf(stderr, "trained on %zu neighbours in %.2f s\n", ttt.how.neighbours, ttmm_seconds() - began);
    return generate_with(&ttt.lora);
}

/* Merge the experts, or leave them beside the weights? For every rank and matrix merging takes out * in multiply-adds,
 * once, a token beside the weights out + in. With both sums over the matrices, merging pays from sum(out * in) /
 * sum(out + in) tokens on: 61 for the default shape, 1,381 for Llama-3.2-1B. That is for the prompt's tokens, which go
 * through at the speed of merging; those that follow wait for memory, and take about 16 times as long (run bench). */
static int cheaper_beside(const ttmm_config *c, size_t tokens)
{
    const double D = c->dim, H = (double)c->n_heads * c->head_dim, G = (double)c->n_kv_heads * c->head_dim;
    const double F = c->intermediate, products = D * (2 * H + 2 * G + 3 * F), sums = 7 * D + 2 * H + 2 * G + 3 * F;
    return (double)prompt_tokens + 16 * (double)tokens < products / sums;
}

static int verb_generate(const char *const *argument, size_t n)
{
    (void)argument, (void)n;
    if (prompt_tokens >= (size_t)model.base.config.context)
        return ttmm_fail(&err, TTMM_BAD_INPUT, "the prompt has %zu tokens, expected fewer than the context, %d",
                         prompt_tokens, model.base.config.context);
    if (option.adapter) return generate_with_adapter();
    if (option.ttt) return generate_with_ttt();
    if (option.no_experts || !has_experts()) {
        if (!option.no_experts && !option.quiet)
            fprintf(stderr, "%s has no experts: the base model answers\n", model.folder);
        return decode(&model.base, NULL, 0);
    }
    int code = load_and_route(prompt, prompt_tokens);
    if (code) return code;
    if (!option.quiet) {
        fprintf(stderr, model.n_chosen ? "experts" : "no expert has a weight above tau: the base model answers");
        for (size_t i = 0; i < model.n_chosen; i++)
            fprintf(stderr, " %d (%.2f)", model.index[i], (double)model.weight[i]);
        fprintf(stderr, "\n");
    }
    const ttmm_mix mix = {model.n_chosen, model.chosen, model.weight};
    if (option.merge ? merge_is("lowrank") : cheaper_beside(&model.base.config, option.tokens))
        return decode(&model.base, &mix, 0);
    if (merge_is("ensemble") && mix.n > 0) return decode(&model.base, &mix, 1);
    code = merge_into(&model.base, &mix); /* in place: this process answers one prompt */
    return code ? code : decode(&model.base, NULL, 0);
}

/* ---- merge ------------------------------------------------------------------------------------------------------- */

static int verb_merge(const char *const *argument, size_t n)
{
    (void)argument, (void)n;
    if (option.output == NULL) return ttmm_fail(&err, TTMM_BAD_USE, "merge needs -o DIR, where to write the model");
    if (ttmm_exists(option.output, "corpus.safetensors") || ttmm_exists(option.output, "experts/0/adapter_config.json"))
        return ttmm_fail(&err, TTMM_BAD_USE,
                         "%s: holds a model with its experts, which would be lost: choose another folder",
                         option.output);
    const char *d = option.dtype ? option.dtype : "";
    const int type = strcmp(d, "f16") == 0    ? TTMM_F16
                     : strcmp(d, "bf16") == 0 ? TTMM_BF16
                     : strcmp(d, "f32") == 0  ? TTMM_F32
                                              : TTMM_REAL;
    int code = load_and_route(prompt, prompt_tokens);
    const ttmm_mix mix = {model.n_chosen, model.chosen, model.weight};
    if (code == TTMM_OK) code = merge_into(&model.base, &mix);
    if (code == TTMM_OK) code = ttmm_model_write(&model.base, option.output, type, "merged", &err);
    static const char *const kept[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                       "generation_config.json"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept && code == TTMM_OK; i++)
        if (ttmm_exists(model.folder, kept[i])) code = ttmm_copy(option.output, model.folder, kept[i], &err);
    if (code == TTMM_OK && !option.quiet)
        fprintf(stderr, "%s: the base model with %zu experts merged in\n", option.output, mix.n);
    return code;
}

/* ---- trace, compare ---------------------------------------------------------------------------------------------- */

static int verb_trace(const char *const *argument, size_t n)
{
    (void)argument, (void)n;
    const real one = 1;
    const int routed = option.route || option.query;
    ttmm_lora adapter = {0};
    const ttmm_lora *only = &adapter;
    ttmm_mix mix = {0};
    ttmm_trace t = {0};
    int code = TTMM_OK;
    if (option.output == NULL) return ttmm_fail(&err, TTMM_BAD_USE, "trace needs -o F, the file to write");
    if (option.cached && option.grad)
        return ttmm_fail(&err, TTMM_BAD_USE, "--cached and --grad cannot be had at once: a cache has no backward pass");
    if (routed && option.adapter)
        return ttmm_fail(&err, TTMM_BAD_USE, "--adapter takes the place of routing: leave out --route and --query");
    if ((option.merge || option.active) && !routed)
        return ttmm_fail(&err, TTMM_BAD_USE, "--merge and --active are for experts: add --route or --query");
    if (merge_is("ensemble"))
        return ttmm_fail(&err, TTMM_BAD_USE,
                         "--merge is ensemble, expected dense or lowrank: an ensemble is many passes");
    if (option.adapter) {
        code = ttmm_lora_read(&adapter, &model.base.config, option.adapter, &err);
        mix = (ttmm_mix){1, &only, &one};
    } else if (routed) {
        code = load_and_route(prompt, prompt_tokens);
        mix = (ttmm_mix){model.n_chosen, model.chosen, model.weight};
        if (code == TTMM_OK && merge_is("dense")) {
            code = merge_into(&model.base, &mix);
            mix.n = 0;
        }
    }
    if (code == TTMM_OK)
        code = ttmm_trace_new(&t, &model.base, &mix, option.adapter ? NULL : model.index, prompt, prompt_tokens,
                              option.cached, option.grad, &err);
    ttmm_array *all = code ? NULL : calloc(t.n + 4, sizeof *all);
    if (code == TTMM_OK && all == NULL) code = ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for a list of tensors");
    if (code == TTMM_OK) {
        size_t tensors = 0;
        if (routed) {
            all[tensors++] = (ttmm_array){"query", model.E, 0, model.query, NULL};
            all[tensors++] = (ttmm_array){"similarity", model.K, 0, model.similarity, NULL};
            all[tensors++] = (ttmm_array){"experts", model.n_chosen, 0, NULL, model.index};
            all[tensors++] = (ttmm_array){"weights", model.n_chosen, 0, model.weight, NULL};
        }
        memcpy(all + tensors, t.array, t.n * sizeof *all);
        tensors += t.n;
        code = ttmm_arrays_write(all, tensors, option.output, "", &err);
        if (code == TTMM_OK && !option.quiet)
            fprintf(stderr, "%s: %zu tensors of %zu tokens\n", option.output, tensors, prompt_tokens);
    }
    free(all);
    ttmm_trace_free(&t);
    ttmm_lora_free(&adapter);
    return code;
}

static void print_difference(void *tensors, const ttmm_difference *d)
{
    static const char *verdict[] = {"same",    "within", "PAST THE TOLERANCE", "NOT FINITE", "OTHER SHAPE",
                                    "MISSING", "EXTRA"};
    const char *a = d->shape[0], *b = d->shape[1];
    if ((*(size_t *)tensors)++ == 0)
        printf("%-50s %-18s %10s %10s %10s %9s  verdict\n", "tensor", "type and shape", "max abs", "max rel", "ulps",
               "worst at");
    printf("%-50s %-18s ", d->name, *a ? a : b);
    if (d->verdict <= TTMM_NOT_FINITE)
        printf("%10.3g %10.3g %10.3g %9zu  %s", d->max_abs, d->max_rel, d->ulps, d->worst, verdict[d->verdict]);
    else printf("%10s %10s %10s %9s  %s", "-", "-", "-", "-", verdict[d->verdict]);
    if (d->verdict == TTMM_PAST || d->verdict == TTMM_NOT_FINITE) printf(": %.9g, %.9g", d->a, d->b);
    if (d->verdict == TTMM_SHAPE) printf(": %s", b);
    printf("\n");
    if (tsv)
        fprintf(tsv, "%s\t%s\t%s\t%.9g\t%.9g\t%.9g\t%zu\t%.17g\t%.17g\t%s\n", d->name, a, b, d->max_abs, d->max_rel,
                d->ulps, d->worst, d->a, d->b, verdict[d->verdict]);
}

static int verb_compare(const char *const *argument, size_t n)
{
    (void)n;
    size_t tensors = 0, failures;
    int code = open_tsv("tensor\tshape_a\tshape_b\tmax_abs\tmax_rel\tulps\tworst\ta\tb\tverdict");
    if (code == TTMM_OK)
        code = ttmm_compare(argument[0], argument[1], option.atol, option.rtol, print_difference, &tensors, &failures,
                            &err);
    if (code == TTMM_OK) code = close_tsv();
    if (code) return code;
    printf("%zu tensors, %zu of them not as they should be (atol %g, rtol %g)\n", tensors, failures, option.atol,
           option.rtol);
    return failures == 0 ? TTMM_OK
                         : ttmm_fail(&err, TTMM_DIFFERS, "%s and %s differ in %zu of %zu tensors", argument[0],
                                     argument[1], failures, tensors);
}

/* ---- eval -------------------------------------------------------------------------------------------------------- */

enum { BASE, FINETUNED, TTMM, ENSEMBLE, UNIFORM, TTT };
static const struct {
    const char *name;
    int how;
    size_t active; /* 0: sparse, by tau */
} methods[] = {
    {"base", BASE, 0},     {"finetuned", FINETUNED, 0}, {"ttmm-1", TTMM, 1},           {"ttmm-3", TTMM, 3},
    {"ttmm-10", TTMM, 10}, {"ttmm", TTMM, 0},           {"ensemble-10", ENSEMBLE, 10}, {"uniform", UNIFORM, 0},
    {"ttt", TTT, 0},
};
enum { METHODS = sizeof methods / sizeof *methods, LAST = METHODS - 1, MEMBERS = 10 };

typedef struct {
    const int *token; /* in eval.text */
    size_t scored;    /* tokens after the prefix */
    const char *file; /* it is from */
} eval_prompt;

static struct {
    ttmm_corpus text; /* the held-out files */
    eval_prompt *prompt;
    size_t n, bytes;       /* prompts: the text's sequences longer than the prefix; bytes that are scored */
    real *query;           /* [n, E] of --query, or NULL */
    size_t *count;         /* [training files] scratch of count_origins */
    size_t mostly, partly; /* prompts whose nearest expert was trained mostly, or at all, on their file */
    ttmm_lora finetuned;
    real *equal;                       /* [K] the weights of uniform */
    double *probability, *sorted;      /* scratch: [longest sequence], [n] */
    ttmm_pass *pass, *member[MEMBERS]; /* for scoring; for measuring the speed of decoding */
    struct {
        int there;
        double *nll, *seconds; /* [n] of each prompt; of each that the method was run on */
        char *ran;             /* [n] */
        double active, decode;
        size_t prompts;
    } method[METHODS];
} eval;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *x, size_t n)
{
    memcpy(eval.sorted, x, n * sizeof *x);
    qsort(eval.sorted, n, sizeof *x, by_value);
    return n == 0 ? 0 : (eval.sorted[(n - 1) / 2] + eval.sorted[n / 2]) / 2;
}

static int load_eval(const char *const *file, size_t n_files)
{
    const ttmm_config *c = &model.base.config;
    const size_t prefix = option.prefix;
    char folder[4096];
    size_t rank = 0;
    const int context = option.context && option.context < c->context ? option.context
                        : c->context < 1024                           ? c->context
                                                                      : 1024;
    int code = ttmm_tokenizer_read(&model.tokenizer, model.folder, &err);
    if (code == TTMM_OK) code = ttmm_corpus_from_files(&eval.text, model.tokenizer, file, n_files, context, &err);
    const int corpus = ttmm_exists(model.folder, "corpus.safetensors"), experts = corpus && has_experts();
    if (code == TTMM_OK && corpus) code = load_corpus();
    if (code == TTMM_OK && corpus && model.corpus.idf == NULL && !option.query)
        code = ttmm_fail(&err, TTMM_BAD_INPUT,
                         "%s: was indexed with outside embeddings: those of the prompts must come by --query",
                         model.folder);
    if (code == TTMM_OK && experts) code = load_centroids();
    for (size_t k = 0; k < model.K && code == TTMM_OK; k++) {
        code = load_expert(k);
        if (code == TTMM_OK) rank = larger(rank, ttmm_lora_rank(&model.expert[k]));
    }
    eval.method[0].there = 1;
    eval.method[1].there = ttmm_exists(model.folder, "finetuned/adapter_model.safetensors");
    for (int m = 2; m < LAST; m++) eval.method[m].there = experts;
    eval.method[LAST].there = corpus && option.ttt_prompts > 0;
    snprintf(folder, sizeof folder, "%s/finetuned", model.folder);
    if (code == TTMM_OK && eval.method[1].there) code = ttmm_lora_read(&eval.finetuned, c, folder, &err);
    if (code == TTMM_OK && eval.method[LAST].there) code = load_ttt();
    if (code == TTMM_OK) code = ttmm_model_copy(&model.merged, &model.base, &err);
    if (code) return code;
    if (eval.method[LAST].there) rank = larger(rank, ttmm_lora_rank(&ttt.lora));
    const size_t T = ttmm_longest_sequence(&eval.text), all = eval.text.n_sequences;
    const ttmm_pass_size size = scoring_size(T, rank), step = decoding_size(1, 64, rank);
    code = ttmm_pass_new(&eval.pass, c, &size, &err);
    for (size_t k = 0; k < MEMBERS && code == TTMM_OK; k++) code = ttmm_pass_new(&eval.member[k], c, &step, &err);
    if (code) return code;
    eval.prompt = malloc(all * sizeof *eval.prompt), eval.sorted = malloc(all * sizeof *eval.sorted);
    eval.probability = malloc(T * sizeof *eval.probability);
    eval.equal = malloc((model.K + 1) * sizeof *eval.equal);
    eval.count = malloc((model.corpus.n_files + 1) * sizeof *eval.count);
    int *byte = malloc((ttmm_to_bytes(NULL, model.tokenizer, eval.text.token, eval.text.n_tokens) + 1) * sizeof *byte);
    int room = eval.count && eval.prompt && eval.probability && eval.sorted && eval.equal && byte;
    for (int m = 0; m < METHODS; m++) {
        eval.method[m].nll = malloc(all * sizeof(double)), eval.method[m].seconds = malloc(all * sizeof(double));
        eval.method[m].ran = calloc(all, 1);
        room = room && eval.method[m].nll && eval.method[m].seconds && eval.method[m].ran;
    }
    if (!room) return ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for the table");
    for (size_t i = 0; i < all; i++) {
        const size_t from = eval.text.sequence[i], to = eval.text.sequence[i + 1];
        if (to - from <= prefix) continue;
        const char *name = eval.text.file[eval.text.document_file[eval.text.sequence_document[i]]];
        eval.prompt[eval.n++] = (eval_prompt){eval.text.token + from, to - from - prefix, name};
        const size_t bytes = ttmm_to_bytes(byte, model.tokenizer, eval.text.token + from + prefix, to - from - prefix);
        for (size_t b = 0; b < bytes; b++) eval.bytes += byte[b] < TTMM_END;
    }
    free(byte);
    if (eval.n == 0)
        return ttmm_fail(&err, TTMM_BAD_INPUT, "the files have no sequence longer than the prefix, %zu tokens", prefix);
    if (option.query) {
        size_t rows, cols;
        code = ttmm_array_read(&eval.query, &rows, &cols, option.query, "embeddings", &err);
        if (code == TTMM_OK && (rows != eval.n || cols != model.E))
            code = ttmm_fail(&err, TTMM_BAD_INPUT, "%s: is [%zu, %zu], expected [%zu, %zu]: one row a prompt",
                             option.query, rows, cols, eval.n, model.E);
        if (code == TTMM_OK && (model.query = new_reals(model.E)) == NULL)
            code = ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for the query");
        if (code) return code;
    }
    if (!option.quiet) {
        fprintf(stderr, "%zu prompts, scored after their first %zu tokens; %zu experts, %zu training sequences\n",
                eval.n, prefix, model.K, model.corpus.n_sequences);
        if (eval.n < all) fprintf(stderr, "%zu sequences are not longer than that and are left out\n", all - eval.n);
    }
    return TTMM_OK;
}

/* Whether the chosen expert was trained on the file of the prompt's name: mostly, or in part. */
static void count_home(const eval_prompt *p)
{
    const ttmm_corpus *c = &model.corpus;
    count_origins(eval.count, model.index[0]);
    eval.mostly += strcmp(c->file[first_largest(eval.count, c->n_files)], p->file) == 0;
    for (size_t f = 0; f < c->n_files; f++)
        if (eval.count[f] > 0 && strcmp(c->file[f], p->file) == 0) {
            eval.partly++;
            break;
        }
}

/* Tokens a second through the key/value cache, an ensemble's members one after the other. The best of three trials. */
static double decode_rate(size_t members, const ttmm_model *m, const ttmm_mix *mix, const int *token, size_t T)
{
    enum { WARM = 8, TOKENS = 24 };
    const size_t tokens = T < WARM + TOKENS ? T : WARM + TOKENS, start[2] = {0, 1};
    const real one = 1;
    double best = 0, began = 0;
    for (int trial = 0; trial < 3 && tokens > WARM; trial++) {
        for (size_t k = 0; k < members; k++) ttmm_rewind(eval.member[k], 0);
        for (size_t t = 0; t < tokens; t++) {
            if (t == WARM) began = ttmm_seconds();
            for (size_t k = 0; k < members; k++) {
                const ttmm_mix alone = {1, mix ? mix->lora + k : NULL, &one};
                ttmm_forward(eval.member[k], m, members > 1 ? &alone : mix, token + t, start, 1);
                ttmm_logits(eval.member[k], m, 0, 1);
            }
        }
        const double rate = (double)(tokens - WARM) / (ttmm_seconds() - began);
        best = rate > best ? rate : best;
    }
    return best;
}

/* One row of the table: for every prompt, prepare (that is timed), then score what follows the prefix. */
static int run_method(int m)
{
    const int how = methods[m].how, beside = how == TTMM && merge_is("lowrank");
    const int ensemble = how == ENSEMBLE || (how == TTMM && merge_is("ensemble"));
    const int prepares = how == TTMM || how == ENSEMBLE || how == TTT;
    const size_t prefix = option.prefix, n = eval.n;
    const size_t sample = option.ttt_prompts < n ? option.ttt_prompts : n;
    const ttmm_lora *adapter = how == TTT ? &ttt.lora : &eval.finetuned;
    const ttmm_model *with = how == BASE || how == TTT || ensemble || beside ? &model.base : &model.merged;
    const real one = 1;
    ttmm_mix mix = {1, &adapter, &one};
    size_t members = 1;
    double shown = ttmm_seconds();
    int code = how == FINETUNED ? merge_into(&model.merged, &mix) : TTMM_OK;
    if (how == UNIFORM) {
        for (size_t k = 0; k < model.K; k++)
            model.chosen[k] = &model.expert[k], eval.equal[k] = (real)(1 / (double)model.K);
        mix = (ttmm_mix){model.K, model.chosen, eval.equal};
        code = merge_into(&model.merged, &mix);
    }
    for (size_t i = 0; i < n && code == TTMM_OK; i++) {
        const int *token = eval.prompt[i].token;
        const size_t T = prefix + eval.prompt[i].scored;
        if (how == TTT && i * sample / n == (i + 1) * sample / n) continue; /* `sample` of them, evenly spaced */
        eval.method[m].ran[i] = 1;
        const double began = ttmm_seconds();
        if (prepares && eval.query) memcpy(model.query, eval.query + i * model.E, model.E * sizeof *model.query);
        else if (prepares) code = load_query(token, prefix);
        if (code == TTMM_OK && (how == TTMM || how == ENSEMBLE)) {
            code = route(methods[m].active ? methods[m].active : option.active);
            mix = (ttmm_mix){model.n_chosen, model.chosen, model.weight};
            if (code == TTMM_OK && !ensemble && !beside) code = merge_into(&model.merged, &mix);
        }
        if (code) return code;
        if (how == TTT) ttmm_ttt_train(ttt.trainer, &ttt.how, model.query, ttt.neighbour, ttt.scratch);
        const double seconds = ttmm_seconds() - began;
        eval.method[m].seconds[eval.method[m].prompts++] = prepares ? seconds : 0;
        eval.method[m].active += how == BASE ? 0 : (double)mix.n;
        if (how == TTMM && methods[m].active == 1 && model.corpus.clustered) count_home(&eval.prompt[i]);
        if (ensemble && mix.n > 0)
            eval.method[m].nll[i] = ttmm_score_ensemble(eval.pass, with, &mix, token, T, prefix, eval.probability);
        else eval.method[m].nll[i] = ttmm_score(eval.pass, with, how == TTT || beside ? &mix : NULL, token, T, prefix);
        if (!option.quiet && ttmm_is_terminal(stderr) && ttmm_seconds() - shown > 0.3) {
            fprintf(stderr, "\r\033[K%s: prompt %zu of %zu", methods[m].name, i + 1, n);
            shown = ttmm_seconds();
        }
    }
    if (code) return code;
    eval.method[m].active /= (double)eval.method[m].prompts;
    if (ensemble && mix.n > 0) members = mix.n < MEMBERS ? mix.n : MEMBERS;
    eval.method[m].decode = decode_rate(members, with, how == TTT || beside || ensemble ? &mix : NULL,
                                        eval.prompt[n - 1].token, prefix + eval.prompt[n - 1].scored);
    return TTMM_OK;
}

/* Negative log-likelihood of a method, over all its prompts or over those that TTT was run on. */
static double total_nll(int m, int of_ttt, size_t *tokens)
{
    double nll = 0;
    *tokens = 0;
    for (size_t i = 0; i < eval.n; i++) {
        if (!eval.method[m].ran[i] || (of_ttt && !eval.method[LAST].ran[i])) continue;
        nll += eval.method[m].nll[i], *tokens += eval.prompt[i].scored;
    }
    return nll;
}

static int verb_eval(const char *const *argument, size_t n)
{
    int code = load_eval(argument + 1, n - 1);
    for (int m = 0; m < METHODS && code == TTMM_OK; m++)
        if (eval.method[m].there) code = run_method(m);
    if (code) return code;
    clear_line();
    code = open_tsv("method\tactive\tppl\tbpb\tnll\ttokens\tprompts\ttest_time_s\tdecode_tok_s");
    if (code) return code;
    printf("%-12s %6s %11s %10s %14s %9s %13s\n", "method", "active", "perplexity", "bits/byte", "time/prompt",
           "speed-up", "decode tok/s");
    const double ttt_time = eval.method[LAST].there ? median(eval.method[LAST].seconds, eval.method[LAST].prompts) : 0;
    size_t all_tokens = 0, tokens;
    for (size_t i = 0; i < eval.n; i++) all_tokens += eval.prompt[i].scored;
    for (int m = 0; m < METHODS; m++) {
        if (!eval.method[m].there) continue;
        const double nll = total_nll(m, 0, &tokens), ppl = ttmm_exp(nll / (double)tokens);
        const double time = median(eval.method[m].seconds, eval.method[m].prompts);
        const double bpb = nll / (double)tokens * ((double)all_tokens / (double)eval.bytes) / ttmm_log(2);
        char faster[32] = "";
        if (time > 0 && ttt_time > 0) snprintf(faster, sizeof faster, "%.0f x", ttt_time / time);
        printf("%-12s %6.3g %11.3f %10.4f %11.3f ms %9s %13.0f\n", methods[m].name, eval.method[m].active, ppl, bpb,
               1e3 * time, faster, eval.method[m].decode);
        if (tsv)
            fprintf(tsv, "%s\t%.6g\t%.9g\t%.9g\t%.9g\t%zu\t%zu\t%.6g\t%.6g\n", methods[m].name, eval.method[m].active,
                    ppl, bpb, nll, tokens, eval.method[m].prompts, time, eval.method[m].decode);
    }
    if ((code = close_tsv()) != TTMM_OK) return code;
    if (eval.partly > 0)
        printf(
            "the nearest expert was trained on the file of the prompt's name for %.1f %% of the prompts, mostly on it "
            "for %.1f %%\n",
            100 * (double)eval.partly / (double)eval.n, 100 * (double)eval.mostly / (double)eval.n);
    if (!eval.method[LAST].there || eval.method[LAST].prompts == eval.n) return TTMM_OK;
    printf("ttt was run on %zu of the %zu prompts; perplexities on these:", eval.method[LAST].prompts, eval.n);
    for (int m = 0; m < METHODS; m++)
        if (eval.method[m].there) {
            const double nll = total_nll(m, 1, &tokens);
            printf("%s %s %.3f", m ? "," : "", methods[m].name, ttmm_exp(nll / (double)tokens));
        }
    printf("\n");
    return TTMM_OK;
}

/* ---- tokenize, info ---------------------------------------------------------------------------------------------- */

static int verb_tokenize(const char *const *argument, size_t n)
{
    (void)argument, (void)n;
    ttmm_corpus text = {0};
    if (option.file == NULL) return ttmm_fail(&err, TTMM_BAD_USE, "tokenize needs --file F");
    int code = ttmm_tokenizer_read(&model.tokenizer, model.folder, &err);
    if (code == TTMM_OK)
        code = ttmm_corpus_from_files(&text, model.tokenizer, &option.file, 1,
                                      option.context ? option.context : 1 << 30, &err);
    FILE *f = code ? NULL : option.output ? fopen(option.output, "w") : stdout;
    if (code == TTMM_OK && f == NULL) code = ttmm_fail(&err, TTMM_NO_ROOM, "%s: cannot be written", option.output);
    for (size_t s = 0; s < text.n_sequences && code == TTMM_OK; s++)
        for (size_t t = text.sequence[s]; t < text.sequence[s + 1]; t++)
            fprintf(f, "%d%c", text.token[t], t + 1 < text.sequence[s + 1] ? ' ' : '\n');
    const int bad = option.output && f && ferror(f);
    if (option.output && f && (fclose(f) != 0 || bad) && code == TTMM_OK)
        code = ttmm_fail(&err, TTMM_NO_ROOM, "%s: cannot be written", option.output);
    ttmm_corpus_free(&text);
    return code;
}

/* With what the program takes itself: 2.1 MiB for ./run -h on Linux, and a little for headers and the tokenizer. */
static void print_size(const char *what, size_t bytes)
{
    printf("  %-34s %10.1f MiB\n", what, (double)bytes / 1048576 + 2.3);
}

static int verb_info(const char *const *argument, size_t n)
{
    (void)argument, (void)n;
    const ttmm_config *c = &model.base.config;
    const size_t weights = model.base.n * sizeof(real), context = (size_t)c->context;
    const size_t asked = option.context ? (size_t)option.context : 1024, T = asked < context ? asked : context;
    printf("%s: %zu parameters (%s)\n", model.folder, model.base.n, sizeof(real) == 8 ? "double" : "float");
    printf("  dim %d, %d layers, %d heads (%d key/value), head_dim %d, MLP %d, vocabulary %d, context %d, %s head\n",
           c->dim, c->n_layers, c->n_heads, c->n_kv_heads, c->head_dim, c->intermediate, c->vocab, c->context,
           c->tied ? "tied" : "untied");
    int code = ttmm_exists(model.folder, "corpus.safetensors") ? load_corpus() : TTMM_OK;
    if (code == TTMM_OK && has_experts()) code = load_centroids();
    if (code == TTMM_OK && model.K) code = load_expert(0);
    if (code) return code;
    if (model.corpus.n_sequences)
        printf("  text: %zu tokens, %zu documents of %zu files, %zu sequences, embeddings of %zu numbers\n",
               model.corpus.n_tokens, model.corpus.n_documents, model.corpus.n_files, model.corpus.n_sequences,
               model.corpus.dim);
    size_t trained = 0, rank = 8;
    for (size_t k = 0; k < model.K; k++) {
        char folder[4096];
        path_of_expert(folder, k);
        trained += (size_t)ttmm_exists(folder, "adapter_model.safetensors");
        model.chosen[k] = &model.expert[0]; /* to be counted as often */
    }
    if (model.K) {
        rank = ttmm_lora_rank(&model.expert[0]);
        printf("  experts: %zu of %zu trained, rank %zu, %zu parameters each\n", trained, model.K, rank,
               model.expert[0].n);
    }
    const size_t wanted = option.active ? option.active : 10, some = wanted < model.K ? wanted : model.K;
    const ttmm_mix all = {model.K, model.chosen, NULL}, chosen = {some, model.chosen, NULL};
    const ttmm_pass_size merged = decoding_size(T, T, 0), beside = decoding_size(T, T, rank);
    const ttmm_pass_size scored = scoring_size(T, rank), step = decoding_size(1, 64, rank);
    const size_t tokens = model.corpus.n_tokens * sizeof(int) + model.corpus.n_sequences * 8 * sizeof(int);
    const size_t text = tokens + model.corpus.n_sequences * model.corpus.dim * sizeof(real);
    const size_t lora = ttmm_lora_bytes(c, (int)rank), base = weights + text + model.K * model.E * sizeof(real);
    printf("memory, with %d threads, %zu experts, and %zu tokens of prompt and answer (--active, --context):\n",
           ttmm_threads(), some, T);
    print_size("generate, experts merged in",
               base + some * lora + ttmm_merge_scratch(c, &chosen) * sizeof(real) + ttmm_pass_bytes(c, &merged));
    print_size("generate, experts beside", base + some * lora + ttmm_pass_bytes(c, &beside));
    print_size("eval", base + weights + (model.K + 1) * lora + ttmm_merge_scratch(c, &all) * sizeof(real) +
                           ttmm_pass_bytes(c, &scored) + MEMBERS * ttmm_pass_bytes(c, &step));
    if (model.corpus.n_sequences) {
        ttmm_lora l = {0};
        ttmm_recipe pretraining = {.batch = 8}, adapter = {.batch = 2};
        if (ttmm_lora_new(&l, c, (int)rank, 16, &err) == TTMM_OK) {
            print_size("train base (batch 8)",
                       weights + tokens + ttmm_trainer_bytes(c, NULL, &model.corpus, &pretraining));
            print_size("train experts, finetune (batch 2)",
                       weights + text + lora + ttmm_trainer_bytes(c, &l, &model.corpus, &adapter));
            adapter.batch = 1;
            print_size("TTT, beside generate or eval", lora + ttmm_trainer_bytes(c, &l, &model.corpus, &adapter));
        }
        ttmm_lora_free(&l);
    }
    return TTMM_OK;
}

/* ---- bench ------------------------------------------------------------------------------------------------------- */

/* A work is repeated for about a second; the fastest time counts. `flops` and `bytes` are those of the formulas,
 * 2 flops a multiply-add, every weight, key and value that is needed read or written once. Of bound: the time that the
 * machine would take for these at its measured peaks, whichever is longer, in percent of the time that it took. */
static struct {
    double flops, bandwidth; /* peaks, a second */
    ttmm_model model;
    ttmm_corpus corpus; /* made here: `batch` sequences of random tokens */
    ttmm_lora *expert;
    const ttmm_lora **adapter; /* [K] those of mix */
    ttmm_mix mix;
    ttmm_pass *pass;
    ttmm_trainer *trainer;
    real *query, *centroid, *weight, *similarity, *scratch;
    int *chosen, *token;
    size_t T, K;            /* tokens of a sequence, experts */
    size_t decoded, prompt; /* tokens: the last 8 of a sequence, decoded; the first 50, with adapters beside */
} bench;

static void work_step(void)
{
    double loss;
    ttmm_trainer_step(bench.trainer, &loss);
}

static void work_prefill(void)
{
    ttmm_rewind(bench.pass, 0);
    const size_t rows = forward_pieces(bench.pass, &bench.model, NULL, bench.token, bench.T);
    ttmm_logits(bench.pass, &bench.model, rows - 1, 1);
}

static void work_decode(void)
{
    const size_t start[2] = {0, 1};
    ttmm_rewind(bench.pass, bench.T - bench.decoded);
    for (size_t i = bench.T - bench.decoded; i < bench.T; i++) {
        ttmm_forward(bench.pass, &bench.model, NULL, bench.token + i, start, 1);
        ttmm_logits(bench.pass, &bench.model, 0, 1);
    }
}

static void work_embed(void) { ttmm_embed(bench.query, bench.token, bench.T, NULL); }

static void work_route(void)
{
    const ttmm_router r = {0.2, 0, bench.K, 0};
    size_t n;
    ttmm_route(&n, bench.chosen, bench.weight, bench.similarity, bench.query, bench.centroid, bench.K, TTMM_EMBED_DIM,
               &r, &err);
}

static void work_merge(void) /* in place, and nothing is lost: the weights of the mix are 0 */
{
    ttmm_merge(&bench.model, &bench.model, &bench.mix, bench.scratch);
}

static void work_lowrank(void)
{
    ttmm_rewind(bench.pass, 0);
    const size_t rows = forward_pieces(bench.pass, &bench.model, &bench.mix, bench.token, bench.prompt);
    ttmm_logits(bench.pass, &bench.model, rows - 1, 1);
}

static int is_wanted(const char *work) { return option.only == NULL || strstr(option.only, work) != NULL; }

/* times: how often the work is done in what is reported. */
static void measure(const char *work, void (*do_it)(void), double tokens, double flops, double bytes, double times)
{
    double best = 0, all = 0;
    if (!is_wanted(work)) return;
    for (int n = 0; n < 2 || (n < 1000 && all < 1); n++) { /* the first one warms up */
        const double began = ttmm_seconds();
        do_it();
        const double t = ttmm_seconds() - began;
        if (n > 0 && (n == 1 || t < best)) best = t;
        all += t;
    }
    const double least = larger_of(flops / bench.flops, bytes / bench.bandwidth);
    const double seconds = best * times, rate = tokens / best, percent = 100 * least / best;
    char speed[32] = "";
    if (tokens > 0) snprintf(speed, sizeof speed, "%.0f", rate);
    printf("%-8s %12.6f %12s %10.1f %10.1f %8.1f %%\n", work, seconds, speed, flops / best / 1e9, bytes / best / 1e9,
           percent);
    fflush(stdout);
    if (tsv)
        fprintf(tsv, "%s\t%.9g\t%.9g\t%.9g\t%.9g\t%.9g\n", work, seconds, rate, flops / best / 1e9, bytes / best / 1e9,
                percent);
}

/* Random weights, text, experts, centroids. */
static int load_bench(const char *folder)
{
    ttmm_config c = {.norm_eps = 1e-5, .rope_theta = 10000, .tied = 1};
    const size_t K = bench.K = option.bench_experts, B = option.batch, E = TTMM_EMBED_DIM;
    int code = TTMM_OK;
    char rest;
    if ((folder != NULL) == (option.shape != NULL))
        return ttmm_fail(&err, TTMM_BAD_USE, "bench needs a MODEL or a --shape, one of them");
    if (folder) {
        code = ttmm_model_read(&bench.model, folder, &err);
        c = bench.model.config;
    } else if (sscanf(option.shape, "%d,%d,%d,%d,%d,%d%c", &c.dim, &c.n_layers, &c.n_heads, &c.n_kv_heads,
                      &c.intermediate, &c.vocab, &rest) != 6 ||
               c.n_heads < 1)
        return ttmm_fail(&err, TTMM_BAD_USE,
                         "--shape is %.100s, expected six numbers: "
                         "dim,layers,heads,kv,intermediate,vocab",
                         option.shape);
    else {
        c.head_dim = c.dim / c.n_heads, c.context = option.bench_context;
        code = ttmm_model_new(&bench.model, &c, &err);
        if (code == TTMM_OK) ttmm_model_init(&bench.model, 1);
    }
    if (code) return code;
    bench.T = (size_t)(option.bench_context < c.context ? option.bench_context : c.context);
    bench.decoded = bench.T < 8 ? bench.T : 8, bench.prompt = bench.T < 50 ? bench.T : 50;
    ttmm_corpus *t = &bench.corpus;
    t->n_sequences = t->n_documents = B, t->n_tokens = B * bench.T;
    t->token = bench.token = malloc((t->n_tokens + 1) * sizeof *t->token);
    t->sequence = malloc((B + 1) * sizeof *t->sequence);
    bench.query = new_reals(E), bench.centroid = new_reals(K * E), bench.weight = new_reals(K);
    bench.similarity = new_reals(K), bench.chosen = calloc(K, sizeof *bench.chosen);
    bench.expert = calloc(K, sizeof *bench.expert), bench.adapter = calloc(K, sizeof *bench.adapter);
    real *zero = calloc(K, sizeof *zero);
    if (!t->token || !t->sequence || !bench.query || !bench.centroid || !bench.weight || !bench.similarity ||
        !bench.chosen || !bench.expert || !bench.adapter || !zero)
        return ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for the bench");
    ttmm_rng g = ttmm_stream(1, "bench", 0);
    for (size_t i = 0; i < t->n_tokens; i++)
        t->token[i] = (int)ttmm_below(&g, (uint64_t)(c.vocab < 256 ? c.vocab : 256)); /* bytes, too */
    for (size_t i = 0; i <= B; i++) t->sequence[i] = i * bench.T;
    for (size_t i = 0; i < K * E; i++) bench.centroid[i] = (real)(ttmm_normal(&g) / 45); /* 45^2 is about E */
    ttmm_embed(bench.query, t->token, bench.T, NULL);
    bench.mix = (ttmm_mix){K, bench.adapter, zero};
    return TTMM_OK;
}

static int load_bench_experts(void)
{
    int code = TTMM_OK;
    for (size_t k = 0; k < bench.K && code == TTMM_OK; k++) {
        code = ttmm_lora_new(&bench.expert[k], &bench.model.config, option.rank, 2.0 * option.rank, &err);
        if (code == TTMM_OK) ttmm_lora_init(&bench.expert[k], 1, k);
        bench.adapter[k] = &bench.expert[k];
    }
    if (code == TTMM_OK && (bench.scratch = new_reals(ttmm_merge_scratch(&bench.model.config, &bench.mix))) == NULL)
        code = ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for merging");
    return code;
}

/* A training step of all weights, or (lora) of an adapter; `name` of the row. times: see measure. */
static int measure_training(const char *name, ttmm_lora *lora, size_t batch, double flops, double bytes, double times)
{
    ttmm_recipe r = {.schedule = {.lr = 0}, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip = 1, .batch = batch};
    const size_t need = ttmm_trainer_bytes(&bench.model.config, lora, &bench.corpus, &r), have = ttmm_memory();
    if (!is_wanted(name)) return TTMM_OK;
    if (have && need + bench.model.n * sizeof(real) > have / 10 * 9) {
        printf("%-8s left out: it takes %.0f MiB beside the weights\n", name, (double)need / 1048576);
        return TTMM_OK;
    }
    int code = ttmm_trainer_new(&bench.trainer, &bench.model, lora, &bench.corpus, &r, &err);
    if (code) return code;
    ttmm_trainer_start(bench.trainer, NULL, 0, 1 << 30, 0, 0);
    measure(name, work_step, (double)(batch * bench.T), flops, bytes, times);
    ttmm_trainer_free(bench.trainer);
    return TTMM_OK;
}

static int verb_bench(const char *const *argument, size_t n)
{
    int code = load_bench(n ? argument[0] : NULL);
    if (code) return code;
    const ttmm_config *c = &bench.model.config;
    const double L = c->n_layers, HS = (double)c->n_heads * c->head_dim, GS = (double)c->n_kv_heads * c->head_dim;
    const double P = L * c->dim * (2 * HS + 2 * GS + 3.0 * c->intermediate), head = (double)c->vocab * c->dim;
    const double T = (double)bench.T, N = T * (double)option.batch, K = (double)bench.K, E = TTMM_EMBED_DIM;
    const double decoded = (double)bench.decoded;
    const double a = option.rank * L * (4 * (double)c->dim + 2 * (HS + GS) + 3 * ((double)c->dim + c->intermediate));
    const double word = sizeof(real),
                 attention = 2 * L * HS * T; /* multiply-adds of a token, causal: half of all pairs */
    bench.flops = ttmm_peak_flops(), bench.bandwidth = ttmm_peak_bandwidth();
    printf("%s: %zu parameters; batch %zu, %zu tokens, rank %d, %zu experts, %d threads\n",
           option.shape ? option.shape : argument[0], bench.model.n, option.batch, bench.T, option.rank, bench.K,
           ttmm_threads());
    printf("this machine at most: %.0f GFLOP/s (multiply-add in registers), %.1f GB/s (reading memory)\n",
           bench.flops / 1e9, bench.bandwidth / 1e9);
    printf("%-8s %12s %12s %10s %10s %10s\n", "work", "seconds", "tokens/s", "GFLOP/s", "GB/s", "of bound");
    if ((code = open_tsv("work\tseconds\ttok_s\tgflop_s\tgb_s\tbound_pct")) != TTMM_OK) return code;
    const double step = 4 * (P + head) + 2.5 * a + 3.5 * attention; /* of LoRA, a token: dW is not needed */
    code = measure_training("train", NULL, option.batch, N * (6 * (P + head) + 3.5 * attention),
                            9 * word * (double)bench.model.n, 1);
    if (code == TTMM_OK) code = load_bench_experts();
    if (code == TTMM_OK)
        code = measure_training("lora", &bench.expert[0], option.batch, N * (step + 4.5 * a), 2 * word * (P + head), 1);
    const ttmm_pass_size size = decoding_size(bench.T, bench.T, (size_t)option.rank);
    if (code == TTMM_OK) code = ttmm_pass_new(&bench.pass, c, &size, &err);
    if (code) return code;
    measure("prefill", work_prefill, T, T * (2 * P + attention) + 2 * head, word * (P + head), 1);
    measure("decode", work_decode, decoded, decoded * (2 * (P + head) + 2 * attention),
            decoded * word * (P + head + 2 * L * GS * T), 1);
    measure("embed", work_embed, T, 0, word * E, 1);
    measure("route", work_route, 0, 2 * K * E, word * K * E, 1);
    measure("merge", work_merge, 0, 2 * K * P * option.rank, 2 * word * P, 1);
    measure("lowrank", work_lowrank, 0, (double)bench.prompt * (2 * P + 2 * K * a) + 2 * head,
            word * (P + head + K * a), 1);
    code = measure_training("ttt", &bench.expert[0], 1, T * (step + 4.5 * a), 2 * word * (P + head),
                            (double)option.neighbours * option.passes);
    return code ? code : close_tsv();
}

/* ---- main -------------------------------------------------------------------------------------------------------- */

static const ttmm_verb verbs[] = {
    {"generate", "MODEL [\"prompt\"]", "route the prompt to the experts, merge them, decode", 1, 2},
    {"route", "MODEL [\"prompt\"]", "the experts chosen, their weights, and what they were trained on", 1, 2},
    {"eval", "MODEL FILE...", "the paper's table on held-out text", 2, 1 << 30},
    {"merge", "MODEL [\"prompt\"] -o DIR", "write the merged model as a Hugging Face checkpoint", 1, 2},
    {"trace", "MODEL [\"prompt\"] -o F", "every named intermediate, to a safetensors file", 1, 2},
    {"compare", "A B", "two safetensors files, tensor by tensor; A is the reference", 2, 2},
    {"tokenize", "MODEL --file F [-o IDS]", "the token ids of a text, one line a document or sequence", 1, 1},
    {"info", "MODEL", "parameters, experts, and the memory that generate, eval and training take", 1, 1},
    {"bench", "[MODEL]", "the speed of every kind of work, beside what bounds it on this machine", 0, 1},
};
enum { VERBS = sizeof verbs / sizeof *verbs };
static int (*const action[VERBS])(const char *const *argument, size_t n) = {
    verb_generate, verb_route, verb_eval, verb_merge, verb_trace, verb_compare, verb_tokenize, verb_info, verb_bench,
};
static const ttmm_program program = {"run", verbs, VERBS, options, sizeof options / sizeof *options};

static int is_one_of(const char *value, const char *a, const char *b, const char *c, const char *name)
{
    if (strcmp(value, a) == 0 || strcmp(value, b) == 0 || (c && strcmp(value, c) == 0)) return TTMM_OK;
    return ttmm_fail(&err, TTMM_BAD_USE, "--%s is %.100s, expected %s, %s%s%s", name, value, a, b, c ? " or " : "",
                     c ? c : "");
}

int main(int argc, char **argv)
{
    static const char **argument; /* static: reachable to the end, whichever return is taken */
    size_t n, v;
    argument = calloc((size_t)argc + 1, sizeof *argument);
    if (argument == NULL) return -TTMM_NO_ROOM;
    int code = ttmm_command(&v, argument, &n, &program, argc, argv, &err);
    if (code > 0) {
        ttmm_usage(argc < 2 ? stderr : stdout, &program, v);
        return argc < 2 ? -TTMM_BAD_USE : 0;
    }
    if (code == TTMM_OK && option.merge) code = is_one_of(option.merge, "dense", "lowrank", "ensemble", "merge");
    if (code == TTMM_OK && option.dtype) code = is_one_of(option.dtype, "f32", "f16", "bf16", "dtype");
    if (code == TTMM_OK) code = is_one_of(option.select, "nn", "sift", NULL, "select");
    ttmm_limit_threads(option.threads);
    if (code == TTMM_OK && strncmp(verbs[v].arguments, "MODEL", 5) == 0)
        code = action[v] == verb_info || action[v] == verb_tokenize ? load_config(argument[0]) : load_base(argument[0]);
    if (code == TTMM_OK && strstr(verbs[v].arguments, "prompt")) code = load_prompt(n > 1 ? argument[1] : NULL);
    if (code == TTMM_OK) code = action[v](argument, n);
    if (code == TTMM_OK && (fflush(stdout) != 0 || ferror(stdout)))
        code = ttmm_fail(&err, TTMM_NO_ROOM, "standard output cannot be written");
    if (code) clear_line(), fprintf(stderr, "run: %s\n", err.text);
    return -code;
}
