/* encoder.c - the sentence encoder, on two small random ones that test/encoder.h writes: values against PyTorch's of
 * the formulas (test/encoder.py has them, and compares the real encoders), worked examples, WordPiece against
 * tokenizers', every kind of folder that is refused. With a FOLDER and bert or mpnet it writes that encoder there, for
 * test/cli.sh. */
#include "test.h"

#include "encoder.h"

#define FOLDER (sizeof(real) == 4 ? "test/build/encoder-f32.d" : "test/build/encoder-f64.d")
static ttmm_error err;

static const char *const texts[] = {
    "Melt the butter.",
    "But, the <pad> buttering \xc3\x89t\xc3\xa9 zz\xe4\xb8\xad\xe6\x96\x87 <mask> a<MASK>b",
    "",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z, melt the butter, the butter melting, but melt the butter. "
    "zzz "
    "the end of a long text that is cut",
};
enum { TEXTS = sizeof texts / sizeof *texts };

static ttmm_encoder *encoder_of(int mpnet)
{
    ttmm_encoder *e = NULL;
    test_clear(FOLDER);
    DONE(make_encoder(FOLDER, mpnet, &err)), DONE(ttmm_encoder_read(&e, FOLDER, &err));
    return e;
}

static void encode_all(real *out, const ttmm_encoder *e, size_t n)
{
    size_t bytes[TEXTS];
    for (size_t i = 0; i < n; i++) bytes[i] = strlen(texts[i]);
    DONE(ttmm_encode(out, e, texts, bytes, n, &err));
}

/* The first three numbers of the texts' embeddings, as the formulas give them in PyTorch, in float64. */
static void values(void)
{
    static const double expected[2][TEXTS][3] = {{{-0.009651367915479018, -0.01135396793451463, -0.0014605100536758614},
                                                  {0.17710925455943097, 0.0222778524575385, -0.034120438369898407},
                                                  {0.14931641367929527, -0.07451495402884474, 0.050866717003020756},
                                                  {0.043888657080212244, 0.0392450935036462, -0.047545734525420734}},
                                                 {{0.06888934472640988, 0.049010562033294354, 0.026129240863898697},
                                                  {0.0900553426318823, 0.017627369949915577, 0.06391354363743115},
                                                  {-0.1311349286917201, 0.040022455088024204, 0.12449810236109743},
                                                  {0.10213683183895299, 0.08670570661504862, 0.03735531429248127}}};
    for (int mpnet = 0; mpnet < 2; mpnet++) {
        real out[TEXTS * ENC_D];
        ttmm_encoder *e = encoder_of(mpnet);
        CHECK(e && ttmm_encoder_dim(e) == ENC_D);
        if (e == NULL) return;
        encode_all(out, e, TEXTS);
        for (int i = 0; i < TEXTS; i++) {
            CHECK_NEAR(dot(out + i * ENC_D, out + i * ENC_D, ENC_D), 1, sizeof(real) == 4 ? 1e-6 : 1e-14);
            for (int k = 0; k < 3; k++)
                CHECK_NEAR(out[i * ENC_D + k], expected[mpnet][i][k], sizeof(real) == 4 ? 1e-6 : 1e-14);
        }
        ttmm_encoder_free(e);
    }
}

/* The examples in ttmm.c. */
static void worked(void)
{
    static const long distance[] = {-7, -8, -11, -12, -100, -500, 0, 8, 1, 127, 128};
    static const size_t bucket[] = {7, 8, 8, 9, 15, 15, 0, 24, 17, 31, 31};
    const real ones[] = {1, 1}, bias[] = {0, 1};
    real x[] = {1, 3}, y[] = {1, -1};
    layernorm(x, ones, bias, 1, 2, 0);
    CHECK(x[0] == -1 && x[1] == 2);
    gelu(y, 2);
    CHECK_NEAR(y[0], 0.8413447460685429, 1e-7), CHECK_NEAR(y[1], -0.15865525393145705, 1e-7);
    for (size_t i = 0; i < sizeof bucket / sizeof *bucket; i++) CHECK_EQUAL(distance_bucket(distance[i]), bucket[i]);
}

/* A text's bits depend neither on its batch nor on the threads; a batch is more than one pass. */
static void batches(void)
{
    enum { MANY = 60 };
    const char *many[MANY];
    size_t bytes[MANY];
    real *out = calloc(2 * MANY * ENC_D, sizeof *out), *alone = out + MANY * ENC_D;
    for (size_t i = 0; i < MANY; i++) many[i] = texts[i * 7 % TEXTS], bytes[i] = strlen(many[i]);
    for (int mpnet = 0; mpnet < 2 && out; mpnet++) {
        ttmm_encoder *e = encoder_of(mpnet);
        const int threads = ttmm_threads();
        for (int n = 1; e && n <= 3; n++) {
            ttmm_set_threads(n);
            DONE(ttmm_encode(out, e, many, bytes, MANY, &err));
            for (size_t i = 0; i < MANY && n == 1; i++)
                DONE(ttmm_encode(alone + i * ENC_D, e, many + i, bytes + i, 1, &err));
            CHECK(memcmp(out, alone, MANY * ENC_D * sizeof *out) == 0);
        }
        ttmm_set_threads(threads);
        ttmm_encoder_free(e);
    }
    free(out);
}

