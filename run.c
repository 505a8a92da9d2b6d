/* run.c - the test-time side of ttmm: route a prompt to the experts, merge them, decode, and measure it all against the
 * base model, the fine-tuned baseline and test-time training. It parses arguments, loads what a verb needs and prints
 * tables; the mathematics is in ttmm.c. Results go to standard output, notes and progress to standard error. Its
 * 2,200 lines are twelve verbs, a fifth of them the paper's table, whose prompts may be answered several at once. */
#define TTMM_PROGRAM "run"
#include "ttmm.h"

#include <string.h>

/* clang-format off */
static struct options {
    double beta, tau, temperature, top_p, ttt_lr, lambda;
    double atol, rtol;
    size_t max, active, prefix, tokens, top_k, neighbours, ttt_prompts, prompts, batch, bench_experts, length, decoded;
    int epochs, seed, threads, jobs, no_experts, ttt, route, cached, grad, by_row, print_ids, eval_ids, rank, lines;
    int steps;
    int context, bench_context;
    const char *shape, *only;
    int embedding;
    const char *merge, *adapter, *experts, *centroids, *encoder, *query, *file, *ids, *select, *output, *dtype, *tsv;
    const char *each, *precision;
} option = {.tau = 0.01, .max = 50, .prefix = 50, .tokens = 200, .temperature = 0.8, .top_p = 0.95, .ttt_lr = 8e-3,
            .lambda = 0.01, .neighbours = 20, .epochs = 6, .ttt_prompts = 48, .rtol = 1e-5, .seed = 1, .select = "nn",
            .batch = 8, .bench_context = 256, .rank = 8, .bench_experts = 10, .jobs = 1,
            .steps = 20, .length = 40, .decoded = 50};
/* clang-format on */
static struct options usual; /* as they are before the command line is read */

#define EVERY " generate route eval merge trace export compare check tokenize info witness bench "
#define ROUTED " generate route eval merge trace "
#define FOLDERS " generate route eval merge trace export info witness "
#define PROMPTED " generate route merge trace "
#define TRAINED " generate eval "
#define TABLE_ROWS "base finetuned ttmm-1 ttmm-3 ttmm-10 ttmm ensemble-10 uniform ttt"
#define STAGES "functions init pass train expert cluster route merge beside greedy"
#define WORKS "train lora prefill decode embed route merge lowrank beside ttt"
#define TIMED " generate eval bench "
static const ttmm_option options[] = {
    {"beta", 'f', &option.beta, 1e-6, 1e6, ROUTED,
     "width of the kernel, the square root of the paper's beta (0.12; with outside embeddings 0.2)"},
    {"tau", 'f', &option.tau, 0, 1, ROUTED, "experts of a lower weight are left out (0.01)"},
    {"max", 'n', &option.max, 1, 1e6, ROUTED, "at most so many experts (50)"},
    {"active", 'n', &option.active, 1, 1e6, " generate route merge trace ",
     "exactly this many experts, the nearest, whatever tau and max"},
    {"active", 'n', &option.active, 1, 1e6, " eval ", "exactly this many experts, the nearest, in the row ttmm"},
    {"active", 'n', &option.active, 1, 1e6, " info ", "experts that take part (10)"},
    {"prefix", 'n', &option.prefix, 1, 1e6, ROUTED, "tokens of the prompt that are embedded (50)"},
    {"encoder", 's', &option.encoder, 0, 0, " generate route eval merge trace info ",
     "embed the prompt with a sentence encoder: its folder, as for train index"},
    {"embedding", 'b', &option.embedding, 0, 1, " trace ",
     "the encoder's intermediates: \"text\" --encoder DIR, no MODEL"},
    {"query", 's', &option.query, 0, 0, PROMPTED, "safetensors file with the query embedding [D]"},
    {"query", 's', &option.query, 0, 0, " eval ",
     "embeddings of its prompts [n, D]: of each sequence of run tokenize --context N longer than the prefix"},
    {"experts", 's', &option.experts, 0, 0, FOLDERS, "folder of the experts 0, 1 ... (MODEL/experts)"},
    {"centroids", 's', &option.centroids, 0, 0, FOLDERS,
     "safetensors file with their centroids [K, D] (MODEL/centroids.safetensors)"},
    {"merge", 'w', &option.merge, 0, 0, " generate ",
     "dense (into the weights), lowrank (beside them) or ensemble (the faster of the first two)"},
    {"merge", 'w', &option.merge, 0, 0, " eval ",
     "how the rows ttmm do it: dense (into the weights), lowrank (beside them) or ensemble (dense)"},
    {"merge", 'w', &option.merge, 0, 0, " trace ", "dense (into the weights) or lowrank (beside them) (dense)"},
    {"adapter", 's', &option.adapter, 0, 0, " generate trace ", "folder of one adapter, instead of routing"},
    {"route", 'b', &option.route, 0, 1, " trace ",
     "with experts, chosen for the prompt (without: the base model alone)"},
    {"cached", 'b', &option.cached, 0, 1, " trace ", "token by token through the key/value cache"},
    {"grad", 'b', &option.grad, 0, 1, " trace ",
     "the gradients of the mean next-token loss: of the adapters beside the weights, else of the weights "
     "(with --merge dense the merged ones)"},
    {"atol", 'f', &option.atol, 0, 1e300, " compare ", "absolute tolerance (0)"},
    {"rtol", 'f', &option.rtol, 0, 1e300, " compare ", "tolerance relative to a tensor's largest value (1e-5)"},
    {"by-row", 'b', &option.by_row, 0, 1, " compare ",
     "rtol is relative to the largest value of a number's row (the last axis)"},
    {"precision", 'w', &option.precision, 0, 0, " check ",
     "f64, f32, bf16 or f16: which of the manifest's tolerances holds"},
    {"no-experts", 'b', &option.no_experts, 0, 1, " generate ", "the base model alone"},
    {"ttt", 'b', &option.ttt, 0, 1, " generate ", "test-time training instead of merging"},
    {"neighbours", 'n', &option.neighbours, 1, 1e6, TIMED, "sequences that TTT trains on (20)"},
    {"passes", 'i', &option.epochs, 1, 1e4, TIMED, "epochs over them (6)"},
    {"ttt-lr", 'f', &option.ttt_lr, 0, 10, TRAINED, "learning rate of TTT (0.008)"},
    {"select", 'w', &option.select, 0, 0, TRAINED, "how TTT selects them: nn (the nearest; default) or sift"},
    {"lambda", 'f', &option.lambda, 1e-6, 1e6, TRAINED,
     "noise of SIFT: with more it selects nearer sequences, and these again (0.01)"},
    {"prompts", 'n', &option.prompts, 1, 1e9, " eval ", "so many prompts, evenly spaced among all (all)"},
    {"ttt-prompts", 'n', &option.ttt_prompts, 0, 1e9, " eval ", "prompts that TTT is evaluated on (48; 0: none)"},
    {"tokens", 'n', &option.tokens, 1, 1e6, " generate ", "most tokens to generate (200)"},
    {"tokens", 'n', &option.decoded, 1, 1e6, " witness ", "that are decoded (50)"},
    {"temperature", 'f', &option.temperature, 0, 100, " generate ", "of sampling; 0 is greedy (0.8)"},
    {"top-k", 'n', &option.top_k, 0, 1e9, " generate ", "sample from the k likeliest tokens (0: all)"},
    {"top-p", 'f', &option.top_p, 0, 1, " generate ", "sample from the fewest tokens that make up p (0.95)"},
    {"file", 's', &option.file, 0, 0, PROMPTED, "take the prompt from a file (without any: from standard input)"},
    {"file", 's', &option.file, 0, 0, " tokenize ", "the text"},
    {"ids", 's', &option.ids, 0, 0, PROMPTED, "take the prompt from a file of token ids"},
    {"ids", 'b', &option.eval_ids, 0, 1, " eval ",
     "the files hold token ids, one document a line, as run tokenize writes them"},
    {"print-ids", 'b', &option.print_ids, 0, 1, " generate ", "the ids of the new tokens, instead of text"},
    {"context", 'i', &option.context, 2, 1 << 22, " eval ", "longest sequence (the model's, at most 1024)"},
    {"context", 'i', &option.context, 2, 1 << 22, " tokenize ", "longest sequence (documents are whole)"},
    {"context", 'i', &option.context, 2, 1 << 22, " info ", "tokens of prompt and answer (1024; at most the model's)"},
    {"context", 'i', &option.context, 2, 1 << 22, " export ",
     "tokens of prompt and answer that RAM is told for (64; at most the model's)"},
    {"dtype", 'w', &option.dtype, 0, 0, " merge ", "how weights are stored: f32, f16 or bf16 (as computed: f32)"},
    {"dtype", 'w', &option.dtype, 0, 0, " export ", "how weights are stored: f32 or bf16 (f32)"},
    {"output", 'o', &option.output, 0, 0, " merge trace tokenize ", "(-o) where to write"},
    {"output", 'o', &option.output, 0, 0, " export ", "(-o) where to write: F.h (C), F.bin (bytes)"},
    {"seed", 'i', &option.seed, 0, 2147483647, TRAINED, "of all random numbers (1)"},
    {"shape", 'w', &option.shape, 0, 0, " bench ",
     "random weights of dim,layers,heads,kv,intermediate,vocab instead of MODEL"},
    {"only", 'w', &option.only, 0, 0, " eval ", "some of " TABLE_ROWS " (all)"},
    {"only", 'w', &option.only, 0, 0, " bench ", "some of " WORKS " (all)"},
    {"only", 'w', &option.only, 0, 0, " witness ", "some of " STAGES " (all)"},
    {"length", 'n', &option.length, 4, 1 << 20, " witness ", "tokens of the longest sequence (40)"},
    {"steps", 'i', &option.steps, 1, 1 << 20, " witness ", "of an expert's training (20)"},
    {"each", 'b', &option.lines, 0, 1, " witness ", "a line for each tensor, instead of each stage"},
    {"batch", 'n', &option.batch, 1, 65536, " bench ", "sequences of a training step (8)"},
    {"context", 'i', &option.bench_context, 16, 1 << 20, " bench ", "tokens of a sequence (256)"},
    {"rank", 'i', &option.rank, 1, 4096, " bench ", "of the adapters (8)"},
    {"experts", 'n', &option.bench_experts, 1, 1e6, " bench ", "that are routed to and merged (10)"},
    {"jobs", 'i', &option.jobs, 1, 1024, " eval ",
     "prompts answered at once, with a copy of the weights each: alters the times, no other figure (1)"},
    {"threads", 'i', &option.threads, 1, 1024, EVERY,
     "threads (all processors, or OMP_NUM_THREADS); the results do not depend on it"},
    {"tsv", 'o', &option.tsv, 0, 0, " route eval compare check bench ", "write the table to a file, tab-separated"},
    {"each", 's', &option.each, 0, 0, " eval ",
     "a line for each prompt and method, as they are done; those in the file, but each last one, are not done again"},
    {"quiet", 'b', &quiet, 0, 1, EVERY, "no notes, no progress"},
};

static const char **argument; /* what is no option on the command line */
static size_t n_arguments;
static FILE *tsv; /* the table of --tsv, if it is asked for */

static void open_tsv(const char *columns)
{
    if (option.tsv == NULL) return;
    tsv = open_output(option.tsv);
    fprintf(tsv, "%s\n", columns);
}

