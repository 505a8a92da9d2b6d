/* encoder.h - writes a small random encoder's folder, as sentence-transformers has it, through ttmm's public face. */
#ifndef ENCODER_H
#define ENCODER_H
#include "../ttmm.h"

#include <string.h>

/* No width is a multiple of 16, the number of lanes of a sum. */
enum { ENC_D = 30, ENC_H = 3, ENC_F = 44, ENC_L = 2, ENC_POSITIONS = 70, ENC_LONGEST = 64, ENC_VOCAB = 100 };

static const char *const encoder_files[] = {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json",
                                            "config.json",  "tokenizer.json",        "tokenizer_config.json"};
enum { ENC_FILES = sizeof encoder_files / sizeof *encoder_files };

#define FLAGS "\"single_word\": false, \"lstrip\": false, \"rstrip\": false}"

/* transformers takes tokenizer.json as it is; else it would make a tokenizer of its own. */
#define AS_IT_IS "\"tokenizer_class\": \"PreTrainedTokenizerFast\""

/* What stands in file i of those. Tokens: 0 <s>, 1 <pad>, 2 </s>, 3 [UNK], 4 <mask>; then letters, alone and inside of
 * words; then some words and pieces. */
static inline void encoder_text(char *out, size_t size, int i, int mpnet)
{
    static const char *const text[] = {
        "[{\"idx\": 0, \"name\": \"0\", \"path\": \"\", \"type\": \"sentence_transformers.models.Transformer\"},\n"
        " {\"idx\": 1, \"name\": \"1\", \"path\": \"1_Pooling\", \"type\": \"sentence_transformers.models.Pooling\"},\n"
        " {\"idx\": 2, \"name\": \"2\", \"path\": \"2_Normalize\", \"type\": "
        "\"sentence_transformers.models.Normalize\"}]\n",
        "{\"word_embedding_dimension\": 30, \"pooling_mode_cls_token\": false, \"pooling_mode_mean_tokens\": true}\n",
        "{\"max_seq_length\": 64, \"do_lower_case\": false}\n",
        "{\"model_type\": \"%s\", \"hidden_act\": \"gelu\", \"hidden_size\": 30, \"num_attention_heads\": 3,\n"
        " \"num_hidden_layers\": 2, \"intermediate_size\": 44, \"layer_norm_eps\": 1e-12, \"vocab_size\": 100,\n"
        " \"max_position_embeddings\": 70, \"type_vocab_size\": 2, \"position_embedding_type\": \"absolute\"}\n",
        "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [\n"
        "{\"id\": 0, \"content\": \"<s>\", \"normalized\": false, \"special\": true, " FLAGS ",\n"
        "{\"id\": 1, \"content\": \"<pad>\", \"normalized\": false, \"special\": true, " FLAGS ",\n"
        "{\"id\": 2, \"content\": \"</s>\", \"normalized\": false, \"special\": true, " FLAGS ",\n"
        "{\"id\": 4, \"content\": \"<Mask>\", \"normalized\": true, \"special\": true, " FLAGS "],\n"
        "\"normalizer\": {\"type\": \"BertNormalizer\", \"clean_text\": true, \"handle_chinese_chars\": true,\n"
        " \"strip_accents\": null, \"lowercase\": true},\n"
        "\"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"},\n"
        "\"post_processor\": {\"type\": \"RobertaProcessing\", \"sep\": [\"</s>\", 2], \"cls\": [\"<s>\", 0],\n"
        " \"trim_offsets\": true, \"add_prefix_space\": false},\n"
        "\"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true},\n"
        "\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"continuing_subword_prefix\": \"##\",\n"
        " \"max_input_chars_per_word\": 20, \"vocab\": {\"<s>\": 0, \"<pad>\": 1, \"</s>\": 2, \"[UNK]\": 3, "
        "\"<Mask>\": 4",
        "{" AS_IT_IS "}\n"};
    static const char *const pieces[] = {"melt",
                                         "the",
                                         "butter",
                                         "but",
                                         "##ter",
                                         "##ing",
                                         ".",
                                         ",",
                                         "'",
                                         "\xe4\xb8\xad",
                                         "\xe6\x96\x87",
                                         "##\xe4\xb8\xad",
                                         "\xc3\xa9t\xc3\xa9",
                                         "<",
                                         "mask",
                                         ">",
                                         "##\xcc\x87",
                                         "##\xe2\x80\x8b"};
    size_t n = (size_t)snprintf(out, size, text[i], mpnet ? "mpnet" : "bert");
    if (strcmp(encoder_files[i], "tokenizer.json") != 0) return;
    int id = 5;
    for (char c = 'a'; c <= 'z'; c++, id += 2)
        n += (size_t)snprintf(out + n, size - n, ", \"%c\": %d, \"##%c\": %d", c, id, c, id + 1);
    for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++)
        n += (size_t)snprintf(out + n, size - n, ", \"%s\": %d", pieces[p], id++);
    snprintf(out + n, size - n, "}}}\n");
}