/* Texts as token ids, those of tokenizers 0.22.2 on the same tokenizer.json. */
static const char *ids_of(const ttmm_encoder *e, const char *text, size_t bytes)
{
    static char out[4000];
    text_list x = {.n = 0};
    size_t n = 0;
    DONE(list_text(&x, e, text, bytes, &err));
    for (size_t i = 0; i < x.list.n; i++)
        n += (size_t)snprintf(out + n, sizeof out - n, i ? " %d" : "%d", x.list.token[i]);
    free(x.list.token), free(x.start);
    return out;
}

static void words(void)
{
    static const char *const cases[][2] = {
        {"Melt THE butter", "0 57 58 59 2"},
        {"melting,butter.but", "0 57 62 64 59 63 60 2"},
        {"\xc3\x89t\xc3\xa9 e\xcc\x81te\xcc\x81", "0 13 44 14 13 44 14 2"},
        {"a\xe4\xb8\xad"
         "b \xe4\xb8\xad\xe6\x96\x87",
         "0 5 66 7 66 67 2"},
        {"ab", "0 5 8 2"},
        {"a\xe2\x80\x8b"
         "b\xc2\xad"
         "c\xef\xbb\xbf",
         "0 5 8 10 2"},
        {"a\x09"
         "b\x0a"
         "c\xc2\xa0"
         "d\xe3\x80\x80"
         "e\xe2\x80\xa8"
         "f",
         "0 5 7 9 11 13 15 2"},
        {"x<pad>y</s>z", "0 51 1 53 2 55 2"},
        {"<mask> <MASK> < mask >", "0 4 4 70 71 72 2"},
        {"[UNK] [CLS]", "0 3 45 32 26 3 3 9 28 42 3 2"},
        {"aaaaaaaaaaaaaaaaaaaa", "0 5 6 6 6 6 6 6 6 6 6 6 6 6 6 6 6 6 6 6 6 2"},
        {"aaaaaaaaaaaaaaaaaaaaa", "0 3 2"},
        {"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3"
         "\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9",
         "0 13 14 14 14 14 14 14 14 14 14 14 14 14 14 14 14 14 14 14 14 2"},
        {"butt", "0 60 44 2"},
        {"m\xcc\xb4"
         "elt",
         "0 57 2"},
        {"\xc4\xb0 \xe1\xba\x9e \xce\xa3\xcf\x82", "0 21 3 3 2"},
        {"don't-stop_it", "0 11 34 32 65 43 3 41 44 34 36 3 21 44 2"},
        {"\xef\xbf\xbd a", "0 5 2"},
        {"\xf0\x9f\x98\x80 a", "0 3 5 2"},
        {"1 2", "0 3 3 2"},
        {"\xe2\x84\xab \xc3\x85", "0 5 5 2"},
        {"\xc7\x85 \xe1\xba\x9b\xcc\xa3", "0 3 3 2"},
        {"\xe3\x81\x82\xe3\x82\x99", "0 3 2"},
        {"but\xcc\x88ter", "0 59 2"},
        {"a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z a b "
         "c d e f g h i j k l m n o p q r s t u v w x y z",
         "0 5 7 9 11 13 15 17 19 21 23 25 27 29 31 33 35 37 39 41 43 45 47 49 51 53 55 5 7 9 11 13 15 17 19 21 23 25 "
         "27 29 31 33 35 37 39 41 43 45 47 49 51 53 55 5 7 9 11 13 15 17 19 21 23 2"}};
    ttmm_encoder *e = encoder_of(1);
    if (e == NULL) return;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *found = ids_of(e, cases[i][0], strlen(cases[i][0]));
        if (strcmp(found, cases[i][1]) == 0) passed++;
        else test_failed(__FILE__, __LINE__, cases[i][0], cases[i][1], found);
    }
    CHECK_TEXT(ids_of(e, "a\0b", 3), "0 5 8 2"); /* a zero byte is dropped; so is what is not UTF-8 */
    CHECK_TEXT(ids_of(e,
                      "a\xff\xe4\xb8"
                      "b",
                      5),
               "0 5 8 2");
    ttmm_encoder_free(e);
}

/* One file of the folder with parts of it replaced, which must be there. */
static void replace_all(int mpnet, const char *file, const char *const by[][2], int n)
{
    char text[8000], other[9000];
    int i = 0;
    while (i < ENC_FILES - 1 && strcmp(encoder_files[i], file) != 0) i++;
    encoder_text(text, sizeof text, i, mpnet);
    for (int k = 0; k < n; k++) {
        char *found = strstr(text, by[k][0]);
        CHECK(found != NULL);
        if (found == NULL) return;
        snprintf(other, sizeof other, "%.*s%s%s", (int)(found - text), text, by[k][1], found + strlen(by[k][0]));
        snprintf(text, sizeof text, "%.7999s", other);
    }
    DONE(encoder_write(FOLDER, i, text, &err));
}

/* Files beside them, which need not be there. */
static void put(const char *name, const char *text)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", FOLDER, name);
    FILE *f = fopen(path, "wb");
    CHECK(f && fputs(text, f) >= 0);
    if (f) fclose(f);
}

static void replace(int mpnet, const char *file, const char *part, const char *by)
{
    replace_all(mpnet, file, (const char *const[][2]){{part, by}}, 1);
}

#define TEXT "\"text\": "
#define FORWARD "{\"method\": \"forward\", \"method_output_name\": \"last_hidden_state\"}"