static void close_tsv(void)
{
    if (tsv) close_output(tsv, option.tsv);
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* --only: names of methods, works or stages, with blanks or commas between them. */
static void check_only(const char *names)
{
    char word[32];
    size_t n;
    if (option.only && option.only[strspn(option.only, " ,")] == 0)
        FAIL(TTMM_BAD_USE, "--only is \"%.100s\", expected some of%s", option.only, names);
    for (const char *p = option.only; p && *p; p += n + (p[n] != 0)) {
        n = strcspn(p, " ,");
        snprintf(word, sizeof word, " %.*s ", (int)smaller(n, 28), p); /* none has so long a name */
        if (n > 0 && strstr(names, word) == NULL)
            FAIL(TTMM_BAD_USE, "--only has %.*s, expected some of%s", (int)smaller(n, 100), p, names);
    }
}

static int is_wanted(const char *name)
{
    const size_t n = strlen(name);
    for (const char *p = option.only; p && (p = strstr(p, name)) != NULL; p += n)
        if ((p == option.only || strchr(" ,", p[-1])) && strchr(" ,", p[n])) return 1; /* 0 is in " ,", too */
    return option.only == NULL;
}

/* ---- What a verb loads ------------------------------------------------------------------------------------------- */

static struct {
    const char *folder;
    ttmm_model base;
    ttmm_tokenizer *tokenizer; /* NULL: bytes, or not loaded */
    int no_tokenizer;          /* 1: there is none that can be read; token ids are given and printed */
    ttmm_corpus corpus;        /* of the training text; n_sequences is 0 if there is none */
    real *centroid;            /* [K, E] */
    ttmm_lora *expert;         /* [K], loaded when they are first chosen (matrix is NULL before) */
    ttmm_mixture with;         /* the base with its experts */
    ttmm_encoder *encoder;     /* of --encoder, or NULL */
    real *query;               /* [E] that is given, or NULL */
} model;

static int *prompt; /* [prompt_tokens] */
static size_t prompt_tokens;

static void load_corpus(int embeddings) /* only TTT looks at them */
{
    check(ttmm_corpus_open(&model.corpus, model.folder, model.base.config.vocab, embeddings, &err));
    model.with.E = model.corpus.dim; /* the centroids', if there are any, take its place */
}

static void path_of_expert(char path[4096], size_t k)
{
    snprintf(path, 4096, "%s%s/%zu", option.experts ? option.experts : model.folder, option.experts ? "" : "/experts",
             k);
}

static void list_experts(size_t K)
{
    model.with.K = K;
    model.expert = allocate(K, sizeof *model.expert, "the list of experts");
}

/* What makes routing another one than was meant. path: of the centroids */
static void note_centroids(const char *path)
{
    const size_t K = model.with.K, E = model.with.E;
    char folder[4096];
    for (size_t k = 0; k < K; k++) {
        double square = 0;
        for (size_t e = 0; e < E; e++) square += (double)model.centroid[k * E + e] * (double)model.centroid[k * E + e];
        if (square > 0.99 && square < 1.01) continue;
        fprintf(stderr, "%s: row %zu has the squared length %.3g, expected 1: routing takes it as it is\n", path, k,
                square);
        break;
    }
    if (option.centroids && option.query == NULL && model.corpus.idf) {
        char theirs[1024], ours[1024];
        snprintf(folder, sizeof folder, "%s/corpus.safetensors", model.folder);
        check(ttmm_note(theirs, sizeof theirs, path, &err)), check(ttmm_note(ours, sizeof ours, folder, &err));
        const char *index = strstr(theirs, "index: text ");
        if (index && *ours && strncmp(index, ours, 28) != 0) /* as far as the text's fingerprint */
            fprintf(stderr, "%s: is of other text than %s, by whose idf the prompt is embedded\n", path, folder);
    }
    for (size_t k = 0; k <= K; k++) {
        path_of_expert(folder, k);
        if (ttmm_exists(folder, "adapter_config.json") == (k < K)) continue;
        if (k < K) fprintf(stderr, "%s: is missing, but there are %zu centroids: choosing it will fail\n", folder, K);
        else fprintf(stderr, "%s: will never be chosen, there are only %zu centroids\n", folder, K);
        break;
    }
}

static void load_centroids(void)
{
    char path[4096];
    size_t K;
    snprintf(path, sizeof path, "%s%s", option.centroids ? option.centroids : model.folder,
             option.centroids ? "" : "/centroids.safetensors");
    check(ttmm_array_read(&model.centroid, &K, &model.with.E, path, "embeddings", &err));
    list_experts(K);
    if (!quiet) note_centroids(path);
}

static const ttmm_lora *load_expert(size_t k)
{
    char folder[4096];
    path_of_expert(folder, k);
    if (model.expert[k].matrix == NULL) check(ttmm_lora_open(&model.expert[k], &model.base.config, folder, &err));
    return &model.expert[k];
}

/* Whether there are experts to route to, or should be: a piece that is missing is then an error where it is read. */
static int has_experts(void)
{
    return option.experts || option.centroids || ttmm_exists(model.folder, "centroids.safetensors") ||
           ttmm_exists(model.folder, "experts/0/adapter_config.json");
}

/* The encoder must be the one that embedded the text. (Of centroids without text nobody knows.) */
static void check_encoder(void)
{
    const char *is = ttmm_encoder_fingerprint(model.encoder), *was = model.corpus.encoder;
    if (model.corpus.n_sequences && strcmp(is, was) != 0)
        FAIL(TTMM_BAD_INPUT, "%s: its text was embedded %s%s, and --encoder %s is %s", model.folder,
             *was ? "by the encoder " : "without an encoder", was, option.encoder, is);
    if (model.no_tokenizer)
        FAIL(TTMM_BAD_INPUT, "%s: has no tokenizer that can be used: --encoder needs the text of the tokens",
             model.folder);
    if (model.with.E != ttmm_encoder_dim(model.encoder))
        FAIL(TTMM_BAD_INPUT, "%s: the centroids have %zu numbers, the encoder's embeddings %zu", model.folder,
             model.with.E, ttmm_encoder_dim(model.encoder));
}

/* Without --query a prompt's embedding is that of --encoder, or the built-in one, of its first tokens: can that be
 * computed? */
static void check_embedding(void)
{
    if (model.encoder) {
        check_encoder();
        return;
    }
    if (model.corpus.encoder[0])
        FAIL(TTMM_BAD_INPUT,
             "%s: its text was embedded by the encoder %s: the prompt's embedding needs it, --encoder DIR",
             model.folder, model.corpus.encoder);
    if (model.corpus.idf == NULL)
        FAIL(TTMM_BAD_INPUT, "%s: has no index of its own embeddings: the prompt's must come by --query", model.folder);
    if (model.no_tokenizer && !model.corpus.by_ids)
        FAIL(TTMM_BAD_INPUT, "%s: has no tokenizer that can be used: the prompt's embedding must come by --query",
             model.folder);
    if (model.with.E != TTMM_EMBED_DIM)
        FAIL(TTMM_BAD_INPUT, "%s: the centroids have %zu numbers, the built-in embedding %d", model.folder,
             model.with.E, TTMM_EMBED_DIM);
}

/* model.query: that of --query, or NULL. */
static void load_query(void)
{
    const size_t E = model.with.E;
    size_t rows, cols;
    if (option.query == NULL) {
        check_embedding();
        return;
    }
    check(ttmm_array_read(&model.query, &rows, &cols, option.query, "embedding", &err));
    if (rows * cols != E)
        FAIL(TTMM_BAD_INPUT, "%s: the query has %zu numbers, expected %zu as the %s", option.query, rows * cols, E,
             model.centroid ? "centroids" : "text's embeddings");
}

/* --merge, or what is done without it. */
static int how_to_merge(int otherwise)
{
    if (option.merge == NULL) return otherwise;
    return strcmp(option.merge, "dense") == 0     ? TTMM_DENSE
           : strcmp(option.merge, "lowrank") == 0 ? TTMM_LOWRANK
                                                  : TTMM_ENSEMBLE;
}

static const ttmm_lora *expert_of(void *context, size_t k, ttmm_error *e)
{
    (void)context, (void)e; /* a failure ends the program */
    return load_expert(k);
}

/* What is loaded becomes what answers prompts; experts are merged into `merged`. */
static void begin_mixture(ttmm_mixture *x, ttmm_model *merged, size_t active)
{
    *x = model.with;
    x->base = &model.base, x->merged = merged,
    x->tokenizer = model.corpus.by_ids ? ttmm_tokenizer_of_ids() : model.tokenizer;
    x->centroid = model.centroid, x->encoder = model.encoder, x->prefix = option.prefix;
    x->idf = x->E == TTMM_EMBED_DIM ? model.corpus.idf : NULL; /* centroids may be from elsewhere */
    x->router.beta = option.beta > 0 ? option.beta : x->idf ? 0.12 : 0.2;
    x->router.tau = option.tau, x->router.max = option.max, x->router.active = active;
    x->load = expert_of;
    check(ttmm_mixture_new(x, &err));
}

/* All experts, with equal weights. */
static ttmm_mix all_experts(void)
{
    ttmm_mixture *x = &model.with;
    for (size_t k = 0; k < x->K; k++) {
        x->lora[k] = load_expert(k);
        x->weight[k] = (real)(1 / (double)x->K);
    }
    return (ttmm_mix){x->K, x->lora, x->weight};
}

/* All that routing needs; experts are merged into the base in place, as this process answers one prompt, or, if the
 * base is mapped, into a copy that is made when it is needed. */
static void load_routing(void)
{
    static ttmm_model copy;
    if (ttmm_exists(model.folder, "corpus.safetensors")) load_corpus(0);
    load_centroids();
    begin_mixture(&model.with, model.base.view ? &copy : &model.base, option.active);
    load_query();
}

static void choose_experts(void)
{
    load_routing();
    check(ttmm_choose(&model.with, prompt, prompt_tokens, model.query, &err));
}

typedef struct { /* TTT of one prompt after the other */
    ttmm_ttt how;
    ttmm_lora lora;
    const ttmm_lora *at;
    ttmm_trainer *trainer;
    size_t *neighbour;
    real *scratch;
} tuner;

/* What takes part in a pass: nothing; one adapter alone. */
static ttmm_lora adapter;
static const ttmm_lora *const adapter_at = &adapter;
static const real one = 1;
static const ttmm_mix nothing = {0}, adapter_alone = {1, &adapter_at, &one};

/* Of ttmm_ttt: SIFT's, or 0 for the nearest. */
static double lambda(void) { return strcmp(option.select, "sift") == 0 ? option.lambda : 0; }

static void load_ttt(tuner *ttt)
{
    ttmm_lora like = {0};
    char folder[4096];
    int rank = 8;
    double alpha = 16;
    ttmm_recipe recipe = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip = 1, .batch = 1};
    recipe.schedule.lr = option.ttt_lr, recipe.schedule.last = 0.05, recipe.seed = (uint64_t)option.seed;
    const ttmm_corpus *text = &model.corpus;
    const int context = model.base.config.context;
    if (text->dim == 0) FAIL(TTMM_BAD_INPUT, "%s: has no indexed text for TTT: run train index", model.folder);
    if (text->dim != model.with.E)
        FAIL(TTMM_BAD_INPUT, "%s: the text's embeddings have %zu numbers, the centroids %zu: TTT cannot use the query",
             model.folder, text->dim, model.with.E);
    if (ttmm_longest_sequence(text) > (size_t)context)
        FAIL(TTMM_BAD_INPUT, "%s: has sequences of %zu tokens, the base takes %d: train index --context %d",
             model.folder, ttmm_longest_sequence(text), context, context);
    path_of_expert(folder, 0);
    if (ttmm_exists(folder, "adapter_config.json")) { /* of the experts' form */
        check(ttmm_lora_open(&like, &model.base.config, folder, &err));
        rank = (int)ttmm_lora_rank(&like), alpha = like.alpha;
        ttmm_lora_free(&like);
    }
    ttt->how.neighbours = smaller(option.neighbours, model.corpus.n_sequences);
    ttt->how.epochs = option.epochs, ttt->how.lambda = lambda();
    check(ttmm_lora_new(&ttt->lora, &model.base.config, rank, alpha, &err));
    ttt->at = &ttt->lora;
    check(ttmm_trainer_new(&ttt->trainer, &model.base, &ttt->lora, &model.corpus, &recipe, &err));
    ttt->neighbour = allocate(ttt->how.neighbours, sizeof *ttt->neighbour, "TTT");
    ttt->scratch = allocate(ttmm_ttt_scratch(&ttt->how, &model.corpus), sizeof *ttt->scratch, "TTT");
}

static ttmm_pass_size scoring_size(size_t T, size_t rank)
{
    enum { ROWS = 64 }; /* of logits at a time: they are the largest thing where the vocabulary is large */
    return (ttmm_pass_size){.tokens = T, .sequences = 1, .logits = smaller(T, ROWS), .rank = rank};
}

/* ---- Prompts ----------------------------------------------------------------------------------------------------- */

/* All of a stream, with a zero byte after its n. */
static char *read_stream(size_t *n, FILE *f, const char *name)
{
    size_t room = 1 << 16;
    char *text = allocate(room + 1, 1, "the prompt");
    *n = 0;
    for (size_t got; !feof(f) && (got = ttmm_read(text + *n, room - *n, f)) > 0;) {
        *n += got;
        if (room - *n >= TTMM_LEAST_READ) continue;
        room *= 2;
        text = realloc(text, room + 1);
        if (text == NULL) FAIL(TTMM_NO_ROOM, "out of memory for the prompt");
    }
    if (ferror(f)) FAIL(TTMM_BAD_INPUT, "%s: cannot be read", name);
    text[*n] = 0;
    return text;
}

/* The tokenizer; where ids are given it need not be one that can be read. */
static void load_tokenizer(int ids)
{
    model.no_tokenizer = ttmm_tokenizer_read(&model.tokenizer, model.folder, &err) != TTMM_OK;
    if (model.no_tokenizer && !ids) check(err.code);
}

/* The prompt: the argument, --file, --ids, or standard input. */
static void load_prompt(const char *given)
{
    const char *path = option.ids ? option.ids : option.file;
    const char *name = path ? path : given ? "the prompt" : "standard input";
    char *read = NULL;
    size_t n = 0;
    if ((given != NULL) + (option.file != NULL) + (option.ids != NULL) > 1)
        FAIL(TTMM_BAD_USE, "a prompt comes as an argument, by --file or by --ids: one of these");
    if (path) {
        FILE *f = ttmm_open(path, "rb");
        if (f == NULL) FAIL(TTMM_BAD_INPUT, "%s: cannot be opened", path);
        read = read_stream(&n, f, name);
        fclose(f);
    } else if (given) {
        n = strlen(given);
    } else {
        if (ttmm_is_terminal(stdin) && !quiet)
            fprintf(stderr, "prompt (end with Ctrl-D; on Windows Ctrl-Z and Enter): ");
        read = read_stream(&n, stdin, name);
    }
    const char *text = read ? read : given;
    const size_t mark = ttmm_byte_order_mark(text, n); /* of a file made on Windows */
    text += mark, n -= mark;
    load_tokenizer(option.ids != NULL);
    if (model.no_tokenizer) option.print_ids = 1;
    check(option.ids ? ttmm_read_ids(&prompt, &prompt_tokens, text, n, model.base.config.vocab, name, &err)
                     : ttmm_tokenize(&prompt, &prompt_tokens, model.tokenizer, text, n, &err));
    free(read);
    if (n == 0 || prompt_tokens == 0) FAIL(TTMM_BAD_INPUT, "%s is empty", name);
}

/* ---- route ------------------------------------------------------------------------------------------------------- */

/* Whether the experts are those of the corpus's clusters. */
static int knows_origins(void) { return model.corpus.clustered && option.centroids == NULL; }

/* How many of an expert's sequences came from each training file: count [n_files] */
static void count_origins(real *count, int expert)
{
    const ttmm_corpus *c = &model.corpus;
    memset(count, 0, c->n_files * sizeof *count);
    for (size_t i = 0; i < c->n_sequences; i++)
        if (c->cluster[i] == expert) count[c->document_file[c->sequence_document[i]]]++;
}

/* "cookbook 14, garden 3": the files that the expert's sequences came from. */
static void print_origins(int expert)
{
    const ttmm_corpus *c = &model.corpus;
    if (!knows_origins()) return;
    real *count = allocate(c->n_files, sizeof *count, "the names of files");
    count_origins(count, expert);
    for (int shown = 0; shown < 3; shown++) {
        const size_t most = ttmm_argmax(count, c->n_files);
        if (count[most] == 0) break;
        printf("%s%s %.0f", shown ? ", " : "", c->file[most], (double)count[most]);
        count[most] = 0;
    }
    free(count);
}

static void verb_route(void)
{
    choose_experts();
    ttmm_mixture *x = &model.with;
    open_tsv("expert\tsimilarity\tweight");
    if (x->mix.n == 0) printf("no expert has a weight above tau: the base model answers\n");
    else printf("expert  similarity  weight\n");
    for (size_t shown = 0; shown < x->mix.n; shown++) { /* heaviest first */
        const size_t i = ttmm_argmax(x->weight, x->mix.n);
        const double s = (double)x->similarity[x->expert[i]], w = (double)x->weight[i];
        printf("%6d  %10.4f  %6.4f  %-25.*s ", x->expert[i], s, w, (int)(25 * w + 0.5), "#########################");
        print_origins(x->expert[i]);
        printf("\n");
        if (tsv) fprintf(tsv, "%d\t%.9g\t%.9g\n", x->expert[i], s, w);
        x->weight[i] = -1;
    }
    close_tsv();
}

