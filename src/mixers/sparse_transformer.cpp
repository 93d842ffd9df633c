// Generating Long Sequences with Sparse Transformers (Child et al., arXiv:1904.10509), section 4.3: two patterns that
// reach everything in two steps, for a stride l of about sqrt(n).
//   strided: A1(i) = {i - l, ..., i},                    A2(i) = {j <= i: (i - j) mod l = 0}
//   fixed:   A1(i) = {j <= i: j div l = i div l},        A2(i) = {j <= i: j mod l >= l - c}
//   y_i = W_o concat_h sum_{j in A(i)} softmax_j(q_ih . k_jh / sqrt(K)) v_jh
// A is A1 or A2 head by head, block by block, or both at once. Queries of A2 that share a residue share their keys, so
// that a tile of the engine holds every l-th key.
#include "mixers/sparse_settings.h"

namespace sennit::mixers {
namespace {

struct SparseTransformer : SparseMixer {
  struct Options : HeadSettings {
    int64_t stride = 128, summary = 8;
    std::string pattern = "strided", arrange = "heads";
    Fields fields() {
      Fields all = HeadSettings::fields();
      const Fields own = {{"pattern", &pattern, "which keys", {.choices = {"strided", "fixed"}}},
                          {"stride", &stride, "l, best near the root of the length", {.min = 1, .max = 1e9}},
                          {"summary",
                           &summary,
                           "c: the last places of each run of l, which fixed attention reads",
                           {.min = 1, .max = 1e9}},
                          {"arrange",
                           &arrange,
                           "A1 and A2 in turn by heads or blocks, or merged into one",
                           {.choices = {"heads", "blocks", "merged"}}}};
      all.insert(all.end(), own.begin(), own.end());
      return all;
    }
  };
  static Info info() {
    return {.title = "Sparse Transformer",
            .paper = "arXiv:1904.10509",
            .equation = "y_i = sum_{j in A(i)} softmax_j(q_i k_j / sqrt(K)) v_j, A(i) the last l keys and every l-th",
            .cost = "O(n (l + n / l) d)",
            .settings = {{"strided", R"({"stride": 7, "kv_heads": 2})"},
                         {"strided merged", R"({"stride": 9, "arrange": "merged", "position": "alibi"})"},
                         {"fixed", R"({"pattern": "fixed", "stride": 12, "summary": 3, "bias": true})"},
                         {"fixed merged", R"({"pattern": "fixed", "stride": 16, "summary": 5, "arrange": "merged"})"}}};
  }

  SparseTransformer(const Dims& d, const Options& o, Rng rng)
      : SparseMixer("sparse_transformer", d, o, rng),
        l(o.stride),
        c(o.summary),
        depth(d.depth),
        strided(o.pattern == "strided"),
        arrange(o.arrange) {
    if (!strided && c > l)
      fail({"sparse_transformer", fmt::format("a summary of at most stride = {}", l), fmt::format("{}", c)});
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<SparseTransformer>("sparse_transformer", batch);
    return attend(x, batch);
  }

  bool merged() const { return arrange == "merged"; }
  bool near_part(int64_t head) const { return merged() || (arrange == "heads" ? head : depth) % 2 == 0; }
  bool far_part(int64_t head) const { return merged() || !near_part(head); }

  void tiles(int64_t head, bool, TileList& list) const override {
    const Places q = list.queries();
    if (strided) {
      if (near_part(head)) list.add(Places{q.begin - l, q.end}, q, 0, l + 1);
      if (far_part(head)) add_residues(list);
      return;
    }
    for (int64_t run = q.begin / l * l; run < q.end; run += l) {
      if (near_part(head)) list.add(Places{run, run + l}, Places{run, run + l}, 0);
      if (!far_part(head)) continue;
      Pooled<int32_t> keys;  // the summaries before this run, and its own where A1 does not show it
      for (int64_t end = l; end <= run + (merged() ? 0 : l); end += l)
        for (int64_t j = end - c; j < std::min(end, list.keys()); ++j) keys.push_back(static_cast<int32_t>(j));
      list.add(keys, Places{run, run + l}, 0);
    }
  }

  void add_residues(TileList& list) const {
    const Places q = list.queries();
    for (int64_t first = q.begin; first < std::min(q.begin + l, q.end); ++first) {
      Pooled<int32_t> queries, keys;
      for (int64_t i = first; i < q.end; i += l) queries.push_back(static_cast<int32_t>(i));
      for (int64_t j = first % l; j <= queries.back(); j += l) keys.push_back(static_cast<int32_t>(j));
      list.add(keys, queries, merged() ? l + 1 : 0);
    }
  }

  bool sees(int64_t head, bool, int64_t i, int64_t j, int64_t) const override {
    const bool a1 = strided ? i - j <= l : i / l == j / l, a2 = strided ? (i - j) % l == 0 : j % l >= l - c;
    return (near_part(head) && a1) || (far_part(head) && a2);
  }
  int64_t keys_seen(int64_t head, int64_t i) const override {
    const int64_t runs = i / l, in_run = i % l;
    const int64_t a1 = strided ? std::min(i, l) + 1 : in_run + 1;
    if (merged()) return a1 + (strided ? std::max<int64_t>(0, runs - 1) : runs * c);
    if (near_part(head)) return a1;
    return strided ? runs + 1 : runs * c + std::max<int64_t>(0, in_run - (l - c) + 1);
  }

  int64_t l, c, depth;
  bool strided;
  std::string arrange;
};

}  // namespace

void register_sparse_transformer(Registry<Mixer>& r) {
  r.add<SparseTransformer>("sparse_transformer");
}

}  // namespace sennit::mixers