/* Folders as other versions and programs write them, and the same encoder. */
static void alike(void)
{
    static const char *const cases[][3] = {
        {"sentence_bert_config.json", "64", "64, \"processing_kwargs\": {}, \"model_kwargs\": null"},
        {"sentence_bert_config.json", "64", "64, \"modality_config\": {" TEXT FORWARD "}"},
        {"tokenizer.json", "{\"type\": \"WordPiece\", \"unk_token\"", "{\"unk_token\""},
        {"tokenizer.json", "\"padding\": null", "\"padding\": {\"pad_token\": \"<pad>\"}"}};
    static const char *const file[] = {"one.safetensors", "two.safetensors"};
    static encoder_weights w;
    static char index[20000];
    char was[40] = "", path[200];
    ttmm_encoder *e = encoder_of(1);
    if (e) snprintf(was, sizeof was, "%s", ttmm_encoder_fingerprint(e));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ttmm_encoder_free(e);
        replace(1, cases[i][0], cases[i][1], cases[i][2]);
        if (DONE(ttmm_encoder_read(&e, FOLDER, &err))) CHECK_TEXT(ttmm_encoder_fingerprint(e), was);
        replace(1, cases[i][0], "", "");
    }
    for (int renamed = 0; renamed < 3; renamed++) { /* weights in two files, every other; by the names of old */
        ttmm_array part[2][100];
        size_t parts[2] = {0, 0}, n = 0;
        ttmm_encoder_free(e), e = NULL;
        make_weights(&w, 1);
        n += (size_t)snprintf(index, sizeof index, "{\"weight_map\": {");
        for (size_t i = 0; i < w.n; i++) {
            char *norm = strstr(w.array[i].name, "LayerNorm.");
            if (norm && renamed) strcpy(norm + 10, strcmp(norm + 10, "bias") == 0 ? "beta" : "gamma");
            part[i % 2][parts[i % 2]++] = w.array[i];
            if (renamed < 2 || i != 5)
                n += (size_t)snprintf(index + n, sizeof index - n, "%s\"%s\": \"%s\"", i ? ", " : "", w.array[i].name,
                                      file[i % 2]);
        }
        snprintf(index + n, sizeof index - n, "}}");
        for (int k = 0; k < 2; k++) {
            snprintf(path, sizeof path, "%s/%s", FOLDER, file[k]);
            DONE(ttmm_arrays_write(part[k], parts[k], path, "", &err));
        }
        ttmm_remove(FOLDER, "model.safetensors");
        put("model.safetensors.index.json", index);
        if (renamed == 2) REFUSED(ttmm_encoder_read(&e, FOLDER, &err), "index.json", "weight_map has no file for ");
        else if (DONE(ttmm_encoder_read(&e, FOLDER, &err))) CHECK_TEXT(ttmm_encoder_fingerprint(e), was);
    }
    ttmm_encoder_free(e);
}