/* A tensor of `rows` and `cols` (0: a vector): normal, of a small deviation, around `mean`; its numbers are floats, so
 * that they are the same in double. */
typedef struct {
    ttmm_array array[200];
    size_t n, used;
    ttmm_real data[20000];
} encoder_weights;

static inline void encoder_weight(encoder_weights *w, size_t rows, size_t cols, double mean, const char *name,
                                  int layer)
{
    ttmm_array *a = &w->array[w->n++];
    ttmm_real *data = w->data + w->used;
    *a = (ttmm_array){{0}, rows, cols, data, NULL};
    snprintf(a->name, sizeof a->name, name, layer);
    ttmm_rng g = ttmm_stream(7, a->name, 0);
    w->used += rows * (cols ? cols : 1);
    for (size_t i = 0; i < rows * (cols ? cols : 1); i++) data[i] = (ttmm_real)(float)(mean + 0.3 * ttmm_normal(&g));
}

/* The same with its bias; one without columns is a gain. */
static inline void encoder_module(encoder_weights *w, size_t rows, size_t cols, const char *name, int layer)
{
    char full[160];
    snprintf(full, sizeof full, "%s.weight", name);
    encoder_weight(w, rows, cols, cols ? 0 : 1, full, layer);
    snprintf(full, sizeof full, "%s.bias", name);
    encoder_weight(w, rows, 0, 0, full, layer);
}

static inline void make_weights(encoder_weights *w, int mpnet)
{
    static const char *const name[2][4] = {
        {"encoder.layer.%d.attention.self.query", "encoder.layer.%d.attention.self.key",
         "encoder.layer.%d.attention.self.value", "encoder.layer.%d.attention.output.dense"},
        {"encoder.layer.%d.attention.attn.q", "encoder.layer.%d.attention.attn.k", "encoder.layer.%d.attention.attn.v",
         "encoder.layer.%d.attention.attn.o"}};
    w->n = w->used = 0;
    encoder_weight(w, ENC_VOCAB, ENC_D, 0, "embeddings.word_embeddings.weight", 0);
    encoder_weight(w, ENC_POSITIONS, ENC_D, 0, "embeddings.position_embeddings.weight", 0);
    if (mpnet) encoder_weight(w, 32, ENC_H, 0, "encoder.relative_attention_bias.weight", 0);
    else encoder_weight(w, 2, ENC_D, 0, "embeddings.token_type_embeddings.weight", 0);
    encoder_module(w, ENC_D, 0, "embeddings.LayerNorm", 0);
    for (int l = 0; l < ENC_L; l++) {
        for (int i = 0; i < 4; i++) encoder_module(w, ENC_D, ENC_D, name[mpnet][i], l);
        encoder_module(w, ENC_D, 0,
                       mpnet ? "encoder.layer.%d.attention.LayerNorm" : "encoder.layer.%d.attention.output.LayerNorm",
                       l);
        encoder_module(w, ENC_F, ENC_D, "encoder.layer.%d.intermediate.dense", l);
        encoder_module(w, ENC_D, ENC_F, "encoder.layer.%d.output.dense", l);
        encoder_module(w, ENC_D, 0, "encoder.layer.%d.output.LayerNorm", l);
    }
}

static inline int encoder_write(const char *folder, int i, const char *text, ttmm_error *err)
{
    char path[1000];
    snprintf(path, sizeof path, "%s/%s", folder, encoder_files[i]);
    FILE *f = ttmm_open(path, "wb");
    if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0) return ttmm_fail(err, TTMM_NO_ROOM, "%s: not written", path);
    return TTMM_OK;
}

static inline int make_encoder(const char *folder, int mpnet, ttmm_error *err)
{
    static encoder_weights w;
    char path[1000], text[8000];
    snprintf(path, sizeof path, "%s/1_Pooling", folder);
    int code = ttmm_make_folder(path, err);
    for (int i = 0; i < ENC_FILES && code == TTMM_OK; i++) {
        encoder_text(text, sizeof text, i, mpnet);
        code = encoder_write(folder, i, text, err);
    }
    make_weights(&w, mpnet);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    return code ? code : ttmm_arrays_write(w.array, w.n, path, "", err);
}

static inline void remove_encoder(const char *folder)
{
    for (int i = 0; i < ENC_FILES; i++) ttmm_remove(folder, encoder_files[i]);
    ttmm_remove(folder, "1_Pooling"), ttmm_remove(folder, "model.safetensors"), ttmm_remove(NULL, folder);
}
#endif