/* ---- generate ---------------------------------------------------------------------------------------------------- */

/* A token as text; only whole characters are printed. token < 0: what is left at the end. */
static void put_token(int token)
{
    static ttmm_utf8 waiting;
    char out[8];
    size_t n = 0;
    const unsigned char *byte = token < 0 ? NULL : ttmm_token_bytes(model.tokenizer, token, &n);
    for (size_t i = 0; i < n; i++) fwrite(out, 1, ttmm_put_utf8(out, &waiting, byte[i]), stdout);
    if (token < 0) fwrite(out, 1, ttmm_put_utf8(out, &waiting, -1), stdout);
    fflush(stdout);
}

/* The prompt, then the tokens as they come. */
static struct {
    double began;
    size_t n;
    int last;
} answer;

static void print_prompt(void *context)
{
    (void)context;
    for (size_t t = 0; t < prompt_tokens && !option.print_ids; t++) put_token(prompt[t]);
    answer.began = ttmm_seconds();
}

static int print_token(void *context, int token)
{
    (void)context;
    if (option.print_ids) printf("%s%d", answer.n > 0 ? " " : "", token), fflush(stdout);
    else if (!ttmm_is_end(&model.base.config, token)) put_token(token);
    answer.n++, answer.last = token;
    return 0;
}

static void print_experts(void *context, const ttmm_mixture *x)
{
    (void)context;
    if (quiet) return;
    fprintf(stderr, x->mix.n ? "experts" : "no expert has a weight above tau: the base model answers");
    for (size_t i = 0; i < x->mix.n; i++) fprintf(stderr, " %d (%.2f)", x->expert[i], (double)x->weight[i]);
    fprintf(stderr, "\n");
}

static ttmm_decoding decoding(void)
{
    return (ttmm_decoding){.tokens = option.tokens,
                           .sampler = {option.temperature, option.top_p, option.top_k},
                           .seed = (uint64_t)option.seed,
                           .chosen = print_experts,
                           .begin = print_prompt,
                           .token = print_token};
}

static void end_answer(void)
{
    const size_t room = (size_t)model.base.config.context - prompt_tokens;
    if (!option.print_ids) put_token(-1);
    printf("\n");
    if (!quiet)
        fprintf(stderr, "%zu tokens, %.0f a second%s\n", answer.n, (double)answer.n / (ttmm_seconds() - answer.began),
                answer.n > 0 && ttmm_is_end(&model.base.config, answer.last) ? "; the text ended"
                : answer.n == room && room < option.tokens                   ? "; the context is full"
                                                                             : "");
}

/* The base, with one adapter or none. */
static void generate_with(const ttmm_mix *mix)
{
    const ttmm_decoding d = decoding();
    size_t n;
    check(ttmm_decode(&n, &model.base, mix, TTMM_LOWRANK, prompt, prompt_tokens, &d, &err));
    end_answer();
}

static void generate_with_ttt(void)
{
    static tuner ttt; /* static: reachable to the end */
    load_corpus(1);
    begin_mixture(&model.with, &model.base, 0);
    load_query();
    check(ttmm_query(&model.with, prompt, prompt_tokens, model.query, &err));
    load_ttt(&ttt);
    const double began = ttmm_seconds();
    ttmm_ttt_train(ttt.trainer, &ttt.how, model.with.query, ttt.neighbour, ttt.scratch);
    if (!quiet) fprintf(stderr, "trained on %zu neighbours in %.2f s\n", ttt.how.neighbours, ttmm_seconds() - began);
    generate_with(&(ttmm_mix){1, &ttt.at, &one});
}

static void generate_with_experts(void)
{
    const ttmm_decoding d = decoding();
    size_t n;
    load_routing();
    check(ttmm_answer(&n, &model.with, how_to_merge(TTMM_FASTER), prompt, prompt_tokens, model.query, &d, &err));
    end_answer();
}

/* Whether an option for the weights of experts is given. */
static int sets_weights(void) { return option.beta != 0 || option.tau != usual.tau || option.max != usual.max; }

static void verb_generate(void)
{
    char note[1024];
    const int instead = (option.adapter != NULL) + option.ttt + option.no_experts;
    if (instead > 1) FAIL(TTMM_BAD_USE, "--adapter, --ttt and --no-experts exclude each other");
    if (instead && (option.merge || option.active))
        FAIL(TTMM_BAD_USE, "--merge and --active are for experts, which take no part here");
    if ((option.encoder || option.query || option.prefix != usual.prefix) && (option.adapter || option.no_experts))
        FAIL(TTMM_BAD_USE,
             "--encoder, --query and --prefix are for choosing experts or neighbours, which take no part here");
    if ((option.adapter || option.no_experts) && (option.experts || option.centroids))
        FAIL(TTMM_BAD_USE, "--experts and --centroids are for experts, which take no part here");
    if (instead && sets_weights())
        FAIL(TTMM_BAD_USE, "--beta, --tau and --max are for weighing experts, which take no part here");
    if (!option.ttt && (option.neighbours != usual.neighbours || option.epochs != usual.epochs ||
                        option.ttt_lr != usual.ttt_lr || option.select != usual.select))
        FAIL(TTMM_BAD_USE, "--neighbours, --passes, --ttt-lr, --select and --lambda are for --ttt");
    if (prompt_tokens >= (size_t)model.base.config.context) /* said before anything is loaded */
        FAIL(TTMM_BAD_INPUT, "the prompt has %zu tokens, expected fewer than the context, %d", prompt_tokens,
             model.base.config.context);
    check(ttmm_config_note(note, sizeof note, &model.base.config, model.folder, &err));
    if (*note && !quiet) fprintf(stderr, "%s: %s; the options of generate count\n", model.folder, note);
    if (option.adapter) {
        check(ttmm_lora_open(&adapter, &model.base.config, option.adapter, &err));
        generate_with(&adapter_alone);
    } else if (option.ttt) {
        generate_with_ttt();
    } else if (!option.no_experts && has_experts()) {
        generate_with_experts();
    } else {
        if (!option.no_experts && !quiet) fprintf(stderr, "%s has no experts: the base model answers\n", model.folder);
        generate_with(&nothing);
    }
}

/* ---- merge ------------------------------------------------------------------------------------------------------- */

/* Whether both names are of one folder, however they are spelled: a file made in one, which has a model, is in the
 * other. */
static int same_folder(const char *a, const char *b)
{
    static const char file[] = "ttmm-same-folder.tmp";
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", a, file);
    fclose(open_output(path));
    const int same = ttmm_exists(b, file);
    ttmm_remove(a, file);
    return same;
}

/* A folder may be written to if it holds no model, or one that merge has written. */
static void refuse_to_overwrite(const char *folder)
{
    char path[4200], note[16] = "";
    const int begun = ttmm_exists(folder, "model.safetensors.tmp"); /* and interrupted */
    const int whole = ttmm_exists(folder, "model.safetensors");
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (whole) check(ttmm_note(note, sizeof note, path, &err));
    if (ttmm_exists(folder, "corpus.safetensors") || ttmm_exists(folder, "train.lock") ||
        ttmm_exists(folder, "checkpoint/base.safetensors") || ttmm_exists(folder, "experts/0/adapter_config.json") ||
        ttmm_exists(folder, "model.safetensors.index.json") ||
        (whole ? strcmp(note, "merged") != 0 || same_folder(folder, model.folder)
               : ttmm_exists(folder, "config.json") && !begun))
        FAIL(TTMM_BAD_USE, "%s: holds a model that merge has not written, which would be lost: choose another folder",
             folder);
}

static void verb_merge(void)
{
    /* clang-format off */
    static const char *const kept[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                       "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model",
                                       "chat_template.jinja", "chat_template.json", "generation_config.json"};
    /* clang-format on */
    enum { KEPT = sizeof kept / sizeof *kept };
    const char *d = option.dtype ? option.dtype : "";
    const int type = strcmp(d, "f16") == 0    ? TTMM_F16
                     : strcmp(d, "bf16") == 0 ? TTMM_BF16
                     : strcmp(d, "f32") == 0  ? TTMM_F32
                                              : TTMM_REAL;
    if (option.output == NULL) FAIL(TTMM_BAD_USE, "merge needs -o DIR, where to write the model");
    refuse_to_overwrite(option.output);
    choose_experts();
    check(ttmm_combine(&model.with, TTMM_DENSE, &err));
    if (ttmm_exists(option.output, "model.safetensors")) { /* what was merged there before must not stand beside this */
        ttmm_remove(option.output, "config.json");
        for (size_t i = 0; i < KEPT; i++) ttmm_remove(option.output, kept[i]);
        ttmm_remove(option.output, "model.safetensors"); /* last: while it stands, the folder is merge's */
    }
    const int code = ttmm_model_write(&model.base, option.output, type, "merged", &err);
    const size_t written = model.base.config.vocab == TTMM_BYTES ? 2 : 0; /* of these, with the model */
    if (code) ttmm_remove(option.output, "config.json"); /* alone, it would be taken for another model's */
    for (size_t i = 0; i < written && code; i++) ttmm_remove(option.output, kept[i]);
    check(code);
    for (size_t i = 0; i < KEPT; i++)
        if (ttmm_exists(model.folder, kept[i])) check(ttmm_copy(option.output, model.folder, kept[i], &err));
    if (!quiet) fprintf(stderr, "%s: the base model with %zu experts merged in\n", option.output, model.with.mix.n);
}

/* ---- trace, compare, check --------------------------------------------------------------------------------------- */

static void check_trace_options(int routed)
{
    if (option.output == NULL) FAIL(TTMM_BAD_USE, "trace needs -o F, the file to write");
    if (option.cached && option.grad)
        FAIL(TTMM_BAD_USE, "--cached and --grad cannot be had at once: a cache has no backward pass");
    if (routed && option.adapter)
        FAIL(TTMM_BAD_USE, "--adapter takes the place of routing: leave out --route and --query");
    if ((option.merge || option.active || option.encoder || option.experts || option.centroids || sets_weights() ||
         option.prefix != usual.prefix) &&
        !routed)
        FAIL(TTMM_BAD_USE,
             "--merge, --active, --encoder, --experts, --centroids, --beta, --tau, --max and --prefix are for experts: "
             "add --route%s",
             option.encoder ? ", or --embedding for the encoder itself" : " or --query");
    if (how_to_merge(TTMM_DENSE) == TTMM_ENSEMBLE)
        FAIL(TTMM_BAD_USE, "--merge is ensemble, expected dense or lowrank: an ensemble is many passes");
}

/* Of an encoder: the text is the argument that otherwise is MODEL. */
static void trace_embedding(void)
{
    ttmm_trace t;
    if (option.output == NULL) FAIL(TTMM_BAD_USE, "trace needs -o F, the file to write");
    if (option.encoder == NULL || n_arguments > 1)
        FAIL(TTMM_BAD_USE, "trace --embedding takes \"text\" and --encoder DIR, and no MODEL");
    if (option.file || option.ids || option.query || option.adapter || option.experts || option.centroids ||
        option.merge || option.active || option.route || option.cached || option.grad || sets_weights() ||
        option.prefix != usual.prefix)
        FAIL(TTMM_BAD_USE, "trace --embedding is of the encoder alone: leave out what is of a MODEL or its prompt");
    check(ttmm_encoder_trace(&t, model.encoder, argument[0], strlen(argument[0]), &err));
    check(ttmm_arrays_write(t.array, t.n, option.output, "", &err));
    if (!quiet) fprintf(stderr, "%s: %zu tensors of %zu tokens\n", option.output, t.n, t.array[0].rows);
    ttmm_trace_free(&t);
}

static void verb_trace(void)
{
    const int routed = option.route || option.query;
    ttmm_mix mix = nothing;
    ttmm_trace t;
    size_t n = 0;
    check_trace_options(routed);
    if (option.adapter) {
        check(ttmm_lora_open(&adapter, &model.base.config, option.adapter, &err));
        mix = adapter_alone;
    }
    ttmm_mixture *x = &model.with;
    if (routed) {
        choose_experts();
        check(ttmm_combine(x, how_to_merge(TTMM_DENSE), &err));
        mix = x->beside;
    }
    check(ttmm_trace_new(&t, &model.base, &mix, x->expert, prompt, prompt_tokens, option.cached, option.grad, &err));
    ttmm_array *all = allocate(t.n + 4, sizeof *all, "a list of tensors");
    if (routed) {
        all[n++] = (ttmm_array){"query", x->E, 0, x->query, NULL};
        all[n++] = (ttmm_array){"similarity", x->K, 0, x->similarity, NULL};
        all[n++] = (ttmm_array){"experts", x->mix.n, 0, NULL, x->expert};
        all[n++] = (ttmm_array){"weights", x->mix.n, 0, x->weight, NULL};
    }
    memcpy(all + n, t.array, t.n * sizeof *all);
    n += t.n;
    check(ttmm_arrays_write(all, n, option.output, "", &err));
    if (!quiet) fprintf(stderr, "%s: %zu tensors of %zu tokens\n", option.output, n, prompt_tokens);
    free(all);
    ttmm_trace_free(&t);
}

/* Where a number is in its tensor: [row, col], where row counts all axes but the last; of a vector [col]. */
static const char *place(char out[64], const ttmm_difference *d)
{
    if (d->cols) snprintf(out, 64, "[%zu, %zu]", d->worst / d->cols, d->worst % d->cols);
    else snprintf(out, 64, "[%zu]", d->worst);
    return out;
}