static void refused(void)
{
    static const char pool[] = "1_Pooling/config.json", longest[] = "sentence_bert_config.json", t[] = "tokenizer.json";
    static const struct {
        const char *file, *part, *by, *sentence;
    } cases[] = {
        {"modules.json", "models.Normalize", "models.Dense",
         "module 2 is \"sentence_transformers.models.Dense\", expected Normalize"},
        {"modules.json", "models.Pooling", "models.CNN", "expected Pooling"},
        {"modules.json", "sentence_transformers.models.T", "mine.T", "module 0 is \"mine.Transformer\""},
        {"modules.json", ",\n {\"idx\": 2", "]X", "is not a JSON list"},
        {"modules.json",
         ",\n {\"idx\": 2, \"name\": \"2\", \"path\": \"2_Normalize\", \"type\": "
         "\"sentence_transformers.models.Normalize\"}",
         "", "module 2 is missing, expected Normalize"},
        {"modules.json", "Normalize\"}", "Normalize\"}, {\"type\": \"sentence_transformers.models.Dense\"}",
         "module 3 is"},
        {pool, "token\": false", "token\": true", "pooling_mode_cls_token is true, expected false"},
        {pool, "pooling_mode_mean_tokens\": true", "pooling_mode_mean_tokens\": false",
         "pooling_mode_mean_tokens is false"},
        {pool, "pooling_mode_cls_token\": false", "pooling_mode_max_tokens\": true", "pooling_mode_max_tokens is true"},
        {pool, "pooling_mode_cls_token\": false", "pooling_mode_lasttoken\": true", "pooling_mode_lasttoken is true"},
        {pool, "pooling_mode_cls_token\": false", "pooling_mode_weightedmean_tokens\": true",
         "pooling_mode_weightedmean_tokens is true"},
        {pool, "pooling_mode_cls_token\": false", "pooling_mode_mean_sqrt_len_tokens\": true",
         "pooling_mode_mean_sqrt_len_tokens is true"},
        {pool, "pooling_mode_cls_token\": false", "include_prompt\": false", "include_prompt is false"},
        {pool, "pooling_mode_cls_token\": false", "pooling_mode\": \"cls\"", "pooling_mode is \"cls\""},
        {longest, "64", "65.5", "max_seq_length is 65.5, expected 3 to 68"},
        {longest, "64", "69", "max_seq_length is 69, expected 3 to 68"},
        {longest, "64", "2", "max_seq_length is 2"},
        {longest, "false", "true", "do_lower_case is true, expected false"},
        {"config.json", "embeddings\": 70", "embeddings\": 1", "max_position_embeddings is 1, expected at least 5"},
        {"config.json", "embeddings\": 70", "embeddings\": 4", "max_position_embeddings is 4, expected at least 5"},
        {"config.json", "1e-12", "-1", "layer_norm_eps is -1, expected a number from 0 to 1"},
        {longest, "64", "64, \"query_length\": 32", "query_length is 32"},
        {longest, "64", "64, \"transformer_task\": \"fill-mask\"", "transformer_task is \"fill-mask\""},
        {longest, "64", "64, \"processing_kwargs\": {\"text\": {}}",
         "processing_kwargs is {\"text\": {}}, expected null"},
        {longest, "64",
         "64, \"modality_config\": {" TEXT
         "{\"method\": \"forward\", \"method_output_name\": [\"hidden_states\", -2]}}",
         "modality_config is {" TEXT "{\"method\""},
        {longest, "64", "64, \"modality_config\": {" TEXT "{\"method\": \"get_text_features\"}}", "modality_config is"},
        {longest, "64", "64, \"modality_config\": {\"message\": {}, " TEXT FORWARD "}", "modality_config is"},
        {longest, "64", "64, \"modality_config\": {\"image\": " FORWARD "}", "modality_config is"},
        {t, "\"padding\": null", "\"padding\": {\"pad_token\": \"[pad]\"}",
         "token [pad]: tokenizer.json has no such added"},
        {t, "{\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"continuing_subword_prefix\": \"##\",\n \"max",
         "{\"unk_token\": \"[UNK]\", \"continuing_subword_prefix\": \"##\",\n \"least", "expected WordPiece"},
        {"config.json", "\"mpnet\"", "\"roberta\"", "model_type is \"roberta\", expected \"bert\" or \"mpnet\""},
        {"config.json", "\"gelu\"", "\"gelu_new\"", "hidden_act is \"gelu_new\""},
        {"config.json", "\"absolute\"", "\"relative_key\"", "position_embedding_type is \"relative_key\""},
        {"config.json", "heads\": 3", "heads\": 4", "hidden_size is 30, expected a multiple of num_attention_heads, 4"},
        {"config.json", "heads\": 3", "heads\": 0", "num_attention_heads is 0, expected a count"},
        {"config.json", "\"absolute\"", "\"absolute\", \"is_decoder\": true", "is_decoder is true"},
        {"config.json", "\"absolute\"", "\"absolute\", \"relative_attention_num_buckets\": 64",
         "relative_attention_num_buckets is 64, expected 32"},
        {"config.json", "layers\": 2", "layers\": 1",
         "holds encoder.layer.1.attention.attn.q.weight, expected 1 layers"},
        {"config.json", "layers\": 2", "layers\": 3", "encoder.layer.2.attention.attn.q.weight is missing"},
        {"config.json", "size\": 100", "size\": 99",
         "embeddings.word_embeddings.weight is [100, 30], expected [99, 30]"},
        {"config.json", "\"absolute\"", "\"absolute\", \"tokenizer_class\": \"BertTokenizer\"",
         "tokenizer_class is \"BertTokenizer\", expected \"MPNetTokenizer\""},
        {"config.json", "\"absolute\"}", "\"abs", "is not a JSON object"},
        {t, "\"truncation\": null", "\"truncation\": nul", "is not a JSON object"},
        {"config.json", "1e-12", "\"small\"", "layer_norm_eps is \"small\""},
        {t, "\"WordPiece\", \"unk", "\"Unigram\", \"unk", "model is \"Unigram\", expected WordPiece"},
        {t, "\"BertNormalizer\"", "\"NFC\"", "normalizer is \"NFC\", expected BertNormalizer"},
        {t, "\"BertPreTokenizer\"", "\"Whitespace\"", "pre_tokenizer is \"Whitespace\""},
        {t, "\"RobertaProcessing\"", "\"ByteLevel\"", "post_processor is \"ByteLevel\", expected TemplateProcessing"},
        {t, "[\"</s>\", 2]", "[\"</s>\", 200]", "sep is [\"</s>\", 200], expected a token and its id"},
        {t, "\"RobertaProcessing\"", "\"TemplateProcessing\"", "single has no text, expected the text once"},
        {t, "\"RobertaProcessing\"",
         "\"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}]",
         "puts no tokens around a text"},
        {t, "\"truncation\": null", "\"truncation\": {\"direction\": \"Left\"}",
         "truncation is \"Left\", expected \"Right\""},
        {t, "\"padding\": null", "\"padding\": {\"direction\": \"Left\"}", "padding is \"Left\", expected \"Right\""},
        {t, "\"id\": 4, \"content\": \"<Mask>\"", "\"id\": 75, \"content\": \"\\u0301\"",
         "of which the normalizer leaves something"},
        {t, "\"RobertaProcessing\"",
         "\"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"A\", \"type_id\": 1}}]",
         "a type_id of the post_processor's single is 1, expected 0"},
        {t, "word\": 20", "word\": 0", "max_input_chars_per_word is 0"},
        {t, "continuing_subword_prefix\": \"##", "continuing_subword_prefix\": \"#########",
         "continuing_subword_prefix is"},
        {t, "unk_token\": \"[UNK]", "unk_token\": \"[X]", "unk_token is \"[X]\", expected a token of the vocabulary"},
        {t, "\"a\": 5", "\"a\": 6", "is that of another, too"},
        {t, "\"a\": 5", "\"a\": 500", "the id of token \"a\" is 500"},
    };
    ttmm_encoder *e = encoder_of(1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ttmm_encoder_free(e);
        replace(1, cases[i].file, cases[i].part, cases[i].by);
        REFUSED(ttmm_encoder_read(&e, FOLDER, &err), strcmp(cases[i].file, "config.json") ? cases[i].file : "",
                cases[i].sentence);
        replace(1, cases[i].file, "", "");
    }
    DONE(ttmm_encoder_read(&e, FOLDER, &err));
    ttmm_encoder_free(e);
}

/* The steps of BertNormalizer one by one, and a template: what is in tokenizer.json, what instead, a text, its ids. */
static void steps(void)
{
    static const char *const cases[][4] = {
        {"\"RobertaProcessing\"",
         "\"TemplateProcessing\", \"special_tokens\": {\"X\": {\"id\": \"X\", \"ids\": [4, 1], \"tokens\": [\"\", "
         "\"\"]}},"
         " \"single\": [{\"SpecialToken\": {\"id\": \"X\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", "
         "\"type_id\": 0}}]",
         "a", "4 1 5"},
        {"\"strip_accents\": null", "\"strip_accents\": false", "\xc4\xb0 \xc3\x89t\xc3\xa9 e\xcc\x81 \xc4\xb0\xc4\xb0",
         "0 21 73 69 3 21 73 22 73 2"},
        {"\"clean_text\": true", "\"clean_text\": false",
         "a\xe2\x80\x8b"
         "b \xef\xbf\xbd a\xc2\xa0"
         "b",
         "0 5 74 8 3 5 7 2"},
        {"\"handle_chinese_chars\": true", "\"handle_chinese_chars\": false",
         "a\xe4\xb8\xad \xe4\xb8\xad\xe4\xb8\xad \xe4\xb8\xad\xe6\x96\x87", "0 5 68 66 68 3 2"},
        {"\"lowercase\": true", "\"lowercase\": false", "Melt melt \xc3\x89t\xc3\xa9 \xc3\xa9t\xc3\xa9 <MASK> <Mask>",
         "0 3 57 3 69 70 3 72 4 2"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ttmm_encoder *e = encoder_of(1);
        ttmm_encoder_free(e);
        replace(1, "tokenizer.json", cases[i][0], cases[i][1]);
        if (!DONE(ttmm_encoder_read(&e, FOLDER, &err))) return;
        const char *found = ids_of(e, cases[i][2], strlen(cases[i][2]));
        if (strcmp(found, cases[i][3]) == 0) passed++;
        else test_failed(__FILE__, __LINE__, cases[i][1], cases[i][3], found);
        ttmm_encoder_free(e);
    }
}

static void files_beside(void)
{
    static const char *const cases[][3] = {
        {"config_sentence_transformers.json", "{\"default_prompt_name\": \"query\"}",
         "default_prompt_name is \"query\""},
        {"config_sentence_transformers.json", "{\"model_type\": \"SparseEncoder\"}", "model_type is \"SparseEncoder\""},
        {"config_sentence_transformers.json", "{\"model_type\": \"SentenceTransformer\"}", NULL},
        {"tokenizer_config.json", "{" AS_IT_IS ", \"tokenizer_file\": \"other/tokenizer.json\"}",
         "tokenizer_file is \"other/tokenizer.json\", expected null"},
        {"tokenizer_config.json", "{" AS_IT_IS ", \"fast_tokenizer_files\": [\"tokenizer.4.0.0.json\"]}",
         "fast_tokenizer_files is [\"tokenizer.4.0.0.json\"], expected null"},
        {"tokenizer_config.json", "{" AS_IT_IS ", \"tokenizer_file\": null}", NULL},
        {"config_sentence_transformers.json", "{\"prompts\": {\"query\": \"q: \"}, \"default_prompt_name\": null}",
         NULL},
        {"tokenizer_config.json", "{\"do_lower_case\": false}", "do_lower_case is false"},
        {"tokenizer_config.json", "{\"tokenize_chinese_chars\": false}", "tokenize_chinese_chars is false"},
        {"tokenizer_config.json", "{\"strip_accents\": false}", "strip_accents is false"},
        {"tokenizer_config.json", "{" AS_IT_IS ", \"truncation_side\": \"left\"}", "truncation_side is \"left\""},
        {"tokenizer_config.json", "{" AS_IT_IS ", \"split_special_tokens\": true}", "split_special_tokens is true"},
        {"tokenizer_config.json",
         "{" AS_IT_IS ", \"do_lower_case\": true, \"strip_accents\": null, \"truncation_side\": \"right\"}", NULL},
        {"tokenizer_config.json", "{\"tokenizer_class\": \"BertTokenizer\"}",
         "max_input_chars_per_word is 20, expected 100"},
        {"tokenizer_config.json", "{\"tokenizer_class\": \"RobertaTokenizer\"}",
         "tokenizer_class is \"RobertaTokenizer\", expected BertTokenizer, MPNetTokenizer"},
        {"tokenizer_config.json", "{" AS_IT_IS ", \"mask_token\": {\"content\": \"melt\"}}",
         "token melt: tokenizer.json has no such added token, but its padding or a file beside it"},
        {"added_tokens.json", "{\"melt\": 57}", "token melt: tokenizer.json has no such"},
        {"special_tokens_map.json", "{\"pad_token\": \"<pad>\"}", NULL},
        {"adapter_config.json", "{}", "holds adapter_config.json"},
        {"2_Normalize/config.json", "{\"module_input_name\": \"token_embeddings\"}",
         "module_input_name is \"token_embeddings\""},
        {"2_Normalize/config.json", "{}", NULL}};
    ttmm_encoder *e = encoder_of(1);
    DONE(ttmm_make_folder(
        sizeof(real) == 4 ? "test/build/encoder-f32.d/2_Normalize" : "test/build/encoder-f64.d/2_Normalize", &err));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ttmm_encoder_free(e);
        put(cases[i][0], cases[i][1]);
        if (cases[i][2]) REFUSED(ttmm_encoder_read(&e, FOLDER, &err), cases[i][2], "");
        else DONE(ttmm_encoder_read(&e, FOLDER, &err));
        CHECK((e == NULL) == (cases[i][2] != NULL));
        ttmm_remove(FOLDER, cases[i][0]);
        if (strcmp(cases[i][0], "tokenizer_config.json") == 0) put(cases[i][0], "{" AS_IT_IS "}");
    }
    ttmm_encoder_free(e);
    /* max_seq_length by tokenizer_config.json, or as many as there are positions */
    ttmm_remove(FOLDER, "sentence_bert_config.json");
    DONE(ttmm_encoder_read(&e, FOLDER, &err));
    CHECK(e && e->longest == 68);
    ttmm_encoder_free(e);
    put("sentence_xlnet_config.json", "{\"max_seq_length\": 7}");
    put("sentence_roberta_config.json", "{\"max_seq_length\": 9}");
    DONE(ttmm_encoder_read(&e, FOLDER, &err));
    CHECK(e && e->longest == 9);
    ttmm_encoder_free(e);
    ttmm_remove(FOLDER, "sentence_roberta_config.json"), ttmm_remove(FOLDER, "sentence_xlnet_config.json");
    put("tokenizer_config.json", "{" AS_IT_IS ", \"model_max_length\": 50}");
    DONE(ttmm_encoder_read(&e, FOLDER, &err));
    CHECK(e && e->longest == 50);
    ttmm_encoder_free(e);
    static const char *const other[][3] = {
        {"\"lowercase\": true", "\"lowercase\": false", "lowercase is false, expected true, BertTokenizer's"},
        {"\"strip_accents\": null", "\"strip_accents\": true", "strip_accents is true, expected null, BertTokenizer's"},
        {"\"clean_text\": true", "\"clean_text\": false", "clean_text is false, expected true"}};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        replace(1, "tokenizer.json", other[i][0], other[i][1]), put("tokenizer_config.json", "{}");
        REFUSED(ttmm_encoder_read(&e, FOLDER, &err), "tokenizer.json", other[i][2]);
    }
    replace(1, "tokenizer.json", "", "");
    put("tokenizer_config.json", "{" AS_IT_IS ", \"model_max_length\": 2}");
    REFUSED(ttmm_encoder_read(&e, FOLDER, &err), "tokenizer_config.json", "model_max_length is 2, expected 3 to 68");
    ttmm_remove(FOLDER, "tokenizer_config.json");
    REFUSED(ttmm_encoder_read(&e, FOLDER, &err), "tokenizer.json", "max_input_chars_per_word is 20, expected 100");
}