static void print_difference(void *tensors, const ttmm_difference *d)
{
    static const char *const verdict[] = {"same",       "within",        "",           "PAST THE TOLERANCE",
                                          "NOT FINITE", "OTHER SHAPE",   "OTHER TYPE", "MISSING",
                                          "EXTRA",      "CANNOT BE READ"};
    const char *a = d->shape[0], *b = d->shape[1];
    char at[64];
    place(at, d);
    if ((*(size_t *)tensors)++ == 0)
        printf("%-50s %-18s %10s %10s %10s %12s  verdict\n", "tensor", "type and shape", "max abs", "max rel", "ulps",
               "worst at");
    printf("%-50s %-18s ", d->name, *a ? a : b);
    if (d->verdict <= TTMM_NOT_FINITE)
        printf("%10.3g %10.3g %10.3g %12s  %s", d->max_abs, d->max_rel, d->ulps, at, verdict[d->verdict]);
    else printf("%10s %10s %10s %12s  %s", "-", "-", "-", "-", verdict[d->verdict]);
    if (d->verdict == TTMM_PAST || d->verdict == TTMM_NOT_FINITE) printf(": %.9g, %.9g", d->a, d->b);
    if (d->verdict == TTMM_SHAPE || d->verdict == TTMM_TYPE || d->verdict == TTMM_UNKNOWN) printf(": %s", b);
    printf("\n");
    if (tsv)
        fprintf(tsv, "%s\t%s\t%s\t%.9g\t%.9g\t%.9g\t%s\t%.17g\t%.17g\t%s\n", d->name, a, b, d->max_abs, d->max_rel,
                d->ulps, at, d->a, d->b, verdict[d->verdict]);
}

static void verb_compare(void)
{
    const char *a = argument[0], *b = argument[1];
    size_t tensors = 0, failures;
    open_tsv("tensor\tshape_a\tshape_b\tmax_abs\tmax_rel\tulps\tworst\ta\tb\tverdict");
    check(ttmm_compare(a, b, option.atol, option.rtol, option.by_row, print_difference, &tensors, &failures, &err));
    close_tsv();
    if (tensors == 0) FAIL(TTMM_DIFFERS, "%s and %s hold no tensor: nothing is compared", a, b);
    printf("%zu tensors, %zu of them differ (atol %g, rtol %g%s)\n", tensors, failures, option.atol, option.rtol,
           option.by_row ? " by row" : "");
    if (failures) FAIL(TTMM_DIFFERS, "%s and %s differ in %zu of %zu tensors", a, b, failures, tensors);
}

/* What is said of one file, and of all. */
typedef struct {
    size_t right, wrong, not_done, ties, unknown;
    char first_wrong[900], first_unknown[400];
} tally;

/* "layers.0.q [3, 5] is 0.12345, expected 0.2345, off 0.11 of the largest, at most 3e-06" */
static void say_wrong(char out[900], const ttmm_difference *d)
{
    char at[64], more[100] = "";
    if (d->verdict == TTMM_SHAPE) snprintf(out, 900, "%s is %s, expected %s", d->name, d->shape[1], d->shape[0]);
    else if (d->verdict == TTMM_TYPE)
        snprintf(out, 900, "%s is %s, expected %s", d->name, d->shape[1], d->integers ? "integers" : "reals");
    else {
        if (d->verdict == TTMM_PAST && !d->integers)
            snprintf(more, sizeof more, ", off %.3g of the largest, at most %g", d->max_rel, d->tolerance);
        snprintf(out, 900, "%s %s is %.9g, expected %.9g%s", d->name, place(at, d), d->b, d->a, more);
    }
}

static void end_file(const char *file, const tally *t)
{
    printf("%-22s ", file);
    if (t->right + t->wrong == 0) printf("not done");
    else {
        printf("%zu right", t->right);
        if (t->wrong) printf(", %zu wrong", t->wrong);
        if (t->not_done) printf(", %zu not done", t->not_done);
    }
    if (t->ties) printf(", %zu near-tie%s the other way", t->ties, t->ties > 1 ? "s" : "");
    if (t->unknown) printf(", %zu unknown (%s%s)", t->unknown, t->first_unknown, t->unknown > 1 ? ", ..." : "");
    if (t->wrong) printf("; first wrong: %s", t->first_wrong);
    printf("\n");
}

static void count_checked(void *tallies, const char *file, const ttmm_difference *d)
{
    static const char *const verdict[] = {"right", "right", "near-tie", "wrong",   "not finite",
                                          "shape", "type",  "not done", "unknown", "unknown"};
    tally *t = tallies, *all = t + 1;
    if (d == NULL) {
        end_file(file, t);
        all->right += t->right, all->not_done += t->not_done;
        memset(t, 0, sizeof *t);
        return;
    }
    if (d->verdict == TTMM_MISSING) t->not_done++;
    else if (d->verdict == TTMM_EXTRA) {
        if (t->unknown++ == 0) snprintf(t->first_unknown, sizeof t->first_unknown, "%s", d->name);
    } else if (d->verdict >= TTMM_PAST) {
        if (t->wrong++ == 0) say_wrong(t->first_wrong, d);
    } else t->right++, t->ties += d->ties;
    if (tsv == NULL) return;
    fprintf(tsv, "%s\t%s\t%s\t", file, d->name, verdict[d->verdict]);
    if (d->verdict <= TTMM_NOT_FINITE)
        fprintf(tsv, "%zu\t%zu\t%.17g\t%.17g\t", d->cols ? d->worst / d->cols : 0,
                d->cols ? d->worst % d->cols : d->worst, d->a, d->b);
    else fprintf(tsv, "\t\t\t\t");
    if (d->verdict <= TTMM_NOT_FINITE && !d->integers) fprintf(tsv, "%.9g", d->max_rel);
    fprintf(tsv, "\t%g\n", d->tolerance);
}

static void verb_check(void)
{
    tally t[2] = {{0}, {0}}; /* of the file, of all */
    size_t wrong;
    if (option.precision == NULL) FAIL(TTMM_BAD_USE, "check needs --precision: f64, f32, bf16 or f16");
    open_tsv("file\ttensor\tverdict\trow\tcol\texpected\tfound\toff\tat_most");
    check(ttmm_check(argument[0], argument[1], option.precision, count_checked, t, &wrong, &err));
    close_tsv();
    printf("%zu right, %zu wrong, %zu not done: %s\n", t[1].right, wrong, t[1].not_done, option.precision);
    if (wrong) FAIL(TTMM_DIFFERS, "%s: %zu tensors are wrong", argument[1], wrong);
}

/* ---- eval -------------------------------------------------------------------------------------------------------- */

typedef struct {
    const int *token; /* in eval.text */
    size_t scored;    /* tokens after the prefix ... */
    size_t bytes;     /* ... and theirs */
    const char *file; /* it is from */
    size_t row;       /* its number among all prompts, of which --prompts leaves some */
} eval_prompt;

typedef struct {
    int ran, first;      /* on this prompt; the first expert that took part */
    size_t active;       /* adapters that did */
    double nll, seconds; /* of what follows the prefix; before it can be computed */
} eval_score;

/* The table's rows, and how each treats a prompt. */
typedef struct {
    const char *name;
    enum { BASE, FINETUNED, TTMM, ENSEMBLE, UNIFORM, TTT, HOW } how;
    size_t experts;             /* of ttmm and ensemble; 0: sparse, by tau */
    int there;                  /* the model has what it takes */
    eval_score *score;          /* [n] */
    size_t prompts;             /* it was run on */
    double active, decode_rate; /* mean number of adapters; tokens a second */
} eval_method;

static eval_method methods[] = {
    {.name = "base", .how = BASE},
    {.name = "finetuned", .how = FINETUNED},
    {.name = "ttmm-1", .how = TTMM, .experts = 1},
    {.name = "ttmm-3", .how = TTMM, .experts = 3},
    {.name = "ttmm-10", .how = TTMM, .experts = 10},
    {.name = "ttmm", .how = TTMM},
    {.name = "ensemble-10", .how = ENSEMBLE, .experts = 10},
    {.name = "uniform", .how = UNIFORM},
    {.name = "ttt", .how = TTT},
};
enum { METHODS = sizeof methods / sizeof *methods };
static eval_method *const methods_end = methods + METHODS, *const method_ttt = methods + METHODS - 1;
enum { MEMBERS = 10, DECODED = 32 }; /* of an ensemble, and tokens, when the speed of decoding is measured */

typedef struct { /* what a job answers prompts with */
    ttmm_model merged;
    ttmm_mixture with;
    tuner ttt;
    ttmm_pass *pass;
    double *probability; /* scratch: [longest sequence] */
} seat;

static struct {
    seat *seat, *last; /* [jobs]; where the last prompt was answered */
    ttmm_corpus text;  /* the held-out files */
    eval_prompt *prompt;
    size_t all, n;              /* the text's sequences longer than the prefix; those that are prompts */
    FILE *each;                 /* of --each */
    real *query;                /* [n, E] of --query, or NULL */
    real *count;                /* [training files] scratch of count_origins */
    size_t mostly, partly;      /* prompts whose nearest expert was trained mostly, or at all, on their file */
    double *sorted;             /* scratch: [n] */
    ttmm_pass *member[MEMBERS]; /* for measuring the speed of decoding */
} eval;

/* Each prompt by adapters of its own; the others answer all by the same. */
static int answers_each(const eval_method *m) { return m->how == TTMM || m->how == ENSEMBLE || m->how == TTT; }

/* What the methods work with. Those for which it is not there, or that are not asked for, are left out. */
static void load_methods(void)
{
    char folder[4096];
    const int corpus = ttmm_exists(model.folder, "corpus.safetensors"), experts = has_experts();
    const int there[HOW] = {
        [BASE] = 1,          [FINETUNED] = ttmm_exists(model.folder, "finetuned/adapter_model.safetensors"),
        [TTMM] = experts,    [ENSEMBLE] = experts,
        [UNIFORM] = experts, [TTT] = corpus && option.ttt_prompts > 0};
    int asks = 0; /* for the prompts' embeddings */
    for (eval_method *m = methods; m < methods_end; m++) {
        m->there = there[m->how] && is_wanted(m->name);
        asks |= m->there && answers_each(m);
        if (option.only && m->how == TTT && is_wanted(m->name) && option.ttt_prompts == 0)
            FAIL(TTMM_BAD_USE, "--only has %s, and --ttt-prompts is 0", m->name);
        if (option.only && is_wanted(m->name) && !there[m->how])
            FAIL(TTMM_BAD_USE, "--only has %s, for which %s has not what it takes", m->name, model.folder);
    }
    if (corpus) load_corpus(method_ttt->there || option.each); /* whose lines depend on them */
    if (experts) load_centroids();
    if (asks && !option.query) check_embedding();
    snprintf(folder, sizeof folder, "%s/finetuned", model.folder);
    if (there[FINETUNED]) check(ttmm_lora_open(&adapter, &model.base.config, folder, &err));
    eval.seat = allocate((size_t)option.jobs, sizeof *eval.seat, "the jobs");
    for (seat *s = eval.seat; s < eval.seat + option.jobs; s++) {
        if (method_ttt->there) load_ttt(&s->ttt);
        check(ttmm_model_copy(&s->merged, &model.base, &err));
        begin_mixture(&s->with, &s->merged, 0);
    }
    begin_mixture(&model.with, &eval.seat->merged, 0);
}

/* Whether i is one of `some` of n, evenly spaced; the last is. */
static int is_among(uint64_t i, uint64_t some, uint64_t n) { return i * some / n != (i + 1) * some / n; }

/* The sequences longer than the prefix, and their bytes after it. */
static void list_prompts(void)
{
    const ttmm_corpus *c = &eval.text;
    eval.prompt = allocate(c->n_sequences, sizeof *eval.prompt, "the table");
    for (size_t i = 0; i < c->n_sequences; i++) {
        const int *token = c->token + c->sequence[i];
        const size_t T = c->sequence[i + 1] - c->sequence[i], scored = T - smaller(T, option.prefix);
        if (scored == 0) continue;
        const char *file = c->file[c->document_file[c->sequence_document[i]]];
        eval.prompt[eval.all] = (eval_prompt){token, scored, 0, file, eval.all};
        eval.all++;
    }
    if (eval.all == 0)
        FAIL(TTMM_BAD_INPUT, "the files have no sequence longer than the prefix, %zu tokens", option.prefix);
    const size_t wanted = option.prompts ? smaller(option.prompts, eval.all) : eval.all;
    for (size_t i = 0; i < eval.all; i++) {
        if (!is_among(i, wanted, eval.all)) continue;
        eval_prompt *p = &eval.prompt[eval.n++];
        *p = eval.prompt[i];
        for (size_t t = 0, bytes; t < p->scored && !model.no_tokenizer; t++) {
            ttmm_token_bytes(model.tokenizer, p->token[option.prefix + t], &bytes);
            p->bytes += bytes;
        }
    }
}

static void load_queries(void)
{
    size_t rows, cols;
    check(ttmm_array_read(&eval.query, &rows, &cols, option.query, "embeddings", &err));
    if (rows != eval.all || cols != model.with.E)
        FAIL(TTMM_BAD_INPUT, "%s: is [%zu, %zu], expected [%zu, %zu]: one row a prompt", option.query, rows, cols,
             eval.all, model.with.E);
}

static void load_eval(const char *const *file, size_t n_files)
{
    const ttmm_config *c = &model.base.config;
    const int most = option.context ? option.context : 1024, context = most < c->context ? most : c->context;
    load_tokenizer(option.eval_ids);
    check(option.eval_ids ? ttmm_corpus_from_ids(&eval.text, c->vocab, file, n_files, context, &err)
                          : ttmm_corpus_from_files(&eval.text, model.tokenizer, file, n_files, context, &err));
    list_prompts();
    option.jobs = (int)smaller((size_t)option.jobs, eval.n);
    share_threads((size_t)option.jobs, c);
    load_methods();
    const size_t T = ttmm_longest_sequence(&eval.text), all = eval.text.n_sequences;
    int routed = option.each != NULL; /* whose lines depend on all experts */
    for (const eval_method *m = methods; m < methods_end; m++)
        routed |= m->there && (m->how == TTMM || m->how == ENSEMBLE || m->how == UNIFORM);
    const ttmm_mix experts = routed ? all_experts() : nothing;
    size_t rank = ttmm_mix_rank(&experts);
    if (method_ttt->there) rank = larger(rank, ttmm_lora_rank(&eval.seat->ttt.lora));
    const ttmm_pass_size size = scoring_size(T, rank), step = ttmm_decoding_size(1, DECODED, rank);
    for (seat *s = eval.seat; s < eval.seat + option.jobs; s++) {
        check(ttmm_pass_new(&s->pass, c, &size, &err));
        s->probability = allocate(T, sizeof *s->probability, "the table");
    }
    for (size_t k = 0; k < MEMBERS; k++) check(ttmm_pass_new(&eval.member[k], c, &step, &err));
    if (option.query) load_queries();
    for (eval_method *m = methods; m < methods_end; m++) m->score = allocate(eval.n, sizeof *m->score, "the table");
    eval.sorted = allocate(eval.n, sizeof *eval.sorted, "the table");
    eval.count = allocate(model.corpus.n_files, sizeof *eval.count, "the table");
    if (quiet) return;
    fprintf(stderr, "%zu prompts, scored after their first %zu tokens; %zu experts, %zu training sequences\n", eval.n,
            option.prefix, model.with.K, model.corpus.n_sequences);
    if (eval.all < all) fprintf(stderr, "%zu sequences are not longer than that and are left out\n", all - eval.all);
}