/* A tokenizer that MPNetTokenizer makes: tokens with a part are those that the files or the class name. */
static void names(void)
{
#define ADDED(content) "{\"id\": 3, \"content\": \"" content "\", \"normalized\": false, \"special\": true, " FLAGS
#define LISTED(content, normalised) \
    "{\"added_tokens_decoder\": {\"4\": {\"content\": \"" content "\", \"normalized\": " normalised "}}}"
    static const char *const cases[][5] = {
        {"", "", "tokenizer_config.json", "{}", NULL},
        {"", "", "tokenizer_config.json", "{\"tokenizer_class\": \"MPNetTokenizerFast\", \"mask_token\": null}", NULL},
        {"", "", "tokenizer_config.json", "{\"cls_token\": \"<s>\", \"unk_token\": {\"content\": \"[UNK]\"}}", NULL},
        {"", "", "tokenizer_config.json", "{\"tokenizer_class\": \"BertTokenizer\"}",
         "has no added token [CLS], expected that for cls_token"},
        {"", "", "tokenizer_config.json", "{\"sep_token\": \"<pad>\"}",
         "has </s> for sep_token, expected <pad>, as a file beside it says"},
        {"", "", "special_tokens_map.json", "{\"unk_token\": \"<pad>\"}", "has [UNK] for unk_token, expected <pad>"},
        {"[\"<s>\", 0]", "[\"<pad>\", 1]", "", "",
         "has <pad> for cls_token, expected <s>, as its class has by default"},
        {"unk_token\": \"[UNK]", "unk_token\": \"<pad>", "", "", "has <pad> for unk_token, expected [UNK]"},
        {"\"id\": 4, \"content\": \"<mask>", "\"id\": 3, \"content\": \"[UNK]", "", "",
         "has no added token <mask>, expected that for mask_token"},
        {"\"id\": 4, \"content\": \"<mask>", "\"id\": 3, \"content\": \"[UNK]", "tokenizer_config.json",
         "{\"mask_token\": \"<pad>\"}", NULL},
        {"", "", "tokenizer_config.json", "{\"sep_token\": null}",
         "tokenizer_config.json: sep_token is null, expected a"},
        {"", "", "tokenizer_config.json", "{\"added_tokens_decoder\": [1]}",
         "added_tokens_decoder is [1], expected an obj"},
        {"", "", "tokenizer_config.json", "{\"added_tokens_decoder\": {}}",
         "has the added token <mask>, which is not in"},
        {"\"<mask>\", \"normalized\": true", "\"<mask>\", \"normalized\": false", "tokenizer_config.json",
         "{\"added_tokens_decoder\": {}}", NULL},
        {"", "", "tokenizer_config.json", LISTED("<mask>", "true"), NULL},
        {"", "", "tokenizer_config.json", LISTED("<mask>", "false"),
         "token <mask>: tokenizer_config.json has other flags"},
        {"\"id\": 4", "\"id\": 40", "", "", "the id of the added token <mask> is 40, expected 4"},
        {"\"added_tokens\": [", "\"added_tokens\": [{\"content\": \"COVID\", \"normalized\": true}, ",
         "added_tokens.json", "{\"COVID\": 75}", NULL},
        {"", "", "added_tokens.json", "{\"COVID\": 75}", "token COVID: tokenizer.json has no such added token"},
        {"\"RobertaProcessing\"",
         "\"TemplateProcessing\", \"special_tokens\": {\"X\": {\"id\": \"X\", \"ids\": [0], \"tokens\": [\"\"]}}, "
         "\"single\": [{\"SpecialToken\": {\"id\": \"X\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", "
         "\"type_id\": 0}}]",
         "", "", "puts 1 and 0 tokens around a text, expected one and one"}};
    ttmm_encoder *e = encoder_of(1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const by[][2] = {{"word\": 20", "word\": 100"},
                                     {"\"<Mask>\": 4", "\"<mask>\": 4"},
                                     {"\"content\": \"<Mask>\"", "\"content\": \"<mask>\""},
                                     {"\"added_tokens\": [", "\"added_tokens\": [" ADDED("[UNK]") ", "},
                                     {cases[i][0], cases[i][1]}};
        ttmm_encoder_free(e);
        replace_all(1, "tokenizer.json", by, 5);
        ttmm_remove(FOLDER, "tokenizer_config.json"), ttmm_remove(FOLDER, "special_tokens_map.json");
        ttmm_remove(FOLDER, "added_tokens.json");
        if (cases[i][2][0]) put(cases[i][2], cases[i][3]);
        if (cases[i][4]) REFUSED(ttmm_encoder_read(&e, FOLDER, &err), cases[i][4], "");
        else DONE(ttmm_encoder_read(&e, FOLDER, &err));
        CHECK((e == NULL) == (cases[i][4] != NULL));
    }
    ttmm_encoder_free(e);
}