static uint64_t one_more(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9e3779b97f4a7c15;
    return h ^ h >> 32; /* whole numbers as doubles differ in their upper bits alone, which a product leaves there */
}

/* All that the lines of --each depend on, but times. */
static uint64_t fingerprint(void)
{
    const double settings[] = {model.with.router.beta,
                               model.with.router.tau,
                               (double)model.with.router.max,
                               (double)option.active,
                               (double)option.prefix,
                               (double)how_to_merge(TTMM_DENSE),
                               (double)eval.n,
                               (double)option.neighbours,
                               option.epochs,
                               option.ttt_lr,
                               lambda(),
                               option.seed};
    uint64_t h = ttmm_corpus_hash(&eval.text, NULL, 0);
    const ttmm_corpus *c = &model.corpus;
    const int text_of_ids = option.eval_ids && !model.no_tokenizer && !c->by_ids;
    uint64_t part[] = {ttmm_model_hash(&model.base),
                       adapter.matrix ? ttmm_lora_hash(&adapter) : 0,
                       model.centroid ? ttmm_hash(model.centroid, model.with.K * model.with.E) : 0,
                       c->n_sequences ? ttmm_corpus_hash(c, NULL, 0) : 0,
                       c->n_sequences ? ttmm_hash(c->embedding, c->n_sequences * c->dim) : 0,
                       eval.query ? ttmm_hash(eval.query, eval.all * model.with.E) : 0,
                       0,
                       model.encoder ? strtoull(ttmm_encoder_fingerprint(model.encoder), NULL, 16) : 0,
                       text_of_ids ? ttmm_tokenizer_hash(model.tokenizer, model.base.config.vocab) : 0};
    for (size_t k = 0; k < model.with.K; k++) part[6] = part[6] * 31 + ttmm_lora_hash(load_expert(k));
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) h = one_more(h, part[i]);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        uint64_t bits;
        memcpy(&bits, &settings[i], sizeof bits);
        h = one_more(h, bits);
    }
    for (const char *p = ARITHMETIC; *p; p++) h = one_more(h, (unsigned char)*p);
    return h;
}

/* What --each has from a run that was interrupted is taken; what follows is added to it. A last line that is not whole
 * counts for nothing. */
static void open_each(void)
{
    static const char columns[] = "prompt\tfile\tmethod\tactive\tfirst\ttokens\tnll\tseconds\n";
    char first[80], name[32];
    size_t n = 0, taken = 0;
    for (size_t i = 0; i < eval.n; i++)
        if (strpbrk(eval.prompt[i].file, "\t\n"))
            FAIL(TTMM_BAD_USE,
                 "--each: %s has a tab or a line break in its name, which separate columns and lines there",
                 eval.prompt[i].file);
    snprintf(first, sizeof first, "# run eval %016llx\n", (unsigned long long)fingerprint());
    FILE *f = ttmm_open(option.each, "rb");
    char *text = f ? read_stream(&n, f, option.each) : NULL;
    if (f) fclose(f);
    const int cut = n > 0 && n < strlen(first) && memcmp(text, first, n) == 0; /* not even that was written whole */
    if (cut) n = 0;
    if (n > 0 && strncmp(text, first, strlen(first)) != 0)
        FAIL(TTMM_BAD_INPUT,
             "%s: is no list of this evaluation's results: the model, the text, the settings or the build were others",
             option.each);
    for (char *line = text, *end; n > 0 && (end = memchr(line, '\n', (size_t)(text + n - line))) != NULL;
         *end = '\n', line = end + 1) {
        size_t i, active, tokens;
        int expert;
        double nll, seconds;
        int whole = 0;
        *end = 0; /* sscanf measures all that it is given */
        if (sscanf(line, "%zu\t%*[^\t\n]\t%31[^\t\n]\t%zu\t%d\t%zu\t%lf\t%lf%n", &i, name, &active, &expert, &tokens,
                   &nll, &seconds, &whole) != 7 ||
            line + whole != end || i >= eval.n || tokens != eval.prompt[i].scored)
            continue;
        for (eval_method *m = methods; m < methods_end; m++)
            if (strcmp(m->name, name) == 0) m->score[i] = (eval_score){1, expert, active, nll, seconds}, taken++;
    }
    if (taken && !quiet) fprintf(stderr, "%s: %zu results are there already\n", option.each, taken);
    eval.each = ttmm_open(option.each, cut ? "wb" : "ab");
    if (eval.each == NULL) FAIL(TTMM_NO_ROOM, "%s: cannot be written", option.each);
    if (n == 0) fprintf(eval.each, "%s%s", first, columns);
    else if (text[n - 1] != '\n') fputs("\tcut\n", eval.each); /* a number, it may be, of which digits are missing */
    free(text);
}

/* Whether the chosen expert was trained on the file of the prompt's name: mostly, or in part. */
static void count_home(const eval_prompt *p, int expert)
{
    const ttmm_corpus *c = &model.corpus;
    size_t on_it = 0;
    count_origins(eval.count, expert);
    for (size_t f = 0; f < c->n_files; f++)
        if (strcmp(c->file[f], p->file) == 0) on_it += (size_t)eval.count[f];
    eval.partly += on_it > 0;
    eval.mostly += strcmp(c->file[ttmm_argmax(eval.count, c->n_files)], p->file) == 0;
}

/* Tokens a second through the key/value cache, an ensemble's members one after the other. The best of three trials. */
static double decode_rate(size_t members, const ttmm_model *m, const ttmm_mix *mix, const int *token, size_t T)
{
    enum { WARM = 8 };
    const size_t tokens = smaller(T, DECODED);
    double best = 0, began = 0;
    for (int trial = 0; trial < 3 && tokens > WARM; trial++) {
        for (size_t k = 0; k < members; k++) ttmm_rewind(eval.member[k], 0);
        for (size_t t = 0; t < tokens; t++) {
            if (t == WARM) began = ttmm_seconds();
            for (size_t k = 0; k < members; k++) {
                ttmm_mix alone = {1, NULL, &one};
                if (members > 1) alone.lora = mix->lora + k;
                ttmm_feed(eval.member[k], m, members > 1 ? &alone : mix, token + t, 1);
            }
        }
        const double rate = (double)(tokens - WARM) / (ttmm_seconds() - began);
        best = rate > best ? rate : best;
    }
    return best;
}

/* What a method does for a prompt before the first token can be computed: what answers it, in s->with. */
static int prepare(const eval_method *m, seat *s, size_t i, int how, ttmm_error *e)
{
    ttmm_mixture *x = &s->with;
    const real *query = eval.query ? eval.query + eval.prompt[i].row * x->E : NULL;
    x->router.active = m->experts ? m->experts : option.active;
    if (m->how != TTT) {
        const int code = ttmm_choose(x, eval.prompt[i].token, option.prefix, query, e);
        return code ? code : ttmm_combine(x, how, e);
    }
    const int code = ttmm_query(x, eval.prompt[i].token, option.prefix, query, e);
    if (code) return code;
    ttmm_ttt_train(s->ttt.trainer, &s->ttt.how, x->query, s->ttt.neighbour, s->ttt.scratch);
    x->answering = &model.base, x->mix = x->beside = (ttmm_mix){1, &s->ttt.at, &one};
    return TTMM_OK;
}

/* How a method answers: each prompt by adapters of its own, or all by the same; as an ensemble; how many of them. */
typedef struct {
    eval_method *method;
    int for_each, how;
    size_t sample, listed, tenth; /* listed: so many are done, by --each; tenth: of all, shown last where lines stay */
    double began, shown;          /* the clock */
} eval_run;

static void show_progress(eval_run *run, size_t done)
{
    const int terminal = ttmm_is_terminal(stderr);
    const double now = ttmm_seconds();
    const double left = (now - run->began) / (double)(done - run->listed) * (double)(eval.n - done);
    const size_t tenth = 10 * done / eval.n;
    if (quiet || (terminal ? now - run->shown < 0.3 : tenth == run->tenth || now - run->began < 1)) return;
    run->shown = now, run->tenth = tenth;
    fprintf(stderr, "%s%s: prompt %zu of %zu, %d:%02d left%s", terminal ? "\r\033[K" : "", run->method->name, done,
            eval.n, (int)left / 60, (int)left % 60, terminal ? "" : "\n");
    fflush(stderr);
}

/* Prompt i: prepare (that is timed), then score what follows the prefix. The last is computed in any case: decoding is
 * timed with what answered it. */
static int answer_prompt(void *context, size_t i, int job, ttmm_error *e)
{
    eval_run *run = context;
    eval_method *m = run->method;
    seat *s = &eval.seat[job];
    ttmm_mixture *x = &s->with;
    const eval_prompt *p = &eval.prompt[i];
    const size_t prefix = option.prefix, T = prefix + p->scored, n = eval.n;
    if (!is_among(i, run->sample, n)) return TTMM_OK;
    const int listed = m->score[i].ran; /* in the file of --each */
    if (listed && i + 1 < n) return TTMM_OK;
    const double began = ttmm_seconds();
    const int code = run->for_each ? prepare(m, s, i, run->how, e) : TTMM_OK;
    if (code) return code;
    eval_score *score = &m->score[i];
    score->seconds = run->for_each ? ttmm_seconds() - began : 0;
    score->ran = 1, score->active = x->mix.n;
    score->first = (m->how == TTMM || m->how == ENSEMBLE) && x->mix.n ? x->expert[0] : 0;
    if (run->how == TTMM_ENSEMBLE && x->mix.n > 0)
        score->nll = ttmm_score_ensemble(s->pass, x->answering, &x->mix, p->token, T, prefix, s->probability);
    else score->nll = ttmm_score(s->pass, x->answering, &x->beside, p->token, T, prefix);
    if (i + 1 == n) eval.last = s; /* the last is in every sample */
    if (eval.each && !listed) {
        fprintf(eval.each, "%zu\t%s\t%s\t%zu\t%d\t%zu\t%.17g\t%.6g\n", i, p->file, m->name, score->active, score->first,
                p->scored, score->nll, score->seconds);
        if (fflush(eval.each) != 0) return ttmm_fail(e, TTMM_NO_ROOM, "%s: cannot be written", option.each);
    }
    if (job == 0 && i >= run->listed) show_progress(run, i + 1);
    return TTMM_OK;
}

/* One row of the table. */
static void run_method(eval_method *m)
{
    ttmm_mixture *x = &model.with;
    const int for_each = answers_each(m);
    eval_run run = {m, for_each, TTMM_DENSE, eval.n, 0, 0, ttmm_seconds(), 0};
    if (m->how == ENSEMBLE) run.how = TTMM_ENSEMBLE;
    if (m->how == TTMM) run.how = how_to_merge(TTMM_DENSE);
    if (m->how == TTT) run.sample = smaller(option.ttt_prompts, eval.n);
    for (size_t i = 0; i < eval.n; i++) {
        if (!is_among(i, run.sample, eval.n)) m->score[i].ran = 0; /* --each may have more of them */
        if (m->score[i].ran) run.listed = i + 1;
    }
    if (!for_each) {
        x->mix = m->how == FINETUNED ? adapter_alone : m->how == UNIFORM ? all_experts() : nothing;
        check(ttmm_combine(x, TTMM_DENSE, &err));
        for (seat *s = eval.seat; s < eval.seat + option.jobs; s++)
            s->with.answering = x->answering, s->with.mix = x->mix, s->with.beside = x->beside;
    }
    check(ttmm_parallel(eval.n, option.jobs, answer_prompt, &run, &err));
    for (size_t i = 0; i < eval.n; i++) {
        if (!m->score[i].ran) continue;
        m->prompts++;
        m->active += (double)m->score[i].active;
        if (m->how == TTMM && m->experts == 1 && knows_origins()) count_home(&eval.prompt[i], m->score[i].first);
    }
    x = &eval.last->with;
    const eval_prompt *last = &eval.prompt[eval.n - 1];
    const size_t members = run.how == TTMM_ENSEMBLE ? larger(1, smaller(x->mix.n, MEMBERS)) : 1;
    m->active /= (double)m->prompts;
    m->decode_rate = decode_rate(members, x->answering, &x->beside, last->token, option.prefix + last->scored);
    if (run.how == TTMM_ENSEMBLE && x->mix.n > members) m->decode_rate *= (double)members / (double)x->mix.n;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median over the method's prompts. */
static double median_seconds(const eval_method *m)
{
    size_t n = 0;
    for (size_t i = 0; i < eval.n; i++)
        if (m->score[i].ran) eval.sorted[n++] = m->score[i].seconds;
    qsort(eval.sorted, n, sizeof *eval.sorted, by_value);
    return (eval.sorted[(n - 1) / 2] + eval.sorted[n / 2]) / 2;
}

/* Negative log-likelihood of a method, over all its prompts or over those that another was run on, too. */
static double total_nll(const eval_method *m, const eval_method *other, size_t *tokens, size_t *bytes)
{
    double nll = 0;
    *tokens = *bytes = 0;
    for (size_t i = 0; i < eval.n; i++)
        if (m->score[i].ran && other->score[i].ran)
            nll += m->score[i].nll, *tokens += eval.prompt[i].scored, *bytes += eval.prompt[i].bytes;
    return nll;
}

static void print_table(void)
{
    const double ttt_time = method_ttt->there ? median_seconds(method_ttt) : 0;
    size_t tokens, bytes;
    printf("%-12s %6s %11s %10s %14s %9s %13s %8s\n", "method", "active", "perplexity", "bits/byte", "time/prompt",
           "speed-up", "decode tok/s", "prompts");
    for (const eval_method *m = methods; m < methods_end; m++) {
        if (!m->there) continue;
        const double nll = total_nll(m, m, &tokens, &bytes), ppl = ttmm_exp(nll / (double)tokens);
        const double time = median_seconds(m);
        char faster[32] = "", bits[2][32] = {"-", "-"}; /* of ids whose text is not known there are no bytes */
        if (bytes) {
            const double bpb = nll / (double)bytes / ttmm_log(2);
            snprintf(bits[0], 32, "%.4f", bpb), snprintf(bits[1], 32, "%.9g", bpb);
        }
        if (time > 0 && ttt_time > 0) snprintf(faster, sizeof faster, "%.0f x", ttt_time / time);
        printf("%-12s %6.3g %11.3f %10s %11.3f ms %9s %13.0f %8zu\n", m->name, m->active, ppl, bits[0], 1e3 * time,
               faster, m->decode_rate, m->prompts);
        if (tsv)
            fprintf(tsv, "%s\t%.6g\t%.9g\t%s\t%.9g\t%zu\t%zu\t%.6g\t%.6g\n", m->name, m->active, ppl, bits[1], nll,
                    tokens, m->prompts, time, m->decode_rate);
    }
    close_tsv();
}

static void verb_eval(void)
{
    const char *comma = " ";
    size_t tokens, bytes;
    check_only(" " TABLE_ROWS " ");
    load_eval(argument + 1, n_arguments - 1);
    if (option.each) open_each();
    open_tsv("method\tactive\tppl\tbpb\tnll\ttokens\tprompts\ttest_time_s\tdecode_tok_s");
    for (eval_method *m = methods; m < methods_end; m++)
        if (m->there) run_method(m);
    if (eval.each) close_output(eval.each, option.each);
    clear_line();
    print_table();
    if (eval.partly > 0)
        printf("the nearest expert was trained on the file of the prompt's name for %.1f %% of the prompts, "
               "mostly on it for %.1f %%\n",
               100 * (double)eval.partly / (double)eval.n, 100 * (double)eval.mostly / (double)eval.n);
    if (!method_ttt->there || method_ttt->prompts == eval.n) return;
    printf("ttt was run on %zu of the %zu prompts; perplexities on these:\n", method_ttt->prompts, eval.n);
    for (const eval_method *m = methods; m < methods_end; m++)
        if (m->there) {
            const double nll = total_nll(m, method_ttt, &tokens, &bytes);
            printf("%s %s %.3f", comma, m->name, ttmm_exp(nll / (double)tokens));
            comma = ",";
        }
    printf("\n");
}

/* ---- tokenize, info ---------------------------------------------------------------------------------------------- */

static void verb_tokenize(void)
{
    ttmm_corpus text;
    if (option.file == NULL) FAIL(TTMM_BAD_USE, "tokenize needs --file F");
    check(ttmm_tokenizer_read(&model.tokenizer, model.folder, &err));
    check(ttmm_corpus_from_files(&text, model.tokenizer, &option.file, 1, option.context ? option.context : 1 << 30,
                                 &err));
    FILE *f = option.output ? open_output(option.output) : stdout;
    for (size_t s = 0; s < text.n_sequences; s++)
        for (size_t t = text.sequence[s]; t < text.sequence[s + 1]; t++)
            fprintf(f, "%d%c", text.token[t], t + 1 < text.sequence[s + 1] ? ' ' : '\n');
    if (option.output) close_output(f, option.output);
    ttmm_corpus_free(&text);
}

/* What a firmware has beside an image: the view, routing, greedy decoding, token by token, with the experts beside the
 * weights, on one thread; without the stack. Pointers count as here: of 32 bits it is less. */
static size_t firmware_ram(size_t K, size_t E, size_t matrices, size_t rank, size_t positions)
{
    const ttmm_config *c = &model.base.config;
    const ttmm_decoding d = {.tokens = positions - 1, .piece = 1};
    const int threads = ttmm_threads();
    ttmm_set_threads(1);
    const size_t decoding = ttmm_decoding_bytes(c, 1, rank, 1, &d);
    ttmm_set_threads(threads);
    return ttmm_n_tensors(c) * sizeof(ttmm_numbers) + K * (matrices * sizeof(ttmm_lora_matrix) + sizeof(ttmm_lora)) +
           ttmm_mixture_bytes(K, E) + decoding;
}

/* Of models that fit one: no microcontroller has 64 MiB of flash. */
static void print_firmware(size_t K, size_t expert, size_t rank, size_t positions)
{
    const size_t matrices = (size_t)model.base.config.n_layers * TTMM_MATRICES, E = K ? model.with.E : 0;
    const double numbers = (double)model.base.n + (double)K * (double)expert;
    const double others = 4.0 * (double)(K + (model.corpus.idf ? 1 : 0)) * (double)E; /* centroids and idf */
    if (2 * numbers + others > 64 * 1048576.0) return;
    printf(
        "  a firmware (run export): flash %.1f KiB in f32, %.1f in bf16; RAM %.1f KiB for those tokens, one by one\n",
        (4 * numbers + others) / 1024, (2 * numbers + others) / 1024,
        (double)firmware_ram(K, E, matrices, K ? rank : 0, positions) / 1024);
}

/* With what the program takes itself: 2.3 MiB for ./run -h on Linux, and a little for headers and the tokenizer. */
static void print_size(const char *what, size_t bytes)
{
    printf("  %-34s %10.1f MiB\n", what, (double)bytes / 1048576 + 2.5);
}

/* The sizes of the large things that each command allocates, added up, with those K experts of that rank. */
static void print_memory(const ttmm_lora *const *list, size_t K, size_t rank)
{
    const ttmm_config *c = &model.base.config;
    const ttmm_corpus *t = &model.corpus;
    const size_t T = smaller(option.context ? (size_t)option.context : 1024, (size_t)c->context);
    const size_t some = smaller(option.active ? option.active : 10, K);
    const ttmm_mix all = {K, list, NULL}, chosen = {some, list, NULL};
    const ttmm_pass_size merged = ttmm_decoding_size(T, T, 0), beside = ttmm_decoding_size(T, T, rank);
    const ttmm_pass_size scored = scoring_size(T, rank), step = ttmm_decoding_size(1, DECODED, rank);
    const size_t weights = model.base.n * sizeof(real), lora = ttmm_lora_bytes(c, (int)rank);
    size_t stored; /* the weights in place */
    const size_t tokens = t->n_tokens * sizeof(int) + t->n_sequences * 8 * sizeof(int);
    const size_t embeddings = t->n_sequences * t->dim * sizeof(real); /* in place, for TTT alone */
    check(ttmm_stored_bytes(&stored, c, model.folder, &err));
    const size_t base = stored + tokens + K * model.with.E * sizeof(real);
    printf("memory, with %d threads, %zu experts, and %zu tokens of prompt and answer (--active, --context):\n",
           ttmm_threads(), some, T);
    const size_t merging = base - stored + weights + some * lora + ttmm_merge_scratch(c, &chosen) * sizeof(real) +
                           ttmm_pass_bytes(c, &merged);
    print_size("generate, experts merged in", merging);
    print_size("  into a copy, without --merge", merging + stored);
    print_size("generate, experts beside", base + some * lora + ttmm_pass_bytes(c, &beside));
    const size_t job = weights + ttmm_merge_scratch(c, &all) * sizeof(real) + ttmm_pass_bytes(c, &scored);
    const size_t eval_all = base + (K + 1) * lora + MEMBERS * ttmm_pass_bytes(c, &step);
    print_size("eval", eval_all + job);
    print_size("eval, 2 prompts at once (--jobs)", eval_all + 2 * job);
    print_firmware(K, K ? list[0]->n : 0, rank, T);
    if (model.encoder) {
        printf("  %-34s %10.1f MiB\n", "the encoder, beside these",
               (double)ttmm_encoder_bytes(model.encoder, option.prefix) / 1048576);
        print_size("train index --encoder", tokens + embeddings + ttmm_encoder_bytes(model.encoder, SIZE_MAX));
    }
    if (t->n_sequences == 0) return;
    const ttmm_recipe pretraining = {.batch = 8}, adapting = {.batch = 2}, ttt_recipe = {.batch = 1};
    ttmm_lora l;
    check(ttmm_lora_new(&l, c, (int)rank, 16, &err));
    print_size("train base (batch 8)", weights + tokens + ttmm_trainer_bytes(c, NULL, t, &pretraining));
    const size_t expert = lora + ttmm_trainer_bytes(c, &l, t, &adapting);
    print_size("train experts, finetune (batch 2)", stored + tokens + expert);
    print_size("train experts, 2 at once (--jobs)", stored + tokens + 2 * expert);
    print_size("TTT, beside generate or eval", embeddings + lora + ttmm_trainer_bytes(c, &l, t, &ttt_recipe));
    ttmm_lora_free(&l);
}

static void verb_export(void)
{
    const ttmm_config *c = &model.base.config;
    ttmm_mixture *x = &model.with;
    const int bf16 = option.dtype && strcmp(option.dtype, "bf16") == 0;
    const size_t T = smaller(option.context ? (size_t)option.context : 64, (size_t)c->context);
    size_t bytes;
    int rounded;
    if (option.output == NULL) FAIL(TTMM_BAD_USE, "export needs -o F.h or -o F.bin");
    if (ttmm_exists(model.folder, "corpus.safetensors")) load_corpus(0);
    if (has_experts()) load_centroids();
    begin_mixture(x, NULL, 0);
    const ttmm_mix all = all_experts();
    if (x->K == 0) x->E = 0, x->idf = NULL;
    check(ttmm_image_write(x, x->lora, bf16 ? TTMM_BF16 : TTMM_F32, option.output, &bytes, &rounded, &err));
    if (rounded && !quiet) fprintf(stderr, "weights were rounded to %s\n", bf16 ? "bf16" : "f32");
    printf("flash: %zu bytes, and the code\n", bytes);
    printf("RAM: %zu bytes at most for prompt and answer of %zu tokens (--context), taken one by one; and the stack\n",
           firmware_ram(x->K, x->E, (size_t)c->n_layers * TTMM_MATRICES, ttmm_mix_rank(&all), T), T);
}

static void verb_info(void)
{
    const ttmm_config *c = &model.base.config;
    const ttmm_corpus *t = &model.corpus;
    const ttmm_lora *first = NULL; /* of the experts that are trained */
    char folder[4096];
    size_t trained = 0;
    printf("%s: %zu parameters (%s, bits of version %d)\n", model.folder, model.base.n,
           sizeof(real) == 8 ? "double" : "float", TTMM_BITS);
    printf("  dim %d, %d layers, %d heads (%d key/value), head_dim %d, MLP %d, vocabulary %d, context %d, %s head\n",
           c->dim, c->n_layers, c->n_heads, c->n_kv_heads, c->head_dim, c->intermediate, c->vocab, c->context,
           c->tied ? "tied" : "untied");
    if (ttmm_exists(model.folder, "corpus.safetensors")) load_corpus(0);
    if (has_experts()) load_centroids();
    if (t->n_sequences)
        printf("  text: %zu tokens, %zu documents of %zu files, %zu sequences, embeddings of %zu numbers\n",
               t->n_tokens, t->n_documents, t->n_files, t->n_sequences, t->dim);
    const size_t K = model.with.K;
    for (size_t k = 0; k < K; k++) {
        path_of_expert(folder, k);
        if (!ttmm_exists(folder, "adapter_model.safetensors")) continue;
        if (trained++ == 0) first = load_expert(k);
    }
    const ttmm_lora **list = allocate(K, sizeof *list, "the list of experts");
    for (size_t k = 0; k < K; k++) list[k] = first; /* counts for every one */
    if (K) printf("  experts: %zu of %zu trained", trained, K);
    if (first) printf(", rank %zu, %zu parameters each", ttmm_lora_rank(first), first->n);
    if (K) printf("\n");
    print_memory(list, first ? K : 0, first ? ttmm_lora_rank(first) : 8);
    free(list);
}

/* ---- witness ----------------------------------------------------------------------------------------------------- */

/* SHA-256 (FIPS 180-4). */
typedef struct {
    uint32_t h[8];
    unsigned char block[64];
    uint64_t bytes;
} sha256;

static const sha256 sha256_start = {
    {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}, {0}, 0};

static uint32_t rotated(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_block(sha256 *s)
{
    /* clang-format off */
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    /* clang-format on */
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++) {
        const unsigned char *b = s->block + 4 * i;
        w[i] = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
    }
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (rotated(w[i - 15], 7) ^ rotated(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
               (rotated(w[i - 2], 17) ^ rotated(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(v, s->h, sizeof v);
    for (int i = 0; i < 64; i++) { /* v: a .. h */
        const uint32_t t1 = v[7] + (rotated(v[4], 6) ^ rotated(v[4], 11) ^ rotated(v[4], 25)) +
                            ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
        const uint32_t t2 = (rotated(v[0], 2) ^ rotated(v[0], 13) ^ rotated(v[0], 22)) +
                            ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t1, v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) s->h[i] += v[i];
}

static void sha256_add(sha256 *s, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) {
        s->block[s->bytes++ % 64] = p[i];
        if (s->bytes % 64 == 0) sha256_block(s);
    }
}

static const char *sha256_end(char text[65], sha256 *s)
{
    const unsigned char first = 0x80, zero = 0;
    const uint64_t bits = 8 * s->bytes;
    sha256_add(s, &first, 1);
    while (s->bytes % 64 != 56) sha256_add(s, &zero, 1);
    for (int i = 56; i >= 0; i -= 8) sha256_add(s, &(const unsigned char){(unsigned char)(bits >> i)}, 1);
    for (int i = 0; i < 8; i++) snprintf(text + 8 * i, 9, "%08lx", (unsigned long)s->h[i]);
    return text;
}

/* test/BITS.md, "The witness": a line of text for each tensor, with the hash of its numbers; of a stage the hash of its
 * lines; of all the hash of all lines. */
enum { ARGUMENTS = 1000, WITNESSED = 12, TWICE = 3, CLUSTERS = 11, CLOSEST = 6, DRAWN = 20 };
static struct {
    const char *stage;
    sha256 lines, all;
    ttmm_corpus text; /* the sequences */
    ttmm_model merged;
} seen;

static void add_number(sha256 *s, const void *x, size_t bytes) /* lowest byte first */
{
    const uint16_t first = 1;
    unsigned char b[8];
    memcpy(b, x, bytes);
    for (size_t i = 0; i < bytes; i++) sha256_add(s, b + (*(const unsigned char *)&first ? i : bytes - 1 - i), 1);
}

static void add_line(const char *before, const char *name, size_t rows, size_t cols, sha256 *s)
{
    char shape[64], hash[65], line[400];
    if (cols) snprintf(shape, sizeof shape, "[%zu, %zu]", rows, cols);
    else snprintf(shape, sizeof shape, "[%zu]", rows);
    snprintf(line, sizeof line, "%s %s%s %s %s\n", seen.stage, before, name, shape, sha256_end(hash, s));
    sha256_add(&seen.lines, line, strlen(line)), sha256_add(&seen.all, line, strlen(line));
    if (option.lines) fputs(line, stdout);
}

static void witness(const char *before, ttmm_array a)
{
    const size_t n = a.rows * (a.cols ? a.cols : 1);
    sha256 s = sha256_start;
    for (size_t i = 0; i < n && a.integer; i++) add_number(&s, &(const int32_t){a.integer[i]}, 4);
    for (size_t i = 0; i < n && !a.integer; i++) add_number(&s, a.data + i, sizeof *a.data);
    add_line(before, a.name, a.rows, a.cols, &s);
}

static void witness_reals(const char *before, const char *name, const real *x, size_t rows, size_t cols)
{
    ttmm_array a = {{0}, rows, cols, x, NULL};
    snprintf(a.name, sizeof a.name, "%s", name);
    witness(before, a);
}

static void witness_integers(const char *before, const char *name, const int *x, size_t n)
{
    ttmm_array a = {{0}, n, 0, NULL, x};
    snprintf(a.name, sizeof a.name, "%s", name);
    witness(before, a);
}

static void witness_weights(const ttmm_model *m)
{
    for (size_t i = 0; i < ttmm_n_tensors(&m->config); i++) witness("", ttmm_model_tensor_at(m, i));
}

static void witness_adapter(const char *before, const ttmm_lora *l)
{
    for (size_t i = 0; i < ttmm_lora_tensors(l); i++) witness(before, ttmm_lora_tensor_at(l, i));
}

/* Every value of a pass over the first sequence. */
static void witness_pass(const ttmm_model *m, const ttmm_mix *mix, const int *expert, int gradients)
{
    ttmm_trace t;
    check(ttmm_trace_new(&t, m, mix, expert, seen.text.token, seen.text.sequence[1], 0, gradients, &err));
    for (size_t i = 0; i < t.n; i++) witness("", t.array[i]);
    ttmm_trace_free(&t);
}

static void witness_training(ttmm_model *m, ttmm_lora *lora, const ttmm_recipe *r, long steps)
{
    ttmm_trainer *t;
    char name[40];
    double loss;
    check(ttmm_trainer_new(&t, m, lora, &seen.text, r, &err));
    ttmm_trainer_start(t, NULL, 0, steps, 0, 0);
    for (long step = 1; ttmm_trainer_step(t, &loss); step++) {
        snprintf(name, sizeof name, "step.%ld.loss", step);
        witness_reals("", name, &(const real){(real)loss}, 1, 0);
    }
    ttmm_trainer_free(t);
}

/* EXP, LOG ... of doubles, which all others round: a last bit that is off would rarely show there. */
static void stage_functions(void)
{
    static const struct function {
        const char *name;
        double (*of)(double), from, to;
    } function[] = {{"exp", ttmm_exp, -760, 760},
                    {"log", ttmm_log, 0, 1000},
                    {"sin", ttmm_sin, -10000, 10000},
                    {"cos", ttmm_cos, -10000, 10000},
                    {"erf", ttmm_erf, -7, 7}},
      *const end = function + sizeof function / sizeof *function;
    ttmm_rng g = ttmm_stream(1, "functions", 0);
    for (const struct function *f = function; f < end; f++) {
        sha256 s = sha256_start;
        for (int k = 0; k < ARGUMENTS; k++) {
            const double way = (f->to - f->from) * ttmm_uniform(&g); /* by itself: clang would fuse it with the sum */
            add_number(&s, &(const double){f->of(f->from + way)}, sizeof(double));
        }
        add_line("", f->name, ARGUMENTS, 0, &s);
    }
}

static void stage_init(void)
{
    ttmm_model m;
    check(ttmm_model_new(&m, &model.base.config, &err));
    ttmm_model_init(&m, 1);
    witness_weights(&m);
    ttmm_model_free(&m);
}

static void stage_pass(void) { witness_pass(&model.base, NULL, NULL, 1); }

static void stage_train(void)
{
    const ttmm_recipe r = {{0.01, 0.2, 0.05, 1}, 0.9, 0.98, 1e-8, 0.05, 1, 3, 0, 1};
    ttmm_model m;
    check(ttmm_model_copy(&m, &model.base, &err));
    witness_training(&m, NULL, &r, 6);
    witness_weights(&m);
    ttmm_model_free(&m);
}

static void stage_expert(void)
{
    const ttmm_recipe r = {{0.01, 0.1, 0.05, 0}, 0.9, 0.999, 1e-8, 0, 1, 2, 1, 1};
    ttmm_lora l;
    check(ttmm_lora_new(&l, &model.base.config, 4, 8, &err));
    ttmm_lora_init(&l, 1, 0);
    witness_adapter("start.", &l);
    witness_training(&model.base, &l, &r, option.steps);
    witness_adapter("", &l);
    ttmm_lora_free(&l);
}

/* Embeddings of the ids, then of bytes (token mod 256), and what is made of the latter. */
static void stage_cluster(void)
{
    const size_t n = WITNESSED, E = TTMM_EMBED_DIM;
    int cluster[WITNESSED], chosen[CLOSEST];
    size_t index[CLOSEST];
    ttmm_corpus *t = &seen.text, bytes;
    real *centroid = allocate(CLUSTERS * E, sizeof *centroid, "centroids");
    real *scratch = allocate(n * (CLOSEST + 2), sizeof *scratch, "neighbours");
    int *byte = allocate(t->n_tokens, sizeof *byte, "bytes");
    for (size_t i = 0; i < t->n_tokens; i++) byte[i] = t->token[i] % 256;
    check(ttmm_corpus_view(&bytes, byte, t->sequence, n, NULL, 0, NULL, &err));
    check(ttmm_corpus_embed(t, ttmm_tokenizer_of_ids(), &err)), check(ttmm_corpus_embed(&bytes, NULL, &err));
    witness_reals("ids.", "idf", t->idf, E, 0), witness_reals("ids.", "embeddings", t->embedding, n, E);
    witness_reals("", "idf", bytes.idf, E, 0), witness_reals("", "embeddings", bytes.embedding, n, E);
    check(ttmm_cluster(cluster, centroid, bytes.embedding, n, E, CLUSTERS, 1, &err));
    witness_integers("", "cluster", cluster, n), witness_reals("", "centroid", centroid, CLUSTERS, E);
    for (int sift = 0; sift < 2; sift++) {
        if (sift) ttmm_sift(index, CLOSEST, bytes.embedding, bytes.embedding, n, E, 0.01, scratch);
        else ttmm_nearest(index, CLOSEST, bytes.embedding, bytes.embedding, n, E, scratch);
        for (int i = 0; i < CLOSEST; i++) chosen[i] = (int)index[i];
        witness_integers("", sift ? "sift" : "nearest", chosen, CLOSEST);
    }
    ttmm_corpus_free(&bytes);
    free(byte), free(centroid), free(scratch);
}

/* Experts for a random query, by three routers: the first one's stay for the stages after this. */
static void choose_at_random(int i)
{
    static const ttmm_router router[] = {{0.6, 0.1, 50, 0}, {0.9, 0, 2, 0}, {0.7, 1, 50, 4}};
    ttmm_mixture *x = &model.with;
    ttmm_rng g = ttmm_stream(1, "query", 0);
    real *query = allocate(x->E, sizeof *query, "the query");
    for (size_t e = 0; e < x->E; e++) query[e] = (real)(2 * ttmm_uniform(&g) - 1);
    x->router = router[i];
    check(ttmm_choose(x, NULL, 0, query, &err));
    free(query);
}

static void stage_route(void)
{
    static const char *const name[] = {"", "max.", "active."};
    const ttmm_mixture *x = &model.with;
    witness_reals("", "query", x->query, x->E, 0), witness_reals("", "similarity", x->similarity, x->K, 0);
    for (int i = 2; i >= 0; i--) {
        choose_at_random(i);
        witness_integers(name[i], "experts", x->expert, x->mix.n);
        witness_reals(name[i], "weights", x->weight, x->mix.n, 0);
    }
}

static void stage_merge(void)
{
    check(ttmm_combine(&model.with, TTMM_DENSE, &err));
    witness_weights(&seen.merged);
    witness_pass(&seen.merged, NULL, NULL, 0);
}

static void stage_beside(void) { witness_pass(&model.base, &model.with.mix, model.with.expert, 1); }

/* All logits of the prompt, then of each token that is taken up but the last. */
static void stage_greedy(void)
{
    enum { PROMPT = 8 };
    const size_t n = option.decoded, V = (size_t)model.base.config.vocab, T = smaller(PROMPT, seen.text.sequence[1]);
    const ttmm_pass_size size = {.tokens = T, .sequences = 1, .cache = T + n, .logits = T};
    const ttmm_sampler sampler = {0.7, 0.9, 12};
    ttmm_pass *p;
    ttmm_rng g = ttmm_stream(1, "sample", 0);
    char name[40];
    int *token = allocate(n, sizeof *token, "tokens"), drawn[DRAWN];
    void *scratch = allocate(ttmm_sample_scratch(V), 1, "sampling");
    check(ttmm_pass_new(&p, &model.base.config, &size, &err));
    const real *logits = NULL;
    for (size_t i = 0; i < n; i++) {
        const size_t rows = i ? 1 : T, start[2] = {0, rows};
        check(ttmm_forward(p, &model.base, NULL, i ? token + i - 1 : seen.text.token, start, 1));
        logits = ttmm_logits(p, &model.base, 0, rows);
        snprintf(name, sizeof name, "logits.%zu", i);
        witness_reals("", name, logits, rows, V);
        logits += (rows - 1) * V;
        token[i] = (int)ttmm_argmax(logits, V);
    }
    witness_integers("", "tokens", token, n);
    for (int i = 0; i < DRAWN; i++) drawn[i] = ttmm_sample(logits, V, &sampler, &g, scratch);
    witness_integers("", "sampled", drawn, DRAWN);
    ttmm_pass_free(p);
    free(token), free(scratch);
}

static const struct {
    const char *name;
    void (*run)(void);
    int experts; /* 1: it is about them */
} stages[] = {{"functions", stage_functions, 0}, {"init", stage_init, 0},     {"pass", stage_pass, 0},
              {"train", stage_train, 0},         {"expert", stage_expert, 0}, {"cluster", stage_cluster, 0},
              {"route", stage_route, 1},         {"merge", stage_merge, 1},   {"beside", stage_beside, 1},
              {"greedy", stage_greedy, 0}};

static void make_sequences(void)
{
    ttmm_rng g = ttmm_stream(1, "witness", 0);
    size_t *start = allocate(WITNESSED + 1, sizeof *start, "the sequences");
    for (size_t i = 0; i < WITNESSED; i++) start[i + 1] = start[i] + option.length - i % 3;
    int *token = allocate(start[WITNESSED], sizeof *token, "the sequences");
    const size_t drawn = start[WITNESSED - TWICE]; /* the last sequences are the first ones again */
    for (size_t t = 0; t < drawn; t++) token[t] = (int)ttmm_below(&g, (uint64_t)model.base.config.vocab);
    memcpy(token + drawn, token, (start[WITNESSED] - drawn) * sizeof *token);
    check(ttmm_corpus_view(&seen.text, token, start, WITNESSED, NULL, 0, NULL, &err));
}

static void verb_witness(void)
{
    const int experts = has_experts();
    char hash[65];
    check_only(" " STAGES " ");
    make_sequences();
    if (experts) load_centroids(), begin_mixture(&model.with, &seen.merged, 0), choose_at_random(0);
    else if (!quiet) fprintf(stderr, "%s: has no experts: route, merge and beside are left out\n", model.folder);
    seen.all = sha256_start;
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        if (!is_wanted(stages[i].name) || (stages[i].experts && !experts)) continue;
        seen.stage = stages[i].name, seen.lines = sha256_start;
        stages[i].run();
        if (!option.lines) printf("%s %s\n", seen.stage, sha256_end(hash, &seen.lines));
        fflush(stdout);
    }
    if (!option.lines) printf("all %s\n", sha256_end(hash, &seen.all));
}

/* ---- bench ------------------------------------------------------------------------------------------------------- */

/* A work is repeated for about a second; the fastest time counts. `flops` and `bytes` are those of the formulas,
 * 2 flops a multiply-add, every weight, key and value that is needed read or written once. Of bound: the time that the
 * machine would take for these at its measured peaks, whichever is longer, in percent of the time that it took.
 * The model, its corpus (`batch` sequences of random tokens), experts and centroids stand in `model`. */
static struct {
    double flops, bandwidth; /* peaks, a second */
    ttmm_mix mix;            /* all experts, their weights 0 */
    ttmm_pass *pass;
    ttmm_trainer *trainer;
    double loss;
    size_t T;               /* tokens of a sequence */
    size_t decoded, prompt; /* tokens: the last 8 of a sequence, decoded; the first 50, of lowrank */
} bench;

static void work_step(void) { ttmm_trainer_step(bench.trainer, &bench.loss); }

static void forward_from_start(const ttmm_mix *mix, size_t T)
{
    ttmm_rewind(bench.pass, 0);
    ttmm_feed(bench.pass, &model.base, mix, model.corpus.token, T);
}

static void work_prefill(void) { forward_from_start(NULL, bench.T); }

static void work_lowrank(void) { forward_from_start(&bench.mix, bench.prompt); }

static void decode_last(const ttmm_mix *mix)
{
    ttmm_rewind(bench.pass, bench.T - bench.decoded);
    for (size_t t = bench.T - bench.decoded; t < bench.T; t++)
        ttmm_feed(bench.pass, &model.base, mix, model.corpus.token + t, 1);
}

static void work_decode(void) { decode_last(NULL); }

static void work_beside(void) { decode_last(&bench.mix); }

static void work_embed(void) { ttmm_embed(model.with.query, NULL, model.corpus.token, bench.T, NULL); }

static void work_route(void)
{
    ttmm_mixture *x = &model.with;
    const ttmm_router r = {0.2, 0, x->K, 0};
    size_t n;
    check(ttmm_route(&n, x->expert, x->weight, x->similarity, x->query, x->centroid, x->K, x->E, &r, &err));
}

static void work_merge(void) /* in place: weights of 0 change nothing */
{
    check(ttmm_mixture_merge(&model.with, &bench.mix, &err));
}

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
    const double at_peak = flops / bench.flops, from_memory = bytes / bench.bandwidth;
    const double seconds = best * times, rate = tokens / best, gflops = flops / best / 1e9, gbytes = bytes / best / 1e9;
    const double percent = 100 * (at_peak > from_memory ? at_peak : from_memory) / best;
    char speed[32] = "";
    if (tokens > 0) snprintf(speed, sizeof speed, "%.0f", rate);
    printf("%-8s %12.6f %12s %10.1f %10.1f %8.1f %%\n", work, seconds, speed, gflops, gbytes, percent);
    fflush(stdout);
    if (tsv) fprintf(tsv, "%s\t%.9g\t%.9g\t%.9g\t%.9g\t%.9g\n", work, seconds, rate, gflops, gbytes, percent);
}

static void make_model(void)
{
    ttmm_config c = {.norm_eps = 1e-5, .rope_theta = 10000, .tied = 1, .context = option.bench_context};
    char rest;
    if (sscanf(option.shape, "%9d,%9d,%9d,%9d,%9d,%9d%c", &c.dim, &c.n_layers, &c.n_heads, &c.n_kv_heads,
               &c.intermediate, &c.vocab, &rest) != 6)
        FAIL(TTMM_BAD_USE, "--shape is %.100s, expected six numbers: dim,layers,heads,kv,intermediate,vocab",
             option.shape);
    if (c.n_heads < 1 || c.dim % c.n_heads) FAIL(TTMM_BAD_USE, "--shape: dim %d is not a multiple of heads", c.dim);
    c.head_dim = c.dim / c.n_heads;
    if (ttmm_config_check(&c, &err) != TTMM_OK) check(TTMM_BAD_USE);
    check(ttmm_model_new(&model.base, &c, &err));
    ttmm_model_init(&model.base, 1);
}

/* Random text and centroids; the text's first sequence is the query. */
static void make_text(void)
{
    const size_t B = option.batch, K = option.bench_experts, E = TTMM_EMBED_DIM;
    const int vocab = model.base.config.vocab;
    ttmm_corpus *t = &model.corpus;
    ttmm_rng g = ttmm_stream(1, "bench", 0);
    t->n_sequences = t->n_documents = B, t->n_tokens = B * bench.T;
    t->token = allocate(t->n_tokens, sizeof *t->token, "the bench");
    t->sequence = allocate(B + 1, sizeof *t->sequence, "the bench");
    for (size_t i = 0; i < t->n_tokens; i++)
        t->token[i] = (int)ttmm_below(&g, (uint64_t)(vocab < 256 ? vocab : 256)); /* bytes, too */
    for (size_t i = 0; i <= B; i++) t->sequence[i] = i * bench.T;
    list_experts(K), model.with.E = E;
    model.centroid = allocate(K * E, sizeof *model.centroid, "the bench");
    for (size_t i = 0; i < K * E; i++) model.centroid[i] = (real)(ttmm_normal(&g) / 45); /* 45^2 is about E */
    begin_mixture(&model.with, &model.base, 0);
    ttmm_embed(model.with.query, NULL, t->token, bench.T, NULL);
}

static void make_experts(void)
{
    for (size_t k = 0; k < model.with.K; k++) {
        check(ttmm_lora_new(&model.expert[k], &model.base.config, option.rank, 2.0 * option.rank, &err));
        ttmm_lora_init(&model.expert[k], 1, k);
        model.with.lora[k] = &model.expert[k];
    }
    bench.mix = (ttmm_mix){model.with.K, model.with.lora, allocate(model.with.K, sizeof(real), "the bench")};
}

/* A training step of all weights, or (lora) of an adapter; `name` of the row. times: see measure. */
static void measure_training(const char *name, ttmm_lora *lora, size_t batch, double flops, double bytes, double times)
{
    const ttmm_recipe r = {.schedule = {.lr = 0}, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip = 1, .batch = batch};
    const size_t need = ttmm_trainer_bytes(&model.base.config, lora, &model.corpus, &r), have = ttmm_memory();
    if (!is_wanted(name)) return;
    if (have && need + model.base.n * sizeof(real) > have / 10 * 9) {
        printf("%-8s left out: it takes %.0f MiB beside the weights\n", name, (double)need / 1048576);
        return;
    }
    check(ttmm_trainer_new(&bench.trainer, &model.base, lora, &model.corpus, &r, &err));
    ttmm_trainer_start(bench.trainer, NULL, 0, 1 << 30, 0, 0);
    measure(name, work_step, (double)(batch * bench.T), flops, bytes, times);
    ttmm_trainer_free(bench.trainer);
}

/* The formulas, of a token unless they say otherwise. */
static void measure_all(void)
{
    const ttmm_config *c = &model.base.config;
    const double D = c->dim, L = c->n_layers, F = c->intermediate, K = (double)model.with.K;
    const double E = (double)model.with.E;
    const double HS = (double)c->n_heads * c->head_dim, GS = (double)c->n_kv_heads * c->head_dim;
    const double T = (double)bench.T, N = T * (double)option.batch, decoded = (double)bench.decoded;
    const double P = L * D * (2 * HS + 2 * GS + 3 * F), head = c->vocab * D;  /* weights of layers, of the head */
    const double a = option.rank * L * (4 * D + 2 * (HS + GS) + 3 * (D + F)); /* numbers in an adapter */
    const double attention = 2 * L * HS * T; /* flops: q.k and P v, 4 a pair and number, of half of all pairs */
    const double train = 6 * (P + head) + 3.5 * attention;
    const double lora = 4 * (P + head) + 7 * a + 3.5 * attention; /* dW is not needed */
    const double word = sizeof(real), decode = 2 * (P + head) + 2 * attention;
    size_t stored = model.base.n * sizeof(real);
    if (model.base.view) check(ttmm_stored_bytes(&stored, c, argument[0], &err));
    const double weights = (P + head) * (double)stored / (double)model.base.n;
    const double read = weights + word * 2 * L * GS * T; /* by a token that is decoded: the cache, too */
    const ttmm_pass_size size = ttmm_decoding_size(bench.T, bench.T, (size_t)option.rank);
    measure_training("train", NULL, option.batch, N * train, 9 * word * (double)model.base.n, 1);
    make_experts();
    measure_training("lora", &model.expert[0], option.batch, N * lora, 2 * weights, 1);
    check(ttmm_pass_new(&bench.pass, c, &size, &err));
    measure("prefill", work_prefill, T, T * (2 * P + attention) + 2 * head, weights, 1);
    measure("decode", work_decode, decoded, decoded * decode, decoded * read, 1);
    measure("embed", work_embed, T, 0, word * E, 1);
    measure("route", work_route, 0, 2 * K * E, word * K * E, 1);
    measure("merge", work_merge, 0, 2 * K * P * option.rank, 2 * word * P, 1);
    measure("lowrank", work_lowrank, 0, (double)bench.prompt * (2 * P + 2 * K * a) + 2 * head, weights + word * K * a,
            1);
    measure("beside", work_beside, decoded, decoded * (decode + 2 * K * a), decoded * (read + word * K * a), 1);
    measure_training("ttt", &model.expert[0], 1, T * lora, 2 * weights, (double)option.neighbours * option.epochs);
}

static void verb_bench(void)
{
    if ((n_arguments > 0) == (option.shape != NULL))
        FAIL(TTMM_BAD_USE, "bench needs a MODEL or a --shape, one of them");
    check_only(" " WORKS " ");
    if (option.shape) make_model();
    else if (is_wanted("train") || is_wanted("merge")) check(ttmm_model_read(&model.base, argument[0], &err));
    else check(ttmm_model_open(&model.base, argument[0], &err)); /* nothing writes to it */
    bench.T = smaller((size_t)option.bench_context, (size_t)model.base.config.context);
    bench.decoded = smaller(bench.T, 8), bench.prompt = smaller(bench.T, 50);
    make_text();
    bench.flops = ttmm_peak_flops(), bench.bandwidth = ttmm_peak_bandwidth();
    printf("%s: %zu parameters; batch %zu, %zu tokens, rank %d, %zu experts, %d threads\n",
           option.shape ? option.shape : argument[0], model.base.n, option.batch, bench.T, option.rank, model.with.K,
           ttmm_threads());
    printf("this machine at most: %.0f GFLOP/s (multiply-add in registers), %.1f GB/s (reading memory)\n",
           bench.flops / 1e9, bench.bandwidth / 1e9);
    printf("%-8s %12s %12s %10s %10s %10s\n", "work", "seconds", "tokens/s", "GFLOP/s", "GB/s", "of bound");
    open_tsv("work\tseconds\ttok_s\tgflop_s\tgb_s\tbound_pct");
    measure_all();
    close_tsv();
}

/* ---- main -------------------------------------------------------------------------------------------------------- */

static const ttmm_verb verbs[] = {
    {"generate", "MODEL [\"prompt\"]", "route the prompt to the experts, merge them, decode", 1, 2},
    {"route", "MODEL [\"prompt\"]", "the experts chosen, their weights, and what they were trained on", 1, 2},
    {"eval", "MODEL FILE...", "the paper's table on held-out text", 2, 1 << 30},
    {"merge", "MODEL [\"prompt\"] -o DIR", "write the merged model as a Hugging Face checkpoint", 1, 2},
    {"trace", "MODEL [\"prompt\"] -o F", "every named intermediate, to a safetensors file", 1, 2},
    {"compare", "A B", "two safetensors files, tensor by tensor; A is the reference", 2, 2},
    {"check", "VECTORS YOURS --precision P", "what another backend computed, by a folder of test vectors", 2, 2},
    {"export", "MODEL -o F.h", "the model with its experts as one array, for a firmware", 1, 1},
    {"tokenize", "MODEL --file F [-o IDS]", "the token ids of a text, one line a document or sequence", 1, 1},
    {"info", "MODEL", "parameters, experts, and the memory that generate, eval and training take", 1, 1},
    {"witness", "MODEL", "hashes of what is computed, for other implementations: test/BITS.md", 1, 1},
    {"bench", "[MODEL]", "the speed of every kind of work, beside what bounds it on this machine", 0, 1},
};
enum { VERBS = sizeof verbs / sizeof *verbs };
static void (*const action[VERBS])(void) = {
    verb_generate, verb_route,  verb_eval,     verb_merge, verb_trace,   verb_compare,
    verb_check,    verb_export, verb_tokenize, verb_info,  verb_witness, verb_bench,
};
static const ttmm_program program = {"run", verbs, VERBS, options, sizeof options / sizeof *options};

/* The value of an option that is one of two or three (c may be NULL) words. */
static void check_word(const char *name, const char *value, const char *a, const char *b, const char *c)
{
    if (strcmp(value, a) == 0 || strcmp(value, b) == 0 || (c && strcmp(value, c) == 0)) return;
    if (c) FAIL(TTMM_BAD_USE, "--%s is %.100s, expected %s, %s or %s", name, value, a, b, c);
    FAIL(TTMM_BAD_USE, "--%s is %.100s, expected %s or %s", name, value, a, b);
}

/* With PEFT, transformers answers with an adapter that lies beside the weights. */
static void refuse_adapter_beside(void)
{
    if (ttmm_exists(model.folder, "adapter_config.json"))
        FAIL(TTMM_BAD_INPUT, "%s: holds adapter_config.json: an adapter must be in a folder of its own (--adapter)",
             model.folder);
}

/* Whether experts will be merged into the base, which then is read: it would be mapped in vain. */
static int merges_for_sure(void (*verb)(void))
{
    if (verb == verb_trace) return (option.route || option.query) && how_to_merge(TTMM_DENSE) == TTMM_DENSE;
    return verb == verb_merge || (verb == verb_generate && how_to_merge(TTMM_FASTER) == TTMM_DENSE);
}

int main(int argc, char **argv)
{
    size_t v;
    argv = arguments(&argc, argv);
    usual = option;
    argument = allocate((size_t)argc, sizeof *argument, "the arguments");
    const int code = ttmm_command(&v, argument, &n_arguments, &program, argc, argv, &err);
    if (code > 0) {
        ttmm_usage(argc < 2 ? stderr : stdout, &program, v);
        return argc < 2 ? -TTMM_BAD_USE : 0;
    }
    check(code);
    if (option.merge) check_word("merge", option.merge, "dense", "lowrank", "ensemble");
    if (option.dtype && action[v] == verb_merge) check_word("dtype", option.dtype, "f32", "f16", "bf16");
    if (option.dtype && action[v] == verb_export) check_word("dtype", option.dtype, "f32", "bf16", NULL);
    check_word("select", option.select, "nn", "sift", NULL);
    if (option.lambda != usual.lambda && strcmp(option.select, "sift") != 0)
        FAIL(TTMM_BAD_USE, "--lambda is for --select sift");
    ttmm_limit_threads(option.threads);
    if (option.encoder && option.query)
        FAIL(TTMM_BAD_USE, "--query takes the place of --encoder: leave one of them out");
    if (option.encoder) check(ttmm_encoder_read(&model.encoder, option.encoder, &err));
    if (option.embedding) {
        trace_embedding();
        return 0;
    }
    if (strncmp(verbs[v].arguments, "MODEL", 5) == 0) {
        model.folder = argument[0];
        if (action[v] == verb_info || action[v] == verb_tokenize) { /* the shape alone: weights are sizes */
            check(ttmm_config_read(&model.base.config, model.folder, &err));
            model.base.n = ttmm_n_weights(&model.base.config);
        } else {
            refuse_adapter_beside();
            check(merges_for_sure(action[v]) ? ttmm_model_read(&model.base, model.folder, &err)
                                             : ttmm_model_open(&model.base, model.folder, &err));
        }
    }
    const int routed = option.query && (action[v] == verb_route || action[v] == verb_merge); /* by that alone */
    if (strstr(verbs[v].arguments, "prompt") && !routed) load_prompt(n_arguments > 1 ? argument[1] : NULL);
    action[v]();
    if (fflush(stdout) != 0 || ferror(stdout)) FAIL(TTMM_NO_ROOM, "standard output cannot be written");
    return 0;
}