/* Weights in 16 bits, named as in a whole BERT, cut short, not finite. */
static void weights(void)
{
    static encoder_weights w;
    static stored t[200];
    char name[200][160], first[17];
    real out[2][ENC_D];
    ttmm_encoder *e = encoder_of(0);
    if (e == NULL) return;
    encode_all(out[0], e, 1);
    snprintf(first, sizeof first, "%s", ttmm_encoder_fingerprint(e));
    CHECK(strlen(first) == 16 && strspn(first, "0123456789abcdef") == 16);
    ttmm_encoder_free(e);
    make_weights(&w, 0);
    for (int pass = 0; pass < 3; pass++) {
        static const int type[] = {TTMM_F16, TTMM_BF16, TTMM_REAL};
        static const double tolerance[] = {0.01, 0.05, 0};
        for (size_t i = 0; i < w.n; i++) {
            snprintf(name[i], sizeof name[i], "%s%.140s", pass ? "bert." : "", w.array[i].name);
            t[i] = store(name[i], type[pass], w.array[i].rows, w.array[i].cols, w.array[i].data);
        }
        DONE(write_safetensors(FOLDER, "model.safetensors", t, w.n, "", &err)),
            DONE(ttmm_encoder_read(&e, FOLDER, &err));
        if (e == NULL) return;
        encode_all(out[1], e, 1);
        for (int i = 0; i < ENC_D; i++) CHECK_NEAR(out[1][i], out[0][i], tolerance[pass]);
        CHECK((strcmp(first, ttmm_encoder_fingerprint(e)) == 0) == (pass == 2));
        for (size_t i = 0; i < 2 * e->n && pass == 2; i++)
            CHECK(!e->tensor[i].data || (e->own[i] == NULL) == test_can_map()); /* in place */
        ttmm_encoder_free(e);
    }
    w.data[w.used - 1] = INFINITY;
    DONE(write_safetensors(FOLDER, "model.safetensors", t, w.n, "", &err));
    REFUSED(ttmm_encoder_read(&e, FOLDER, &err), "bert.encoder.layer.1.output.LayerNorm.bias", "not finite");
    w.data[w.used - 1] = (real)1e30;
    for (size_t i = 0; i < ENC_D; i++) w.data[w.used - 1 - i] = (real)(sizeof(real) == 4 ? 3e38 : 1e308);
    DONE(write_safetensors(FOLDER, "model.safetensors", t, w.n, "", &err)), DONE(ttmm_encoder_read(&e, FOLDER, &err));
    REFUSED(ttmm_encode(out[0], e, texts, (const size_t[]){4}, 1, &err), "zero or not finite", "");
    ttmm_encoder_free(e);
    char path[200], *bytes;
    size_t n;
    snprintf(path, sizeof path, "%s/model.safetensors", FOLDER);
    DONE(read_whole_file(&bytes, &n, path, &err));
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(bytes, 1, n - 100, f) == n - 100);
    if (f) fclose(f);
    free(bytes);
    REFUSED(ttmm_encoder_read(&e, FOLDER, &err), "model.safetensors", "cut short");
    CHECK(e == NULL);
}

/* What an embedding depends on alters the fingerprint. */
static void fingerprints(void)
{
    static const char *const cases[][3] = {{"config.json", "1e-12", "1e-5"},
                                           {"sentence_bert_config.json", "64", "63"},
                                           {"tokenizer.json", "\"melt\"", "\"molt\""},
                                           {"tokenizer.json", "\"lowercase\": true", "\"lowercase\": false"},
                                           {"tokenizer.json", "[\"</s>\", 2]", "[\"</s>\", 1]"},
                                           {"tokenizer.json", "word\": 20", "word\": 21"}};
    char first[17];
    ttmm_encoder *e = encoder_of(1);
    if (e == NULL) return;
    snprintf(first, sizeof first, "%s", ttmm_encoder_fingerprint(e));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ttmm_encoder_free(e);
        replace(1, cases[i][0], cases[i][1], cases[i][2]);
        DONE(ttmm_encoder_read(&e, FOLDER, &err));
        CHECK(e && strcmp(first, ttmm_encoder_fingerprint(e)) != 0);
        replace(1, cases[i][0], "", "");
    }
    ttmm_encoder_free(e);
}

/* A corpus, its file, a prompt's query, a trace. */
static void in_use(void)
{
    static const char *const path[] = {"data/train/cookbook.txt"};
    ttmm_corpus c, again;
    ttmm_trace t;
    ttmm_encoder *e = encoder_of(1);
    real out[ENC_D];
    if (e == NULL || !DONE(ttmm_corpus_from_files(&c, NULL, path, 1, 256, &err))) return;
    DONE(ttmm_corpus_encode(&c, e, NULL, 0, c.n_sequences, &err));
    CHECK(c.dim == ENC_D && c.idf == NULL && strcmp(c.encoder, ttmm_encoder_fingerprint(e)) == 0);
    char text[257] = "";
    for (size_t i = c.sequence[1], n = 0; i < c.sequence[2]; i++) /* bytes; the end token is none */
        if (c.token[i] < 256) text[n++] = (char)(unsigned char)c.token[i];
    DONE(ttmm_encode(out, e, (const char *const[]){text}, (const size_t[]){strlen(text)}, 1, &err));
    CHECK(memcmp(out, c.embedding + ENC_D, sizeof out) == 0);
    DONE(ttmm_corpus_write(&c, FOLDER, "", &err)), DONE(ttmm_corpus_read(&again, FOLDER, TTMM_BYTES, &err));
    CHECK(strcmp(again.encoder, c.encoder) == 0 && again.dim == c.dim);
    CHECK(memcmp(again.embedding, c.embedding, c.n_sequences * c.dim * sizeof(real)) == 0);
    memset(again.embedding, 0, c.n_sequences * c.dim * sizeof(real));
    for (size_t i = 0, n = 0; i <= c.n_sequences; i += n, n = 1 + n % 5) /* in parts, of none at first */
        DONE(ttmm_corpus_encode(&again, e, NULL, i, c.n_sequences - i < n ? c.n_sequences - i : n, &err));
    CHECK(memcmp(again.embedding, c.embedding, c.n_sequences * c.dim * sizeof(real)) == 0);
    again.dim++;
    GIVES("another width", ttmm_corpus_encode(&again, e, NULL, 1, 1, &err), TTMM_BAD_USE, "", "sequence 0 comes first");
    GIVES("too many", ttmm_corpus_encode(&again, e, NULL, 1, c.n_sequences, &err), TTMM_BAD_USE, "",
          "are asked for of");

    ttmm_mixture x = {.E = ENC_D, .encoder = e, .prefix = 1000};
    DONE(ttmm_mixture_new(&x, &err)),
        DONE(ttmm_query(&x, c.token + c.sequence[1], c.sequence[2] - c.sequence[1], NULL, &err));
    CHECK(memcmp(out, x.query, sizeof out) == 0);
    x.prefix = 3;
    DONE(ttmm_query(&x, c.token + c.sequence[1], c.sequence[2] - c.sequence[1], NULL, &err));
    DONE(ttmm_encode(out, e, (const char *const[]){text}, (const size_t[]){3}, 1, &err));
    CHECK(memcmp(out, x.query, sizeof out) == 0);
    x.E = 7;
    GIVES("another width", ttmm_query(&x, c.token, 3, NULL, &err), TTMM_BAD_USE, "the centroids have 7 numbers", "30");
    x.E = ENC_D, x.tokenizer = ttmm_tokenizer_of_ids();
    GIVES("ids alone", ttmm_query(&x, c.token, 3, NULL, &err), TTMM_BAD_USE, "whose text is not known", "");
    ttmm_mixture_free(&x);

    DONE(ttmm_encoder_trace(&t, e, text, 3, &err));
    CHECK(t.n == 4 + 10 * ENC_L && strcmp(t.array[0].name, "tokens") == 0 &&
          strcmp(t.array[2].name, "layers.0.q") == 0);
    CHECK(memcmp(t.array[t.n - 1].data, out, sizeof out) == 0 && strcmp(t.array[t.n - 1].name, "embedding") == 0);
    ttmm_trace_free(&t);
    DONE(ttmm_corpus_embed(&c, NULL, &err)); /* the built-in one again */
    CHECK(c.encoder[0] == 0 && c.dim == TTMM_EMBED_DIM);
    ttmm_corpus_free(&c), ttmm_corpus_free(&again), ttmm_encoder_free(e);
}

int main(int argc, char **argv)
{
    if (argc == 3) return make_encoder(argv[1], strcmp(argv[2], "mpnet") == 0, &err) != TTMM_OK;
    RUN(values), RUN(worked), RUN(batches), RUN(words), RUN(steps), RUN(alike), RUN(refused), RUN(files_beside),
        RUN(names), RUN(weights), RUN(fingerprints);
    RUN(in_use);
    test_clear(FOLDER);
    return test_end("encoder");
}
